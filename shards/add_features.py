"""Shard set -> a new one whose clips also hold features: computed once, here, and not in every run that reads them.

python -m shards features SHARDS out=FOLDER features.video.vgg16.weights=FILE      a network: where a GPU is
python -m shards features SHARDS out=FOLDER features.audio.lfbe.bands=40 drop=[m4a]
python -m shards features SHARDS out=FOLDER part=3/40 ...                          on as many machines at once
python -m shards merge FOLDER                                                      after all parts

SHARDS stays as it is. The new set has its clips in the same order and splits, all files of each (but those to `drop`)
and <key>.<feature>.npy, with the numbers that a run would compute. A clip whose feature cannot be computed is
quarantined; its words leave the vocabulary with it.

The plan, and what is written so far, lie in FOLDER/work until the merge. After a kill, the same command goes on (also
as `python -m shards features FOLDER/work/config.yaml`): shards that are done stay. The first argument is a shard set
or such a file. Two parts on one GPU use it better than one: one decodes while the other computes.
"""

import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from shards.cache import CacheConfig
from shards.compute import Media, compute_all
from shards.decode import audio_of, video_of
from shards.features.config import FeaturesConfig, build
from shards.fill import Sample, fill_part
from shards.index import ShardSet
from shards.merge import merge
from shards.pool import Failure
from shards.record import SPLITS, ClipRecord, Manifest
from shards.work import Plan, PlannedShard, Work, leaves, part_of
from triptych.config import UserError, dump, load, nearest, to_dict
from triptych.modalities import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class AddFeaturesConfig:
    """What `python -m shards features` does."""

    shards: str
    """The shard set to start from; a folder or a URL."""
    out: str
    """Folder of the new shard set."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Features to compute; one that the clips hold already is not computed again."""
    drop: list[str] = field(default_factory=list)
    """Files to leave out of the new set, by extension: the media of a feature (mp4), or another feature (lfbe.npy)."""
    workers: int | None = None
    """Child processes that compute; as many as the cores this process may use when not given."""
    timeout_s: float = 600.0
    """For one clip in a child: a network on a single core takes minutes for a long one."""
    batch_clips: int = 8
    """Clips that a network on a GPU sees together; there, this process computes everything."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept while they are read."""
    max_quarantined_share: float = 0.01
    """More clips whose features cannot be computed than this share stop the writing."""
    part: str | None = None
    """i/n: write the i-th of n shares of the shards, and leave the rest and the merge to others."""
    retry: bool = False
    """Write shards with quarantined clips again, as with a longer `timeout_s`."""

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("batch_clips", self.batch_clips)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; expected 1 or more")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s: {self.timeout_s}; expected more than 0")
        if not 0 <= self.max_quarantined_share <= 1:
            raise ValueError(f"max_quarantined_share: {self.max_quarantined_share}; expected 0 to 1")
        if "json" in self.drop:
            raise ValueError("drop: the json says what a clip is; it stays")
        if os.path.realpath(self.out) == os.path.realpath(self.shards):
            raise ValueError("out: the shard set itself, which stays as it is; choose another folder")
        part_of(self.part)


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards features SHARDS out=FOLDER [a.b=c ...]`; returns the exit status, 0."""
    source: Path | dict[str, Any] = Path(target) if Path(target).is_file() else {"shards": target}
    config = load(AddFeaturesConfig, source, overrides)
    if config.part:
        add_part(config)
    else:
        add_features(config)
    return 0


def add_features(config: AddFeaturesConfig) -> Manifest:
    """Write the new shard set and print what became of every clip.

    The same shards and config give the same bytes, whatever the number of parts, workers and interruptions; on a GPU
    up to the rounding that a feature states.

    Args:
        config: `part` is not looked at; see `add_part`.

    Returns:
        The manifest, which is also on disk: it is written last.

    Raises:
        UserError: the shards are damaged, hold the features already or others of the same name, or `out` already
            holds a shard set or another plan; something that cannot be dropped; more clips without their features
            than `max_quarantined_share`.
    """
    out = Path(config.out)
    if not ((out / "manifest.json").exists() and Work(out).folder.exists()):  # else killed just before the end
        add_part(replace(config, part=None))
    return merge(out, config.max_quarantined_share)


def add_part(config: AddFeaturesConfig) -> None:
    """Write the shards of `config.part` (None: all) that are not written yet, and merge nothing.

    Raises:
        UserError: as of `add_features`.
    """
    source, work = ShardSet(config.shards, config.cache), Work(Path(config.out))
    wanted = _missing(config, source.manifest)
    manifest = json.dumps(source.manifest.to_json(), sort_keys=True)
    settings = {feature.spec.name: dict(feature.spec.settings) for feature in build(wanted).values()}
    identity = leaves(
        {
            "shards": f"manifest {sha256(manifest.encode()).hexdigest()}",
            "drop": sorted(config.drop),
            "features": to_dict(config.features),
            "settings": settings,  # the hash of a network's weights is here
        }
    )
    plan = work.prepare(identity, lambda: _plan(config, source, wanted, identity, work))
    samples = partial(_samples, config, source, wanted)
    fill_part(work, plan, samples, part=config.part, retry=config.retry, most_bad=config.max_quarantined_share)


def _missing(config: AddFeaturesConfig, manifest: Manifest) -> FeaturesConfig:
    """The features that are to be computed.

    Raises:
        UserError: there are none, or the set has another feature of that name.
    """
    stored = {spec.name: spec for spec in _kept(config, manifest)}
    missing = config.features
    for modality, feature in build(config.features).items():
        there = stored.get(feature.spec.name)
        if there == feature.spec:
            missing = replace(missing, **{modality: None})
        elif there is not None:
            differs = [name for name, value in vars(there).items() if getattr(feature.spec, name) != value]
            raise UserError(
                f"{config.shards}: holds a feature {there.name} that differs in {', '.join(differs)}; to put this one "
                f"in its place, add drop=[{there.name}.npy]"
            )
    if not build(missing):
        given = ", ".join(feature.spec.name for feature in build(config.features).values())
        told = f"holds {given} already" if given else "nothing to add: give features.audio.NAME or features.video.NAME"
        raise UserError(f"{config.shards}: {told}")
    return missing


def _kept(config: AddFeaturesConfig, manifest: Manifest) -> list[FeatureSpec]:
    """The stored features that are not dropped."""
    stored = map(FeatureSpec.from_json, manifest.features)
    return [spec for spec in stored if f"{spec.name}.npy" not in config.drop]


def _plan(
    config: AddFeaturesConfig, source: ShardSet, wanted: FeaturesConfig, identity: dict[str, Any], work: Work
) -> None:
    manifest = source.manifest
    specs = [*_kept(config, manifest), *(feature.spec for feature in build(wanted).values())]
    shards = [
        PlannedShard(name=_name(split, number), split=split, num_clips=num_clips)
        for split in SPLITS
        if any(shard.split == split for shard in manifest.shards)
        for number, num_clips in enumerate(source.split(split).shard_sizes)
    ]
    planned = sum(shard.num_clips for shard in shards)
    if manifest.found != planned + sum(manifest.filtered.values()) + len(manifest.quarantined):
        raise UserError(f"{config.shards}: the manifest does not account for its clips; see `python -m shards check`")
    if config.drop:
        _check_drop(config, source, specs)
    plan = Plan(
        command="features",
        identity=identity,
        corpus=manifest.corpus,
        split=manifest.split,
        features=[spec.to_json() for spec in sorted(specs, key=lambda spec: (spec.modality, spec.name))],
        max_quarantined_share=config.max_quarantined_share,
        found=manifest.found,
        filtered=manifest.filtered,
        quarantined=manifest.quarantined,
        created_by=manifest.created_by.split("; "),
        shards=shards,
    )
    location = config.shards if "://" in config.shards else os.path.abspath(config.shards)  # parts may start elsewhere
    again = replace(config, shards=location, part=None, retry=False)
    work.save(plan, ((shard.name, []) for shard in shards), dump(again))


def _name(split: str, number: int) -> str:
    return f"{split}-{number:06d}"


def _check_drop(config: AddFeaturesConfig, source: ShardSet, specs: Sequence[FeatureSpec]) -> None:
    """Refuse to drop what is not there, and the only picture or sound that is left of a clip."""
    kinds = set[frozenset[str]]()
    for name in dict.fromkeys(shard.split for shard in source.manifest.shards):
        split = source.split(name)
        kinds |= {frozenset(split.extensions(sample_id)) for sample_id in range(len(split))}
    there = {extension for kind in kinds for extension in kind}
    for extension in config.drop:
        if extension not in there:
            raise UserError(f"drop: no clip has a file {extension!r}.{nearest(extension, sorted(there - {'json'}))}")
    for modality, taken_from in (("audio", audio_of), ("video", video_of)):
        none_has = source.manifest.counts[f"without_{modality}"] == source.manifest.written
        if none_has or any(spec.modality == modality for spec in specs):
            continue
        for kind in kinds:
            files = {extension: extension.encode() for extension in kind}
            kept = {extension: name for extension, name in files.items() if extension not in config.drop}
            if taken_from(files) is not None and taken_from(kept) is None:
                raise UserError(
                    f"drop: nothing of {modality} would be left of the clips without {', '.join(config.drop)}; add "
                    f"features.{modality}.NAME, or leave the file there"
                )


def _samples(
    config: AddFeaturesConfig,
    source: ShardSet,
    wanted: FeaturesConfig,
    shards: Iterator[tuple[PlannedShard, IO[str]]],
) -> Generator[tuple[str, Sample | Failure]]:
    """The clips of planned shards with their features."""
    waiting: deque[Sample] = deque()

    def clips() -> Iterator[Media]:
        for shard, _ in shards:
            for sample in _read(source, shard):
                waiting.append(sample)
                media = {name: data for name, data in sample.members.items() if _is_media(name)}
                yield Media(shard.name, media)

    computing = compute_all(
        clips(),
        wanted,
        workers=config.workers or len(os.sched_getaffinity(0)),
        timeout_s=config.timeout_s,
        batch_clips=config.batch_clips,
    )
    with closing(computing) as results:
        for _, computed in results:
            sample = waiting.popleft()
            if isinstance(computed, Failure):
                yield sample.record.key, computed
            else:
                kept = {name: data for name, data in sample.members.items() if name not in config.drop}
                yield sample.record.key, Sample(sample.record, {**kept, **computed})


def _is_media(extension: str) -> bool:
    return extension != "json" and not extension.endswith(".npy")


def _read(source: ShardSet, shard: PlannedShard) -> Iterator[Sample]:
    """The clips of a shard as they are, each file verified."""
    split = source.split(shard.split)
    starts = [0, *accumulate(split.shard_sizes)]
    first = next(start for number, start in enumerate(starts) if _name(shard.split, number) == shard.name)
    for sample_id in range(first, first + shard.num_clips):
        members = split.read(sample_id)
        yield Sample(_record(members, f"{shard.split} clip {sample_id}"), members)


def _record(members: Mapping[str, bytes], where: str) -> ClipRecord:
    try:
        return ClipRecord.from_json(json.loads(members["json"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: its JSON is no record ({error}); see `python -m shards check`") from None
