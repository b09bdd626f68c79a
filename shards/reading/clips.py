"""The clips of a split, read and put into batches."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from json import loads

import numpy as np
from torch.utils.data import Dataset

from shards.features.config import Feature
from shards.media.decode import DecodeError
from shards.reading.collate import Sample, Steps, collate, cut, feature_steps, text_steps
from shards.reading.index import DamagedShard, ShardSet, Split
from shards.reading.npy import from_bytes
from shards.reading.suits import check_stored
from shards.record import ClipRecord, Word
from shards.words.words import AnyVocabulary
from triptych.batch import Batch
from triptych.config import UserError
from triptych.labels import LabelSpec
from triptych.modalities import FeatureSpec

logger = logging.getLogger(__name__)


class DamagedClip(UserError):
    """The media of a clip are what was written, and cannot be decoded; the message names shard, clip and feature."""


@dataclass(frozen=True)
class MicroBatch:
    """What one batch is to hold: sample ids and, for each, the epoch it belongs to."""

    ids: Sequence[int]
    epochs: Sequence[int]


class Clips(Dataset[Batch]):
    """The clips of a split as batches: reads, computes missing features, collates and prepares.

    Args:
        shard_set: where they lie.
        split: "train", "valid" or "test".
        features: modality -> feature wanted.
        vocabulary: gives the words, or their pieces, their ids; None leaves text out.
        labels: label name -> what to deliver, see Batch.labels.
        change_words: makes other words of a clip's and its key, before they get their ids.
        prepare: draws masks and targets, see triptych.training.task.Prepare.
        keep_damaged: whether a clip that cannot be read stays in its batch without any modality, told of in
            `Batch.damaged`, instead of ending the run.

    Raises:
        UserError: the set has no such split, or lacks sequences that can only be read.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        split: str,
        *,
        features: Mapping[str, Feature],
        vocabulary: AnyVocabulary | None,
        labels: Mapping[str, LabelSpec],
        prepare: Callable[[Batch], Batch] | None,
        keep_damaged: bool = False,
        change_words: Callable[[Sequence[Word], str], Sequence[Word]] | None = None,
    ) -> None:
        self.split: Split = shard_set.split(split)
        self._features = features
        self._vocabulary = vocabulary
        self._labels = labels
        self._prepare = prepare
        self._keep_damaged = keep_damaged
        self._change_words = change_words
        stored = {spec.name: spec for spec in map(FeatureSpec.from_json, shard_set.manifest.features)}
        self._stored = {
            modality for modality, feature in features.items() if stored.get(feature.spec.name) == feature.spec
        }
        self._warned: set[str] = set()
        check_stored(shard_set, (feature.spec for feature in features.values()))
        for modality, feature in features.items():
            name = feature.spec.name
            if modality not in self._stored and name in stored:
                differs = [key for key, value in vars(stored[name]).items() if getattr(feature.spec, key) != value]
                logger.warning(
                    "%s: the stored feature %s differs in %s from what is wanted, so it is computed while reading, "
                    "which is slower; write the shards with these settings",
                    shard_set.location,
                    name,
                    ", ".join(differs),
                )

    @cached_property
    def specs(self) -> dict[str, FeatureSpec]:
        """Modality -> feature of every track that a batch carries."""
        text = {} if self._vocabulary is None else {"text": self._vocabulary.spec}
        return {**text, **{modality: feature.spec for modality, feature in self._features.items()}}

    def load(self, wanted: MicroBatch) -> Batch:
        """Read one batch.

        Raises:
            UserError: an unknown class, a label of another form than asked for, or, unless they are kept, a
                DamagedShard or a DamagedClip; the message names the clip.
        """
        samples, damaged = [], []
        for sample_id, epoch in zip(wanted.ids, wanted.epochs, strict=True):
            try:
                samples.append(self._sample(sample_id, epoch))
            except (DamagedShard, DamagedClip) as error:
                if not self._keep_damaged:
                    raise
                damaged.append((sample_id, str(error)))
                samples.append(_absent(f"damaged/{self.split.name}-{sample_id}", self.split.name, epoch))
        batch = replace(collate(samples, self.specs, self._labels), damaged=tuple(damaged))
        return batch if self._prepare is None else self._prepare(batch)

    def __getitem__(self, wanted: MicroBatch) -> Batch | UserError:  # type: ignore[override]
        """As `load`, but a user's mistake is returned: raised in a worker, torch would wrap it in a traceback."""
        try:
            return self.load(wanted)
        except UserError as error:
            return error

    def _sample(self, sample_id: int, epoch: int) -> Sample:
        there = self.split.extensions(sample_id)
        stored = [self._features[modality].spec for modality in self._stored]
        extensions = ["json", *(f"{spec.name}.npy" for spec in stored)]
        extensions += [f"{spec.name}.times.npy" for spec in stored if spec.is_timed]
        if len(self._stored) < len(self._features):
            extensions += [extension for extension in there if extension != "json" and not extension.endswith(".npy")]
        members = self.split.read(sample_id, extensions)
        record = ClipRecord.from_json(loads(members["json"]))
        steps: dict[str, Steps] = {}
        words: Sequence[Word] = record.words or ()
        if self._change_words is not None:
            words = self._change_words(words, record.key)
        if self._vocabulary is not None and words:
            steps["text"] = text_steps(words, self._vocabulary)
        for modality, feature in self._features.items():
            values, times = self._values(sample_id, record.key, modality, members), feature.spec.name + ".times.npy"
            if values is not None and feature.spec.is_timed:
                steps[modality] = Steps(values, from_bytes(members[times]))
            elif values is not None:
                steps[modality] = feature_steps(values, feature.spec, record.frames)
        return self._cut(Sample(record=record, epoch=epoch, steps=steps))

    def _values(self, sample_id: int, key: str, modality: str, members: Mapping[str, bytes]) -> np.ndarray | None:
        feature = self._features[modality]
        if modality in self._stored:
            content = members.get(f"{feature.spec.name}.npy")
            return None if content is None else from_bytes(content)
        try:
            return feature.compute(members)
        except DecodeError as error:
            shard = self.split.shard_name(sample_id)
            raise DamagedClip(
                f"{shard}: clip {key}: {feature.spec.name} cannot be computed: {error}; write the shards again"
            ) from None

    def _cut(self, sample: Sample) -> Sample:
        """The sample with no modality longer than its longest length."""
        specs = self.specs
        long = {name: steps for name, steps in sample.steps.items() if len(steps.values) > specs[name].max_length}
        for name in long.keys() - self._warned:
            self._warned.add(name)
            logger.warning(
                "clip %s has %d steps of %s and is cut to %d; `python -m shards check` counts all such clips, and the "
                "run those it met",
                sample.record.key,
                len(long[name].values),
                specs[name].name,
                specs[name].max_length,
            )
        if not long:
            return sample
        return replace(
            sample, steps={**sample.steps, **{name: cut(long[name], specs[name]) for name in long}}, cut=True
        )


def _absent(key: str, split: str, epoch: int) -> Sample:
    """A clip of which nothing is known: no modality, no label."""
    record = ClipRecord(
        key=key,
        speaker="",
        split=split,
        duration_s=0.0,
        has_audio=False,
        has_video=False,
        words=None,
        source={},
        labels={},
    )
    return Sample(record=record, epoch=epoch, steps={})
