"""Computes the features of clips that lie in shards: in child processes, or in batches where a GPU is."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice

import numpy as np

from shards.features.config import BatchedFeature, Feature, FeaturesConfig, build
from shards.media.decode import DecodeError
from shards.writing.pool import ChildPool, Failure
from shards.writing.probe import npy

Computed = dict[str, bytes]
"""Extension -> the content of that .npy file, for each feature that the clip has."""


@dataclass(frozen=True)
class Media:
    """What the features of a clip are computed from."""

    shard: str
    files: Mapping[str, bytes]
    """Extension -> bytes."""


def compute_all(
    clips: Iterable[Media], features: FeaturesConfig, *, workers: int, timeout_s: float, batch_clips: int
) -> Generator[tuple[Media, Computed | Failure]]:
    """The features of each clip, in the order of the clips, or why they cannot be computed.

    With a network and a GPU this process computes batches of clips, else child processes compute one clip at a time,
    so that a crash or a clip that takes for ever costs that clip and nothing else.

    Args:
        clips: taken as they are needed.
        features: all are computed for every clip.
        workers: child processes.
        timeout_s: of one clip in a child.
        batch_clips: that a network on a GPU sees together.
    """
    built = list(build(features).values())
    if any(isinstance(feature, BatchedFeature) for feature in built) and _has_gpu():
        return _in_batches(clips, built, batch_clips)
    pool: ChildPool[Media, Computed] = ChildPool(partial(_compute, features=features), workers, timeout_s)
    return pool.run(clips)


def _compute(clip: Media, features: FeaturesConfig) -> Computed:
    """Runs in a child process."""
    built = list(build(features).values())
    return _stored(built, [feature.compute(clip.files) for feature in built])


def _in_batches(
    clips: Iterable[Media], features: Sequence[Feature], size: int
) -> Generator[tuple[Media, Computed | Failure]]:
    """No batch has clips of two shards, so that a shard's numbers do not depend on where the writing began."""
    for _, of_shard in groupby(clips, key=lambda clip: clip.shard):
        while batch := list(islice(of_shard, size)):
            yield from zip(batch, _batch(batch, features), strict=True)


def _batch(batch: Sequence[Media], features: Sequence[Feature]) -> list[Computed | Failure]:
    files = [clip.files for clip in batch]
    try:
        values = [
            feature.compute_many(files) if isinstance(feature, BatchedFeature) else list(map(feature.compute, files))
            for feature in features
        ]
    except DecodeError as error:
        if len(batch) == 1:
            return [Failure(str(error))]
        return [computed for clip in batch for computed in _batch([clip], features)]  # which one it was
    return [_stored(features, of_clip) for of_clip in zip(*values, strict=True)]


def _stored(features: Sequence[Feature], values: Sequence[np.ndarray | None]) -> Computed:
    return {
        f"{feature.spec.name}.npy": npy(array)
        for feature, array in zip(features, values, strict=True)
        if array is not None
    }


def _has_gpu() -> bool:
    import torch  # only here: other features do without

    return torch.cuda.is_available()
