"""Predictions that change where a trained run is shown the same clips in another way.

Legend: S runs (seeds), N test clips, E emotions.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triptych.evaluation.results import Split
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol

KINDS = ("classes", "emotions")
"""Of protocols, whose predictions change or do not; those of others are numbers."""


class Flip(NamedTuple):
    """One prediction that changes."""

    run: int
    """Index of the seed."""
    key: str
    target: str
    truth: str | int
    before: str | int
    after: str | int


def flips(protocol: Protocol, test: Split, before: Units, after: Units) -> Iterator[Flip]:
    """Those of some runs.

    Args:
        protocol: of one of KINDS.
        test: the clips.
        before: predictions as triptych.evaluation.results.System has them: [S, N] or [S, N, E].
        after: likewise.
    """
    labels, several = [target.label for target in protocol.targets], protocol.kind == "emotions"
    for run, clip, *target in np.argwhere(before != after).tolist():
        place = (clip, *target)
        values = [test.truth[place], before[(run, *place)], after[(run, *place)]]
        truth, one, other = (int(value) if several else protocol.classes[int(value)] for value in values)
        yield Flip(run, test.keys[clip], labels[target[0]] if several else labels[0], truth, one, other)


def write(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
