"""Clips side by side: ragged sequences -> one padded Batch.

Legend: B clips, T steps of the longest clip.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from shards.media.spans import leaks, spans
from shards.record import ClipRecord, FrameTimes, Word
from shards.words.words import AnyVocabulary
from triptych.batch import UNLABELLED, Batch, Track
from triptych.labels import LabelSpec, Number, Series
from triptych.modalities import FeatureSpec


@dataclass(frozen=True)
class Steps:
    """One modality of one clip."""

    values: np.ndarray
    """[T, *]"""
    times: np.ndarray
    """[T, 2] float32, start and end in seconds."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip, read; a modality that it lacks has no entry in `steps`."""

    record: ClipRecord
    epoch: int
    steps: Mapping[str, Steps]
    cut: bool = False
    """Whether a modality was longer."""


def text_steps(words: Sequence[Word], vocabulary: AnyVocabulary) -> Steps:
    """Ids of words or of their pieces, [T] int64, and their times."""
    ids, times = vocabulary.steps(words)
    return Steps(np.array(ids, dtype=np.int64), np.array(times, dtype=np.float32).reshape(-1, 2))


def feature_steps(values: np.ndarray, spec: FeatureSpec, frames: FrameTimes | None = None) -> Steps:
    """A feature with a rate, and what each step was computed from: `i / rate_hz + support_s`.

    Where the clip tells when its frames are shown (`frames`), and one that stands for a step shows more than that, each
    step has the times of its frame.
    """
    assert spec.rate_hz is not None
    times = _times(len(values), spec.rate_hz, spec.support_s)
    if frames is not None and len(values) and spec.is_of_frames:
        shown = spans(frames, len(values), spec.rate_hz)
        if leaks(shown, times):
            times = shown.astype(np.float32)
    return Steps(values, times)


@lru_cache(maxsize=1024)  # clips of one length have the same times
def _times(num_steps: int, rate_hz: float, support_s: tuple[float, float]) -> np.ndarray:
    times = (np.arange(num_steps)[:, None] / rate_hz + np.array(support_s)).astype(np.float32)
    times.setflags(write=False)
    return times


def cut(steps: Steps, spec: FeatureSpec) -> Steps:
    """The first `spec.max_length` steps."""
    return Steps(steps.values[: spec.max_length], steps.times[: spec.max_length])


def collate(samples: Sequence[Sample], specs: Mapping[str, FeatureSpec], labels: Mapping[str, LabelSpec]) -> Batch:
    """Pad clips to the longest one.

    Args:
        samples: B clips.
        specs: modality -> feature, for every track that the batch is to carry; a clip without it gets an all-False row.
        labels: label name -> what to deliver, see Batch.labels. Where a clip has no such class but such a property
            (`source`: the speaker's gender), that is taken.

    Raises:
        UserError: a clip's label is none of the classes, or of another form or rate than is asked for.
    """
    return Batch(
        keys=tuple(sample.record.key for sample in samples),
        epochs=tuple(sample.epoch for sample in samples),
        tracks={name: _track([sample.steps.get(name) for sample in samples], spec) for name, spec in specs.items()},
        labels={name: _label([sample.record for sample in samples], name, spec) for name, spec in labels.items()},
        num_cut=sum(sample.cut for sample in samples),
    )


def _track(clips: Sequence[Steps | None], spec: FeatureSpec) -> Track:
    lengths = np.array([0 if clip is None else len(clip.values) for clip in clips])
    longest = max(1, int(lengths.max()))  # a tower needs a step to run on, also where no clip has the modality
    values = np.zeros((len(clips), longest, *spec.shape), dtype=spec.dtype)
    times = np.zeros((len(clips), longest, 2), dtype=np.float32)
    for row, clip in enumerate(clips):
        if clip is not None:
            values[row, : len(clip.values)] = clip.values
            times[row, : len(clip.values)] = clip.times
    mask = np.arange(longest)[None, :] < lengths[:, None]
    batched = torch.from_numpy(values)
    if spec.dtype == "float16":  # saves space in a shard, while towers want float32; torch converts 6 times as fast
        batched = batched.float()
    return Track(values=batched, mask=torch.from_numpy(mask), times=torch.from_numpy(times))


def _label(records: Sequence[ClipRecord], name: str, spec: LabelSpec) -> Tensor:
    values = [record.label(name, spec) for record in records]
    if isinstance(spec, Series):
        clips = [[] if value is None else value["values"] for value in values]
        longest = max(1, *map(len, clips))  # a score needs a step to run on, also where no clip has the label
        rows = np.full((len(clips), longest), np.nan, dtype=np.float32)
        for row, steps in zip(rows, clips, strict=True):
            row[: len(steps)] = steps
        return torch.from_numpy(rows)
    if isinstance(spec, Number):
        return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
    return torch.tensor([UNLABELLED if value is None else spec.index(value) for value in values], dtype=torch.int64)
