"""Shard set -> a new one whose clips also hold features: computed once, here, and not in every run that reads them.

python -m shards features SHARDS out=FOLDER features.video.vgg16.weights=FILE      a network: where a GPU is
python -m shards features SHARDS out=FOLDER features.audio.lfbe.bands=40 drop=[m4a]
python -m shards features SHARDS out=FOLDER encoder=ENCODER dtype=float16          what its frozen towers say
python -m shards features SHARDS out=FOLDER transcripts=ASR                        the words of a recogniser
python -m shards features SHARDS out=FOLDER part=3/40 ...                          on as many machines at once
python -m shards merge FOLDER                                                      after all parts

SHARDS stays as it is. The new set has its clips in the same order and splits, all files of each (but those to `drop`)
and <key>.<feature>.npy, with the numbers that a run would compute. A clip whose feature cannot be computed is
quarantined; its words leave the vocabulary with it.

With encoder= (a folder or config, as of `python -m finetune`) the new set has words, labels and what the encoder's
towers say of each clip, and none of its media; and FOLDER/encoder is an encoder that reads it. A head on a frozen
encoder then trains without running it: `python -m finetune CONFIG init=[frozen] encoder=FOLDER/encoder shards=FOLDER`.

With transcripts= (a folder of `python -m shards transcribe`, or files of another recogniser) the new set has these
words in place of the clips' own, to train on, alone or beside features.

The plan, and what is written so far, lie in FOLDER/work until the merge. After a kill, the same command goes on (also
as `python -m shards features FOLDER/work/config.yaml`): shards that are done stay. The first argument is a shard set
or such a file. Two parts on one GPU use it better than one: one decodes while the other computes.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from shards.features.config import FeaturesConfig, build
from shards.media.decode import audio_of, video_of
from shards.merge import merge
from shards.reading.index import ShardSet
from shards.reading.other_words import OtherWords
from shards.record import Manifest
from shards.writing import rewrite
from shards.writing.compute import Media, compute_all
from shards.writing.pool import Failure
from shards.writing.rewrite import AddFeaturesConfig as AddFeaturesConfig  # what the command is told
from shards.writing.work_folder import PlannedShard, Work, as_identity
from shards.writing.write_planned import Sample, fill_part
from triptych.config import UserError, load, nearest, to_dict
from triptych.modalities import FeatureSpec


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
            holds a shard set or another plan; something that cannot be dropped; an encoder that does not suit the
            clips; more clips without their features than `max_quarantined_share`.
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
    if config.encoder:
        from shards.writing import add_sequences  # torch: features of sound and picture do without

        add_sequences.add_part(config, config.encoder, source, work)
        return
    wanted, words = _missing(config, source.manifest), rewrite.other_words(config, source)
    settings = {feature.spec.name: dict(feature.spec.settings) for feature in build(wanted).values()}
    identity = as_identity(
        {
            **rewrite.identity_of(source, words),
            "drop": sorted(config.drop),
            "features": to_dict(config.features),
            "settings": settings,  # the hash of a network's weights is here
        }
    )
    specs = [*_kept(config, source.manifest), *(feature.spec for feature in build(wanted).values())]

    def plan_it() -> None:
        if config.drop:
            _check_drop(config, source, specs)
        rewrite.plan(work, source, specs, identity, config)

    plan = work.prepare(identity, plan_it)
    samples = partial(_samples, config, source, wanted, words)
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
    if not build(missing) and config.transcripts is None:
        given = ", ".join(feature.spec.name for feature in build(config.features).values())
        nothing = "nothing to add: give features.audio.NAME, features.video.NAME, encoder or transcripts"
        raise UserError(f"{config.shards}: {f'holds {given} already' if given else nothing}")
    return missing


def _kept(config: AddFeaturesConfig, manifest: Manifest) -> list[FeatureSpec]:
    """The stored features that are not dropped."""
    stored = map(FeatureSpec.from_json, manifest.features)
    return [spec for spec in stored if f"{spec.name}.npy" not in config.drop]


def _check_drop(config: AddFeaturesConfig, source: ShardSet, specs: Sequence[FeatureSpec]) -> None:
    """Refuse to drop what is not there, and the only picture or sound that is left of a clip."""
    kinds = set[frozenset[str]]()
    for name in source.splits:
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
    words: OtherWords | None,
    shards: Iterator[tuple[PlannedShard, IO[str]]],
) -> Generator[tuple[str, Sample | Failure]]:
    """The clips of planned shards with their features, and other words if there are any."""

    def finished(sample: Sample, computed: Mapping[str, bytes]) -> Sample:
        kept = {name: data for name, data in sample.members.items() if name not in config.drop}
        return rewrite.with_words(Sample(sample.record, {**kept, **computed}), words)

    if not build(wanted):
        for shard, _ in shards:
            for sample in rewrite.read(source, shard):
                yield sample.record.key, finished(sample, {})
        return
    waiting: deque[Sample] = deque()

    def clips() -> Iterator[Media]:
        for shard, _ in shards:
            for sample in rewrite.read(source, shard):
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
            yield sample.record.key, computed if isinstance(computed, Failure) else finished(sample, computed)


def _is_media(extension: str) -> bool:
    return extension != "json" and not extension.endswith(".npy")
