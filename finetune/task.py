"""Fine-tuning as a Task of the one trainer: cross-entropy of a head on an encoder that keeps training.

Legend: B clips, C classes.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from finetune.heads.base import Head
from triptych.batch import UNLABELLED, Batch
from triptych.models.encoder import Encoder
from triptych.task import Output, Task, Total


def as_is(batch: Batch) -> Batch:
    """The loader's prepare step: fine-tuning draws nothing."""
    return batch


class FinetuneTask(Task):
    """An encoder, all of whose weights train, and a head on it."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, head: Head, label: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.label = label
        self.prepare = as_is

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Labelled clips."""
        return {self.label: int((batch.labels[self.label] != UNLABELLED).sum())}

    def logits(self, batch: Batch) -> Tensor:
        """[B, C]"""
        encoded = self.encoder.encode(batch, fuse=self.head.fuses)
        logits: Tensor = self.head(encoded, batch)
        return logits

    def forward(self, batch: Batch) -> Output:
        """Cross-entropy over the labelled clips, and how many of them are right."""
        truth = batch.labels[self.label]
        logits = self.logits(batch)
        count = self.counts(batch)[self.label]
        loss = functional.cross_entropy(logits, truth, ignore_index=UNLABELLED, reduction="sum")
        right = (logits.argmax(dim=1) == truth).sum()
        return Output(losses={self.label: Total(loss, count)}, report={"accuracy": Total(right.detach(), count)})
