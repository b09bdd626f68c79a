"""The seam between the loop and a method: the trainer knows Task and Evaluator, and nothing of what they compute."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from triptych.batch import Batch
from triptych.training.distributed import Distributed


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


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What a loss compares that needs all clips of an optimizer step at once.

    Legend: B clips of a micro-batch, or N of all micro-batches and ranks.
    """

    rows: Mapping[str, Tensor]
    """Name -> [B, ...] float32 or float64, with the graph."""
    present: Mapping[str, Tensor]
    """Name -> [B] bool, which clips count; its names need not be those of `rows`."""
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> a number that is learnt and belongs to no clip, such as a temperature; with the graph."""


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
    compares: bool = False
    """Whether `embed` gives anything."""

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Objective -> number of items in a prepared micro-batch, on the CPU and before any forward."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Losses and report of a prepared micro-batch; `losses` has the keys of `counts`, also where a count is 0, but
        for those objectives that `embed` names."""

    def embed(self, batch: Batch) -> Mapping[str, Embeddings]:
        """Objective -> embeddings of a prepared micro-batch, of those that compare clips with each other: always the
        same objectives and names. Called before `forward`, so that its dropout can be drawn again."""
        return {}

    def compare(
        self, objective: str, gathered: Embeddings, own: slice, distributed: Distributed
    ) -> tuple[Total, Mapping[str, Total]]:
        """This rank's share of the loss over the embeddings of a whole optimizer step.

        Args:
            objective: one that `embed` names.
            gathered: of all N clips, the same on every rank.
            own: rows of this rank.
            distributed: for sums over ranks; every rank calls this at the same time.

        Returns:
            The loss and figures of the own rows: ranks' sums and counts add up, and the count is that of `counts`.
        """
        raise NotImplementedError(objective)

    def weights(self, step: int) -> Mapping[str, float]:
        """Objective -> its weight in the total loss at an optimizer step (from 0)."""
        return {}  # a name that is not listed weighs 1


class Evaluator(Protocol):
    """Something the trainer calls every so many steps, on every rank together; figures come back on every rank."""

    @property
    def name(self) -> str:
        """Prefix of its figures in the log."""

    def evaluate(self, step: int) -> Mapping[str, float]: ...
