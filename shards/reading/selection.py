"""Some clips of a shard set as a split, in whatever splits they were written. No torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shards.reading.index import Split
from shards.record import ClipRecord


@dataclass(frozen=True)
class Part:
    """Clips of a written split."""

    split: Split
    ids: NDArray[np.int64]
    """[n] ascending sample ids of `split`."""


class Selection(Split):
    """The samples of a split that a division draws from written ones, by id, in the order of the shards.

    A shard counts with those of its samples that are drawn, so that the order of training (shards.reading.plan) stays a
    function of seed, epoch and position, and reads stay within a few shards.
    """

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        """Put a split together; parts may be empty, but not all."""
        self.name = name
        self._parts = [part for part in parts if len(part.ids)]
        self._starts = np.cumsum([0, *(len(part.ids) for part in self._parts)])
        self.shard_sizes = tuple(size for part in self._parts for size in _sizes(part))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def durations(self) -> np.ndarray:
        """See Split."""
        return np.concatenate([part.split.durations[part.ids] for part in self._parts])

    @property
    def keys(self) -> list[str]:
        """See Split."""
        found = []
        for part in self._parts:
            keys = part.split.keys
            found += [keys[sample_id] for sample_id in part.ids]
        return found

    def shard_name(self, sample_id: int) -> str:
        """See Split."""
        split, own = self._own(sample_id)
        return split.shard_name(own)

    def record(self, sample_id: int) -> ClipRecord:
        """See Split."""
        split, own = self._own(sample_id)
        return split.record(own)

    def extensions(self, sample_id: int) -> list[str]:
        """See Split."""
        split, own = self._own(sample_id)
        return split.extensions(own)

    def read(self, sample_id: int, extensions: Collection[str] | None = None) -> dict[str, bytes]:
        """See Split."""
        split, own = self._own(sample_id)
        return split.read(own, extensions)

    def _own(self, sample_id: int) -> tuple[Split, int]:
        """The written split of a sample, and its id there."""
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample {sample_id} of {len(self)}")
        number = int(np.searchsorted(self._starts, sample_id, side="right")) - 1
        part = self._parts[number]
        return part.split, int(part.ids[sample_id - self._starts[number]])


def select(written: Sequence[Split], keys: Mapping[str, Collection[str]]) -> dict[str, Selection]:
    """Splits of other clips; the indexes of all shards are read once.

    Args:
        written: splits of the shard set.
        keys: name of a split -> its clips, all of them in `written`.
    """
    wanted = {name: frozenset(found) for name, found in keys.items()}
    parts: dict[str, list[Part]] = {name: [] for name in wanted}
    for split in written:
        there = split.keys
        for name, found in wanted.items():
            ids = [sample_id for sample_id, key in enumerate(there) if key in found]
            parts[name].append(Part(split, np.array(ids, dtype=np.int64)))
    selected = {name: Selection(name, found) for name, found in parts.items()}
    for name, selection in selected.items():
        assert len(selection) == len(wanted[name]), f"{name}: clips that no written split has"
    return selected


def _sizes(part: Part) -> list[int]:
    """Samples that each shard of a written split has in the part, without those that have none."""
    ends = np.cumsum(part.split.shard_sizes)
    counts = np.bincount(np.searchsorted(ends, part.ids, side="right"))
    return [int(count) for count in counts if count]
