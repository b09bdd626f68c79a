"""What fine-tuning puts on top of an encoder.

Legend: B clips, T steps of a series, C classes, E targets (emotions, or arousal and valence).
"""

from abc import abstractmethod

from torch import Tensor, nn

from triptych.batch import Batch
from triptych.models.encoder import Encoded


class Head(nn.Module):
    """From what an encoder says of a batch to what a protocol asks for."""

    fuses: bool
    """Whether what is fused in the encoder is wanted: `encode(batch, fuse=head.fuses)`."""

    @abstractmethod
    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Say something of every clip, labelled or not, whatever modalities it lacks.

        Args:
            encoded: of the batch.
            batch: what was encoded; of its labels only the number of steps may be looked at.

        Returns:
            Logits of classes [B, C] or of emotions [B, E]; sentiment [B, 1]; of series numbers [B, T, E], where T is
            that of `batch.labels`.
        """
