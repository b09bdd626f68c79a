"""What fine-tuning puts on top of an encoder.

Legend: B clips, D width, C classes.
"""

import torch
from torch import Tensor, nn

from triptych.batch import Batch
from triptych.models.encoder import Encoder


class LinearHead(nn.Module):
    """Dropout and one linear layer over the pooled outputs side by side; zeros where a clip lacks one."""

    def __init__(self, encoder: Encoder, pooled: tuple[str, ...], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.widths = {name: encoder.widths[name] for name in pooled}
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(sum(self.widths.values()), num_classes)

    def forward(self, encoder: Encoder, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        encoded = encoder.encode(batch).pooled
        weight = self.linear.weight
        parts = [
            encoded[name] if name in encoded else weight.new_zeros(len(batch), width)
            for name, width in self.widths.items()
        ]
        logits: Tensor = self.linear(self.dropout(torch.cat(parts, dim=1)))
        return logits
