"""One pass over the shards, in which each clip is read once and encoded by everything that wants it.

Legend: N clips, R rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from linear_probe.blocks import Block, Source
from shards.features.config import Feature
from shards.features.recover import features_of
from shards.progress import progress
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.words.words import AnyVocabulary
from triptych.batch import Batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec, reads_words


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A block that is to be computed."""

    name: str
    """Of its source."""
    source: Source
    block: Block
    """Resolved."""
    offsets: NDArray[np.int64]
    """[N + 1], see Table."""
    array: NDArray[np.float32]
    """[R, D] or [R, L, D], to be filled."""


@dataclass(kw_only=True)
class EncodingPass:
    """What is read together: no two sources of it disagree about a modality's feature, or about the vocabulary."""

    inputs: dict[str, FeatureSpec] = field(default_factory=dict)
    vocabulary: AnyVocabulary | None = None
    """None where no text is read."""
    wanted: list[Wanted] = field(default_factory=list)
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Modality -> [N], to be filled."""

    def join(self, inputs: Mapping[str, FeatureSpec], vocabulary: AnyVocabulary | None) -> bool:
        """Read these too, unless something else is read in their place; returns whether they are."""
        if any(self.inputs.get(name, spec) != spec for name, spec in inputs.items()):
            return False
        if reads_words(inputs):
            if self.vocabulary not in (None, vocabulary):
                return False
            self.vocabulary = vocabulary
        self.inputs |= inputs
        return True

    def features(self) -> dict[str, Feature]:
        """Modality -> what computes its feature, where a shard does not hold it.

        Raises:
            UserError: this version does not compute it.
        """
        return features_of(self.inputs)

    def read(
        self,
        shard_set: ShardSet,
        keys: Mapping[str, tuple[str, ...]],
        *,
        batch_size: int,
        workers: int,
        device: torch.device,
    ) -> None:
        """Fill the arrays, in the order of the splits and clips of `keys`.

        Raises:
            UserError: a clip is damaged, or a source's numbers are not finite.
        """
        start = 0
        with progress("encoding", sum(map(len, keys.values()))) as advance, torch.no_grad():
            for split, names in keys.items():
                first = start
                loader = EvalLoader(
                    shard_set,
                    self.features(),
                    vocabulary=self.vocabulary,
                    batch_size=batch_size,
                    rank=0,
                    world=1,
                    split=split,
                    workers=workers,
                )
                for batch in loader.batches():
                    assert batch.keys == names[start - first : start - first + len(batch)]
                    self._fill(batch.to(device), start)
                    start += len(batch)
                    advance(len(batch))

    def _fill(self, batch: Batch, start: int) -> None:
        stop = start + len(batch)
        for modality, present in self.present.items():
            present[start:stop] = batch.tracks[modality].present.cpu().numpy()
        together: dict[tuple[str, float | None], list[Wanted]] = {}
        for one in self.wanted:
            together.setdefault((one.name, one.block.rate_hz), []).append(one)
        for same in together.values():
            offsets = same[0].offsets[start : stop + 1]
            rows = same[0].source.compute(batch, [one.block for one in same], np.diff(offsets).tolist())
            for one in same:
                found = rows[one.block].float().cpu().numpy()
                _check_finite(found, one, batch.keys, offsets)
                one.array[offsets[0] : offsets[-1]] = found


def _check_finite(rows: NDArray[np.float32], one: Wanted, keys: Sequence[str], offsets: NDArray[np.int64]) -> None:
    bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if bad.any():
        clip = int(np.searchsorted(offsets - offsets[0], int(bad.argmax()), side="right")) - 1
        raise UserError(
            f"{one.name}: {one.block.output}, layer {one.block.layer}: numbers that are not finite, first for clip "
            f"{keys[clip]}; are its weights, or what is stored of the clip?"
        )
