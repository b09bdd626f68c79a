"""Shard set -> the plan of a new one that has its clips in the same order and splits; and those clips, read.

What `shards.add_features` and `shards.writing.add_sequences` have in common.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
from typing import Any, Literal

from shards.features.config import FeaturesConfig
from shards.reading.cache import CacheConfig
from shards.reading.index import ShardSet
from shards.reading.other_words import OtherWords, read_transcript
from shards.record import ClipRecord
from shards.writing.work_folder import Plan, PlannedShard, Work, part_of
from shards.writing.write_planned import Sample
from triptych.config import UserError, dump
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
    encoder: str | None = None
    """Instead of features: a frozen encoder, whose towers' sequences are computed. A run's or a release's `encoder/`, a
    YAML file, or a name of configs/encoder/."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the sequences; float16 takes half the space and rounds to three digits."""
    transcripts: str | None = None
    """Words for the new set in place of the clips' own: a folder of `python -m shards transcribe`, or files of another
    recogniser (shards/transcripts/attach.py). With or without features."""
    drop: list[str] = field(default_factory=list)
    """Files to leave out of the new set, by extension: the media of a feature (mp4), or another feature (lfbe.npy)."""
    workers: int | None = None
    """Child processes that compute; as many as the cores this process may use when not given."""
    timeout_s: float = 600.0
    """For one clip in a child: a network on a single core takes minutes for a long one. An encoder runs in none."""
    batch_clips: int = 8
    """Clips that an encoder sees together, and a feature's network on a GPU; there, this process computes
    everything."""
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
        if self.encoder and (self.features != FeaturesConfig() or self.drop):
            raise ValueError(
                "encoder: the new set has what its towers say and nothing else; leave features and drop out"
            )
        if self.dtype != "float32" and not self.encoder:
            raise ValueError(f"dtype: {self.dtype} is for the sequences of an encoder; give encoder, or leave it out")
        part_of(self.part)


def identity_of(source: ShardSet, words: OtherWords | None) -> dict[str, str]:
    """Tells the set, and other words, from all others, wherever they lie."""
    manifest = json.dumps(source.manifest.to_json(), sort_keys=True)
    return {
        "shards": f"manifest {sha256(manifest.encode()).hexdigest()}",
        "words": "the clips' own" if words is None else words.sha256,
    }


def plan(
    work: Work, source: ShardSet, specs: Sequence[FeatureSpec], identity: dict[str, Any], config: AddFeaturesConfig
) -> None:
    """Save the plan of the new set.

    Args:
        work: of the new set.
        source: the set to start from.
        specs: all features of the new set.
        identity: see Work.prepare.
        config: for the command that goes on.

    Raises:
        UserError: the manifest does not account for the clips.
    """
    manifest = source.manifest
    shards = [
        PlannedShard(name=_name(split, number), split=split, num_clips=size)
        for split in source.splits
        for number, size in enumerate(source.split(split).shard_sizes)
    ]
    num_clips = sum(shard.num_clips for shard in shards)
    if manifest.found != num_clips + sum(manifest.filtered.values()) + len(manifest.quarantined):
        raise UserError(f"{source.location}: the manifest does not account for its clips; see `python -m shards check`")
    planned_set = Plan(
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
    encoder = config.encoder
    if encoder is not None and os.path.exists(encoder):  # else the name of a shipped one
        encoder = os.path.abspath(encoder)
    transcripts = config.transcripts and os.path.abspath(config.transcripts)
    again = replace(config, shards=location, encoder=encoder, transcripts=transcripts, part=None, retry=False)
    work.save(planned_set, ((shard.name, []) for shard in shards), dump(again))


def other_words(config: AddFeaturesConfig, source: ShardSet) -> OtherWords | None:
    """What the clips of the new set say; None where they keep their words.

    Raises:
        UserError: see `read_transcript`; or the set holds what an encoder said of the words.
    """
    if config.transcripts is None:
        return None
    if of_text := [spec["name"] for spec in source.manifest.features if spec["modality"] == "text"]:
        raise UserError(
            f"transcripts: {config.shards} holds {', '.join(of_text)}, which an encoder said of the clips' own words; "
            "start from the set that it was computed from, and give encoder beside transcripts"
        )
    keys = {key for name in source.splits for key in source.split(name).keys}
    try:
        return read_transcript(source, config.transcripts, keys)
    except UserError as error:
        raise UserError(f"transcripts: {error}") from None


def with_words(sample: Sample, words: OtherWords | None) -> Sample:
    """The clip with other words, and without a remark on the times of its own; as it is without any."""
    if words is None:
        return sample
    told = {name: value for name, value in sample.record.source.items() if name != "word_times"}
    record = replace(sample.record, words=words.words[sample.record.key], source=told)
    return Sample(record, {**sample.members, "json": record.to_bytes()})


def ids_of(source: ShardSet, shard: PlannedShard) -> range:
    """Of the clips of a planned shard, in its split of the set."""
    starts = [0, *accumulate(source.split(shard.split).shard_sizes)]
    first = next(start for number, start in enumerate(starts) if _name(shard.split, number) == shard.name)
    return range(first, first + shard.num_clips)


def read(source: ShardSet, shard: PlannedShard) -> Iterator[Sample]:
    """The clips of a shard as they are, each file verified."""
    split = source.split(shard.split)
    for sample_id in ids_of(source, shard):
        members = split.read(sample_id)
        yield Sample(record_of(members, f"{shard.split} clip {sample_id}"), members)


def record_of(members: Mapping[str, bytes], where: str) -> ClipRecord:
    """What a clip's JSON says.

    Raises:
        UserError: it is no record; the message says where it lies.
    """
    try:
        return ClipRecord.from_json(json.loads(members["json"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: its JSON is no record ({error}); see `python -m shards check`") from None


def _name(split: str, number: int) -> str:
    return f"{split}-{number:06d}"
