"""The plainest head: one linear layer.

Legend: B clips, T steps of a series, D width, E outputs.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from finetune.heads.base import Head
from triptych.batch import Batch
from triptych.config import UserError, nearest
from triptych.models.encoder import Encoded, Encoder
from triptych.models.steps import on_steps

FUSED = "fused"


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Dropout and one linear layer over the pooled vectors side by side, or at every step of a series."""

    dropout: float = 0.1
    pooled: list[str] = field(default_factory=list)
    """Pooled vectors that it reads (text, audio, video, fused); none listed means all that the inputs give. Of series,
    the towers' sequences of that name, and nothing fused."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head.linear.dropout: {self.dropout} must lie in [0, 1)")

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """See HeadConfig.

        Raises:
            UserError: a pooled vector that the encoder has not, or not of these inputs or for series.
        """
        there = encoder.widths if rate_hz is None else encoder.sequence_widths
        widths = {name: width for name, width in there.items() if name in (*shown, FUSED)}
        for name in self.pooled:
            if name not in widths:
                raise UserError(f"head.linear.pooled: there is no {name!r}.{nearest(name, widths)}")
        names = self.pooled or list(widths)
        chosen = {name: widths[name] for name in names}
        return LinearHead(chosen, num_outputs, rate_hz, self.dropout, encoder.modalities_with_cls)


class LinearHead(Head):
    """Zeros stand where a clip lacks one of the vectors. A series has no row for a tower's CLS, which is left out."""

    def __init__(
        self,
        widths: dict[str, int],
        num_outputs: int,
        rate_hz: float | None,
        dropout: float,
        with_cls: Collection[str],
    ) -> None:
        super().__init__()
        self.with_cls = frozenset(with_cls)
        self.fuses = FUSED in widths
        self.widths = widths
        self.rate_hz = rate_hz
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(sum(widths.values()), num_outputs)

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Outputs [B, E], or [B, T, E] of series."""
        seen = self._pooled(encoded, len(batch)) if self.rate_hz is None else self._sequences(encoded, batch)
        outputs: Tensor = self.linear(self.dropout(seen))
        return outputs

    def _pooled(self, encoded: Encoded, num_clips: int) -> Tensor:
        """[B, D]"""
        vectors = encoded.pooled
        return torch.cat(
            [
                vectors[name] if name in vectors else self.linear.weight.new_zeros(num_clips, width)
                for name, width in self.widths.items()
            ],
            dim=1,
        )

    def _sequences(self, encoded: Encoded, batch: Batch) -> Tensor:
        """[B, T, D] at the steps of the labels."""
        assert self.rate_hz is not None
        num_steps = next(iter(batch.labels.values())).shape[1]
        parts = []
        for name, width in self.widths.items():
            if name in encoded.towers:
                tower, rows = encoded.towers[name], [num_steps] * len(batch)
                has_cls = name in self.with_cls
                part = on_steps(tower.sequence, tower.mask, batch.tracks[name], self.rate_hz, rows, has_cls)
            else:
                part = self.linear.weight.new_zeros(len(batch) * num_steps, width)
            parts.append(part)
        return torch.cat(parts, dim=1).view(len(batch), num_steps, -1)
