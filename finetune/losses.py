"""What training makes small, for every kind of protocol.

Losses are sums over items with their number, which the engine divides by the number of a whole optimizer step: neither
micro-batches nor ranks change a gradient (but see `Concordance`). Clips and steps without a label are no items.

Legend: B clips, T steps of a series, C classes, E targets (emotions, or arousal and valence).
"""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.batch import UNLABELLED, Batch
from triptych.config import UserError
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol
from triptych.training.task import Output, Total

LOSSES = {
    "classes": ("cross_entropy", "two_way"),
    "emotions": ("bce",),
    "sentiment": ("l1", "mse"),
    "series": ("ccc",),
}
"""Kind of protocol -> its losses, first the usual one."""


class Loss(nn.Module):
    """A loss over the labels of a protocol."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.labels = tuple(target.label for target in protocol.targets)
        self.name = self.labels[0] if len(self.labels) == 1 else protocol.kind

    def truth(self, batch: Batch) -> Tensor:
        """[B] classes; else [B, E], or [B, T, E] of series, NaN where there is none."""
        return torch.stack([batch.labels[label] for label in self.labels], dim=-1)

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """Items of a micro-batch."""

    @abstractmethod
    def sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Loss summed over the items; a zero with a graph where there is none."""

    def forward(self, outputs: Tensor, batch: Batch) -> Output:
        """The loss, and what is reported beside it.

        Args:
            outputs: of a head.
            batch: that it saw.
        """
        truth = self.truth(batch)
        total = Total(self.sum(outputs.float(), truth), self.count(batch))
        return Output(losses={self.name: total}, report=self.report(outputs.detach().float(), truth))

    def report(self, outputs: Tensor, truth: Tensor) -> dict[str, Total]:
        """Figure -> total of the micro-batch; none by default."""
        return {}

    def said(self, outputs: Tensor) -> Tensor:
        """Outputs as `triptych.evaluation.answers` reads them."""
        return outputs


class CrossEntropy(Loss):
    """Softmax over one choice."""

    weights: Tensor | None

    def __init__(self, protocol: Protocol, weights: Tensor | None) -> None:
        """Keep the weights, [C] of a clip of each class."""
        super().__init__(protocol)
        self.register_buffer("weights", weights, persistent=False)

    def truth(self, batch: Batch) -> Tensor:
        """See Loss."""
        return batch.labels[self.labels[0]]

    def count(self, batch: Batch) -> int:
        """Labelled clips."""
        return int((self.truth(batch) != UNLABELLED).sum())

    def sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See Loss."""
        return functional.cross_entropy(outputs, truth, weight=self.weights, ignore_index=UNLABELLED, reduction="sum")

    def report(self, outputs: Tensor, truth: Tensor) -> dict[str, Total]:
        """Accuracy."""
        right = (outputs.argmax(dim=1) == truth).sum()
        return {"accuracy": Total(right, int((truth != UNLABELLED).sum()))}


class Binary(Loss):
    """A sigmoid for every emotion; an item is an emotion of a clip that is known to be there or not."""

    weights: Tensor | None

    def __init__(self, protocol: Protocol, weights: Tensor | None) -> None:
        """Keep the weights, [2, E] of a clip without and with each emotion."""
        super().__init__(protocol)
        self.register_buffer("weights", weights, persistent=False)

    def count(self, batch: Batch) -> int:
        """Known emotions of clips."""
        return int((~self.truth(batch).isnan()).sum())

    def sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See Loss."""
        known = ~truth.isnan()
        there = truth.nan_to_num()
        each = functional.binary_cross_entropy_with_logits(outputs, there, reduction="none")
        if self.weights is not None:
            each = each * torch.where(there > 0, self.weights[1], self.weights[0])
        return (each * known).sum()

    def report(self, outputs: Tensor, truth: Tensor) -> dict[str, Total]:
        """Accuracy over emotions and clips."""
        known = ~truth.isnan()
        return {"accuracy": Total((((outputs > 0) == (truth > 0)) & known).sum(), int(known.sum()))}


class TwoWay(Binary):
    """One choice as a decision for each class against the rest, as SSE-FT on IEMOCAP.

    Their softmax over two numbers is the sigmoid of the difference, so one logit a class is the same family. What is
    chosen is the likeliest class.
    """

    def __init__(self, protocol: Protocol, weights: Tensor | None) -> None:
        super().__init__(protocol, weights)
        self.num_classes = len(protocol.classes)

    def truth(self, batch: Batch) -> Tensor:
        """[B, C] 0 and 1."""
        chosen = batch.labels[self.labels[0]]
        rows = functional.one_hot(chosen.clamp(min=0), self.num_classes).float()
        return rows.masked_fill((chosen == UNLABELLED)[:, None], torch.nan)

    def said(self, outputs: Tensor) -> Tensor:
        """Their softmax is each class's probability against the rest, over the sum of all."""
        return functional.logsigmoid(outputs)


