"""Fine-tuning as a Task of the one trainer: a loss of a head on an encoder.

Legend: B clips, T steps of a series, E outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from finetune.heads.base import Head
from finetune.losses import Loss
from triptych.batch import Batch
from triptych.models.encoder import Encoder
from triptych.protocols.protocol import Protocol
from triptych.training.task import Output, Task


def as_is(batch: Batch) -> Batch:
    """The task's prepare step: fine-tuning draws nothing; labels are `Labels`' matter."""
    return batch


@dataclass(frozen=True)
class Labels:
    """A loader's prepare step: the protocol's own labels, series of all targets with the same number of steps."""

    protocol: Protocol

    def __call__(self, batch: Batch) -> Batch:
        """See Protocol.relabel."""
        batch = self.protocol.relabel(batch)
        if self.protocol.kind != "series":
            return batch
        longest = max(values.shape[1] for values in batch.labels.values())
        padded = {
            label: functional.pad(values, (0, longest - values.shape[1]), value=float("nan"))
            for label, values in batch.labels.items()
        }
        return replace(batch, labels=padded)


class FinetuneTask(Task):
    """An encoder and a head on it."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, head: Head, loss: Loss, frozen: Sequence[nn.Module] = ()) -> None:
        """Put them together.

        Args:
            encoder: whose weights train as far as they require a gradient.
            head: of the protocol's outputs.
            loss: over the protocol's labels.
            frozen: parts that stay in evaluation mode, without dropout, while the others train.
        """
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.loss = loss
        self.prepare = as_is
        self._frozen = list(frozen)

    def train(self, mode: bool = True) -> "FinetuneTask":
        """See nn.Module."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Labelled clips, emotions or steps."""
        return {self.loss.name: self.loss.count(batch)}

    def outputs(self, batch: Batch) -> Tensor:
        """See Head.forward."""
        encoded = self.encoder.encode(batch, fuse=self.head.fuses)
        outputs: Tensor = self.head(encoded, batch)
        return outputs

    def forward(self, batch: Batch) -> Output:
        """The loss, and how good the outputs are."""
        output: Output = self.loss(self.outputs(batch), batch)
        return output
