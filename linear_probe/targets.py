"""Between labels of clips and rows of a table: what a head is fitted to, and what its outputs say of clips.

Legend: N clips, R rows of a table, C outputs of a head, E targets of a protocol.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linear_probe.table import Table
from triptych.batch import UNLABELLED
from triptych.evaluation.answers import num_outputs
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol


def place(table: Table, clips: NDArray[np.int64], values: Units, protocol: Protocol) -> Tensor:
    """The labels of some clips at their rows: [R] int64 of a choice, else [R, E] float32; nothing at the other rows.

    A series is cut, or ends early, where its clip's rows do.

    Args:
        table: whose rows.
        clips: [N] their places in the table.
        values: as shards.divisions.truth.Truth gives them.
        protocol: what they are labels of.
    """
    num_rows = int(table.offsets[-1])
    if protocol.kind == "classes":
        y = torch.full((num_rows,), UNLABELLED)
        y[torch.from_numpy(table.offsets[clips])] = torch.from_numpy(values.astype(np.int64))
        return y
    y = torch.full((num_rows, num_outputs(protocol)), torch.nan)
    for clip, value in zip(clips, values, strict=True):
        start, end = table.offsets[clip], table.offsets[clip + 1]
        steps = np.asarray(value, dtype=np.float32).reshape(-1, y.shape[1])[: end - start]
        y[start : start + len(steps)] = torch.from_numpy(steps)
    return y


def rows_with_labels(table: Table, clips: NDArray[np.int64], y: Tensor) -> NDArray[np.int64]:
    """Rows of some clips that have all labels."""
    there = y != UNLABELLED if y.ndim == 1 else ~y.isnan().any(dim=1)
    rows = rows_of(table, clips)
    return rows[there.numpy()[rows]]


def rows_of(table: Table, clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of some clips, clip by clip."""
    return np.concatenate([np.arange(table.offsets[clip], table.offsets[clip + 1]) for clip in clips] or [clips])


def by_clip(table: Table, clips: NDArray[np.int64], rows: NDArray[np.float64], lengths: Sequence[int]) -> Units:
    """Numbers of the rows of some clips as one series a clip, as long as its labels.

    Args:
        table: whose rows.
        clips: [N] their places in the table.
        rows: [n, E] of `rows_of(table, clips)`.
        lengths: [N] steps of the labels; where a clip's rows end early the last one holds on.
    """
    units, start = np.empty(len(clips), dtype=object), 0
    for index, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        count = int(table.offsets[clip + 1] - table.offsets[clip])
        steps = rows[start : start + count]
        units[index] = steps[np.minimum(np.arange(length), count - 1)]
        start += count
    return units
