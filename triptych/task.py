"""The seam between the loop and a method: the trainer knows Task and Evaluator, and nothing of what they compute."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from triptych.batch import Batch


@dataclass(frozen=True)
class Total:
    """A sum over items and the number of items: totals of micro-batches and ranks add up, means do not."""

    sum: Tensor
    """0-dimensional; a loss's carries the graph."""
    count: int


@dataclass(frozen=True)
class Output:
    """What a task says of one micro-batch."""

    losses: Mapping[str, Total]
    """Objective -> loss summed over its items (words, clips, ...). Each is divided by the count of the whole optimizer
    step over all micro-batches and ranks, so that results do not depend on the world size."""
    report: Mapping[str, Total]
    """Figure -> total, detached; logged as sum / count (accuracies and the like). Every micro-batch on every rank has
    the same names, with a count of 0 where there is nothing to tell."""


class Prepare(Protocol):
    """Draws what is random about a batch (masks, targets) on the CPU, in a loader worker; must be picklable.

    A pure function of the batch: whatever it draws depends on (its seed, batch.epochs, batch.keys) only.
    """

    def __call__(self, batch: Batch) -> Batch: ...


class Task(nn.Module):
    """A method: an encoder, whatever it needs beside it, and its losses. The engine wraps it as one module."""

    encoder: nn.Module
    """What the run exports (triptych.models.load.save_encoder)."""
    prepare: Prepare
    """Given to the loader."""

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Objective -> number of items in a prepared micro-batch, on the CPU and before any forward."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Losses and report of a prepared micro-batch; `losses` has the keys of `counts`, also where a count is 0."""

    def weights(self, step: int) -> Mapping[str, float]:
        """Objective -> its weight in the total loss at an optimizer step (from 0)."""
        return {}  # a name that is not listed weighs 1


class Evaluator(Protocol):
    """Something the trainer calls every so many steps, on every rank together; figures come back on every rank."""

    @property
    def name(self) -> str:
        """Prefix of its figures in the log."""

    def evaluate(self, step: int) -> Mapping[str, float]: ...
