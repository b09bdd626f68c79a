"""Franceschini et al. 2022, section IV: the supervised baseline "attention mechanism".

The paper puts the towers' vectors together and applies the multi-head attention of Vaswani et al. 2017; it says neither
how nor what comes behind. Our reading: a clip is a sequence of one step a modality, each step attends to all that the
clip has, the mean of what comes out goes through fc, ReLU, fc as in the other baselines. A modality that a clip lacks
is no step of it: it neither asks, nor is asked, nor counts in the mean.

Legend: B clips, M modalities, D width, E outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetune.heads.base import Head
from finetune.heads.shared import check_dropout, classifier, refuse_series, vectors
from triptych.batch import Batch
from triptych.config import UserError
from triptych.models.attention import Attention, Packing, Pairs
from triptych.models.blocks import mean_pool
from triptych.models.encoder import Encoded, Encoder
from triptych.models.linear import Linear


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Settings."""

    width: int = 512
    """Of the steps: that of the paper's towers. A tower of another width gets a linear layer to this one."""
    heads: int = 8
    hidden: int = 512
    """Between the two layers of the classifier; 0 for one linear layer."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout("attention", dropout=self.dropout)
        if self.hidden < 0:
            raise ValueError(f"head.attention.hidden: {self.hidden} must be 0 or more")

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """See HeadConfig.

        Raises:
            UserError: for series, or heads that do not divide the width.
        """
        refuse_series("attention", rate_hz)
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise UserError(f"head.attention.heads: {self.heads} do not divide head.attention.width, {self.width}")
        return AttentionHead(self, {name: encoder.widths[name] for name in shown}, num_outputs)


class AttentionHead(Head):
    """Self-attention over a clip's modalities."""

    fuses = False

    def __init__(self, config: AttentionConfig, widths: Mapping[str, int], num_outputs: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.inputs = nn.ModuleDict(
            {
                name: nn.Identity() if width == config.width else Linear(width, config.width)
                for name, width in widths.items()
            }
        )
        self.attention = Attention(config.width, config.heads, config.dropout)
        self.output = classifier(config.width, config.hidden, num_outputs, config.dropout)

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Outputs [B, E]."""
        found, present_BM = vectors(encoded, batch, self.widths)
        x_BMD = torch.stack([self.inputs[name](vector) for name, vector in found.items()], dim=1)
        steps = Packing(present_BM)
        x_ND = steps.pack(x_BMD)
        attended = self.attention(x_ND, x_ND, x_ND, Pairs(steps.lengths, steps.lengths, present_BM.device))
        outputs: Tensor = self.output(mean_pool(steps.pad(attended), present_BM))
        return outputs
