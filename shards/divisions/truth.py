"""What clips are labelled as, in a protocol's own classes and numbers; parts of the labelled clips; labels mixed up.

Legend: N clips, E targets of a protocol (emotions, dimensions), T steps of a series. No torch.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.reading.index import ShardSet
from shards.record import ClipRecord
from triptych.config import UserError
from triptych.evaluation.significance import Units
from triptych.labels import UNLABELLED, Series
from triptych.protocols.protocol import Protocol, Target


class Truth:
    """The labels of a shard set's clips, read when they are asked for and not before.

    The first question reads the indexes of all shards (at a million clips 5 s and 0.2 GB, from what 100,000 took), each
    question the records of its own clips, once (54 us each).

    Args:
        shard_set: where the clips lie, in whatever split.
        protocol: what is predicted.
    """

    def __init__(self, shard_set: ShardSet, protocol: Protocol) -> None:
        self._shard_set = shard_set
        self._protocol = protocol
        self._values: dict[str, Any] = {}

    @property
    def read(self) -> frozenset[str]:
        """Keys of the clips whose labels were read so far."""
        return frozenset(self._values)

    def of(self, keys: Sequence[str]) -> Units:
        """The labels of some clips, in the order of `keys`.

        Returns:
            Of classes [N] int64, UNLABELLED where a clip has none or one that the protocol leaves out. Of sentiment [N]
            and of emotions [N, E] float64 (emotions 0 or 1), of series [N] arrays [T, E] float64: NaN where there is no
            label. T is that of the clip's longest series, and 1 where it has none.

        Raises:
            UserError: a clip that the set has not, or a label of another form than the protocol's; DamagedShard where
                a record is.
        """
        self._load(keys)
        values = [self._values[key] for key in keys]
        if self._protocol.kind == "series":
            units = np.empty(len(keys), dtype=object)
            for index, value in enumerate(values):
                units[index] = value
            return units
        dtype = np.int64 if self._protocol.kind == "classes" else np.float64
        array: NDArray[Any] = np.array(values, dtype=dtype).reshape(len(keys), len(self._protocol.targets))
        return array if self._protocol.kind == "emotions" else array[:, 0]

    def scored(self, keys: Sequence[str]) -> tuple[NDArray[np.bool_], Units]:
        """What a score can be taken over; raises as `of`.

        Returns:
            [N] of `keys`: which have all labels of the protocol. The labels of those, of series at the steps that have
            them all.
        """
        values = self.of(keys)
        kept = has_all_labels(values)
        values = values[kept]
        if values.dtype == object:
            for index, steps in enumerate(values):
                values[index] = steps[whole_steps(steps)]
        return kept, values

    def _load(self, keys: Sequence[str]) -> None:
        """Read what is not known yet, in the order of the shards: sorted keys jump from shard to shard."""
        unknown = set(keys) - self._values.keys()
        if strange := sorted(key for key in unknown if not any(key in ids for ids in self._ids.values())):
            raise UserError(f"{self._shard_set.location}: has no clip {strange[0]!r}, nor {len(strange) - 1} others")
        for name, ids in self._ids.items():
            split = self._shard_set.split(name)
            for sample_id in sorted(ids[key] for key in unknown if key in ids):
                record = split.record(sample_id)
                self._values[record.key] = self._value(record)

    @cached_property
    def _ids(self) -> dict[str, dict[str, int]]:
        """Split -> key -> sample id."""
        return {
            name: {key: sample_id for sample_id, key in enumerate(self._shard_set.split(name).keys)}
            for name in self._shard_set.splits
        }

    def _value(self, record: ClipRecord) -> Any:
        protocol = self._protocol
        if protocol.kind == "series":
            return _series(record, protocol.targets)
        if protocol.kind == "classes":
            return _class(record, protocol.targets[0])
        return [_number(record, target) for target in protocol.targets]


def _class(record: ClipRecord, target: Target) -> int:
    said = record.label(target.label, target.form)
    name = None if said is None else target.class_of(said)
    return UNLABELLED if name is None else target.classes.index(name)


def _number(record: ClipRecord, target: Target) -> float:
    value = record.label(target.label, target.form)
    if value is None:
        return np.nan
    return float(value) if target.positive_above is None else float(value > target.positive_above)


def _series(record: ClipRecord, targets: Sequence[Target]) -> NDArray[np.float64]:
    """[T, E]; step `i` at `i / rate_hz` seconds from the clip's start, the one rate of all targets."""
    assert len({target.form.rate_hz for target in targets if isinstance(target.form, Series)}) == 1
    said = [record.label(target.label, target.form) for target in targets]
    columns = [[] if value is None else value["values"] for value in said]
    steps = np.full((max(1, *map(len, columns)), len(columns)), np.nan)
    for column, values in enumerate(columns):
        steps[: len(values), column] = values
    return steps


def share_of(keys: Sequence[str], values: Units, share: float, seed: int) -> tuple[str, ...]:
    """A part of the labelled clips, drawn by a hash of (seed, key): a larger share of the same clips holds a smaller.

    Of classes, the share of each, to the nearest clip and at least one; of other kinds, of all clips.

    Args:
        keys: [N].
        values: as of `Truth.of`, of these keys.
        share: more than 0, at most 1.
        seed: draws another part.

    Returns:
        The keys of the part, in the order given.

    Raises:
        UserError: no such share.
    """
    if not 0 < share <= 1:
        raise UserError(f"a share of the labels of {share}; expected more than 0 and at most 1")
    groups: dict[int, list[str]] = {}
    for index in np.flatnonzero(_has_some_label(values)).tolist():
        group = int(values[index]) if _is_classes(values) else 0
        groups.setdefault(group, []).append(keys[index])
    drawn: set[str] = set()
    for members in groups.values():
        members.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        drawn.update(members[: max(1, round(share * len(members)))])
    return tuple(key for key in keys if key in drawn)


def shuffled(values: Units, seed: int) -> Units:
    """Each labelled clip with the label of another: the control that must score at chance.

    A series takes its clip's length: cut, or repeated from its start.

    Args:
        values: as of `Truth.of`; left as they are.
        seed: draws the permutation.
    """
    some_label = np.flatnonzero(_has_some_label(values))
    others = np.random.default_rng(seed).permutation(some_label)
    mixed = values.copy()
    for index, other in zip(some_label, others, strict=True):
        mixed[index] = np.resize(values[other], values[index].shape) if values.dtype == object else values[other]
    return mixed


def has_all_labels(values: Units) -> NDArray[np.bool_]:
    """[N]: which clips have all labels of the protocol; of series, at one step or more."""
    if values.dtype == object:
        return np.array([bool(whole_steps(steps).any()) for steps in values], dtype=bool)
    if _is_classes(values):
        return np.asarray(values != UNLABELLED)
    return ~np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))


def whole_steps(series: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[T] of a series [T, E]: which steps have all labels."""
    return ~np.asarray(np.isnan(series).any(axis=1))


def _is_classes(values: Units) -> bool:
    return bool(np.issubdtype(values.dtype, np.integer))


def _has_some_label(values: Units) -> NDArray[np.bool_]:
    """[N]: which clips have a label, or some of theirs."""
    if _is_classes(values):
        return np.asarray(values != UNLABELLED)
    return np.array([not np.isnan(value).all() for value in values], dtype=np.bool_)