class Distance(Loss):
    """Absolute error (SSE-FT on MOSI and MOSEI) or squared error of numbers."""

    def __init__(self, protocol: Protocol, *, squared: bool) -> None:
        super().__init__(protocol)
        self.squared = squared

    def count(self, batch: Batch) -> int:
        """Labelled clips."""
        return int((~self.truth(batch).isnan()).sum())

    def sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See Loss."""
        error = (outputs - truth.nan_to_num()) * ~truth.isnan()
        return error.square().sum() if self.squared else error.abs().sum()

    def report(self, outputs: Tensor, truth: Tensor) -> dict[str, Total]:
        """Mean absolute error."""
        known = ~truth.isnan()
        return {"mae": Total(((outputs - truth.nan_to_num()).abs() * known).sum(), int(known.sum()))}


class Concordance(Loss):
    """Mean over targets of 1 - CCC (Tzirakis et al. 2021, section 3.5: population moments).

    CCC is no sum over steps: it is taken over all labelled steps of a micro-batch, its clips end to end, and counts as
    often as the micro-batch has steps. With one micro-batch an optimizer step that is the loss of the step exactly;
    with several, or several ranks, it is the mean of theirs, which is larger where their means differ.
    """

    EPSILON = 1e-8
    """Added below the fraction: 0 / 0 where truth and prediction are the same constant."""

    def count(self, batch: Batch) -> int:
        """Labelled steps of all targets."""
        return int((~self.truth(batch).isnan()).sum())

    def sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """See Loss."""
        total = 0.0 * outputs.sum()
        for target in range(truth.shape[-1]):
            known = ~truth[..., target].isnan()
            if known.any():
                x, y = outputs[..., target][known], truth[..., target][known]
                total = total + (1 - self._concordance(x, y)) * len(y)
        return total

    def _concordance(self, x: Tensor, y: Tensor) -> Tensor:
        mean_x, mean_y = x.mean(), y.mean()
        covariance = ((x - mean_x) * (y - mean_y)).mean()
        spread = (x - mean_x).square().mean() + (y - mean_y).square().mean() + (mean_x - mean_y).square()
        return 2 * covariance / (spread + self.EPSILON)


def build(name: str, protocol: Protocol, balanced_by: Units | None) -> Loss:
    """The loss of that name.

    Args:
        name: of LOSSES for this kind; empty for the usual one.
        protocol: whose labels there are.
        balanced_by: labels of the training clips (shards.divisions.truth.Truth.of), for weights by which classes, or
            positives and negatives of every emotion, contribute equally (Khare et al. 2021); the mean weight of a
            training clip is 1. None weighs nothing.

    Raises:
        UserError: no such loss for this kind of protocol, or weights for numbers.
    """
    choices = LOSSES[protocol.kind]
    name = name or choices[0]
    if name not in choices:
        there = ", ".join(choices)
        raise UserError(f"loss: {name} is not for {protocol.kind}, as {protocol.name} has; there is {there}")
    if balanced_by is not None and protocol.kind not in ("classes", "emotions"):
        raise UserError(f"balanced: is for classes and emotions; {protocol.name} has {protocol.kind}")
    if name == "cross_entropy":
        weights = None if balanced_by is None else class_weights(balanced_by, len(protocol.classes))
        return CrossEntropy(protocol, weights)
    if name == "two_way":
        rows = None if balanced_by is None else np.eye(len(protocol.classes))[balanced_by[balanced_by != UNLABELLED]]
        return TwoWay(protocol, None if rows is None else side_weights(rows))
    if name == "bce":
        return Binary(protocol, None if balanced_by is None else side_weights(balanced_by))
    return Concordance(protocol) if name == "ccc" else Distance(protocol, squared=name == "mse")


def class_weights(values: Units, num_classes: int) -> Tensor:
    """[C] N / (C * clips of the class); `values` [N] may hold UNLABELLED."""
    counts = np.bincount(values[values != UNLABELLED], minlength=num_classes)
    return torch.tensor(counts.sum() / (num_classes * np.maximum(counts, 1)), dtype=torch.float32)


def side_weights(values: Units) -> Tensor:
    """[2, E] of negatives and positives: N / (2 * those) of each emotion; `values` [N, E] may hold NaN."""
    positives = np.nansum(values, axis=0)
    known = (~np.isnan(values)).sum(axis=0)
    sides = np.stack([known - positives, positives])
    return torch.tensor(known / (2 * np.maximum(sides, 1)), dtype=torch.float32)
