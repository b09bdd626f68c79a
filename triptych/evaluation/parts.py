"""What an evaluation is made of; `triptych.evaluation.results` is the door.

Legend: S runs of a system (seeds), N test clips (of series: recordings), C classes, E targets (emotions, or arousal and
valence), T steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class System:
    """What one system said of the test clips."""

    name: str
    inputs: str
    """What it saw: modality names joined by '+', or '-' for a constant."""
    predictions: Units
    """[S, N] class indices or sentiment, [S, N, E] emotions as 0 or 1, of series an object array [S, N] of [T, E]."""
    probabilities: NDArray[np.float64] | None = None
    """[S, N, C] of classes, where it has them; they are written beside its predictions."""
    note: str = ""
    """Settings chosen for it on the validation split."""

    @property
    def title(self) -> str:
        """Name and inputs: unique in a report."""
        return f"{self.name} ({self.inputs})"


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split as the evaluation used it."""

    keys: tuple[str, ...]
    truth: Units
    """Of `keys`, all of them labelled: [N] class indices or sentiment, [N, E] emotions as 0 or 1, of series an object
    array [N] of [T, E]."""
    left_out: int = 0
    """Clips of the split without the label, or of a class that the protocol leaves out."""
    folds: tuple[str, ...] = ()
    """Of test, in a cross-validation: the fold that holds each clip out."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything a report says."""

    title: str
    protocol: Protocol
    splits: Mapping[str, Split]
    """test; beside it train and valid, where there is one division and not folds."""
    split_rule: Mapping[str, Any]
    """The manifest's account of how the splits were drawn."""
    rule: str = ""
    """The protocol's split rule that divided the clips, as `mosi/standard`; empty where the shard set's own did."""
    systems: Sequence[System]
    compared: Sequence[tuple[str, str]] = ()
    """Titles of systems whose paired difference is wanted (first - second)."""
    drawn: str
    """Title of the system that figures are about; of its name, those with other inputs are drawn beside it."""
    num_resamples: int = 1000
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines of the protocol block."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """File in figures/ -> what it shows, of further ones that the caller draws."""


def at_share(name: str, share: float) -> str:
    """Name of a system in a learning curve, where it has learnt from a share of the training labels."""
    return f"{name}, {100 * share:g} % of the labels"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A further table of a report, about the same clips."""

    title: str
    numbers: Mapping[str, Any]
    """Of triptych.evaluation.results."""
    note: str = ""
    """A line below it."""
