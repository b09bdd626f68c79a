"""Franceschini et al. 2022, section IV: the supervised baselines "unimodal" and "late fusion".

Both are fc, ReLU, fc over the towers' vectors: of one tower (`inputs=audio`), or of all of them side by side. That is
the paper's late fusion; what most call so, a classifier of its own for each modality and the mean of what they say, is
`join: logits`. The mean is over those that a clip has, and over logits, so that losses which want logits stay as they
are; probabilities of one modality that is nearly sure would count for less than its logits do.

The hidden width and dropout are those of the authors' code.

Legend: B clips, D width, E outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.heads.base import Head
from finetune.heads.shared import check_dropout, classifier, refuse_series, vectors
from triptych.batch import Batch
from triptych.models.encoder import Encoded, Encoder


@dataclass(frozen=True, kw_only=True)
class LateFusionConfig:
    """Settings; the defaults are the paper's."""

    join: Literal["vectors", "logits"] = "vectors"
    """vectors: one classifier over all vectors side by side; zeros where a clip lacks one. logits: a classifier a
    modality, and the mean of their logits."""
    hidden: int = 512
    """Between the two layers of a classifier; 0 for one linear layer."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout("late_fusion", dropout=self.dropout)
        if self.hidden < 0:
            raise ValueError(f"head.late_fusion.hidden: {self.hidden} must be 0 or more")

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """See HeadConfig.

        Raises:
            UserError: for series.
        """
        refuse_series("late_fusion", rate_hz)
        return LateFusionHead(self, {name: encoder.widths[name] for name in shown}, num_outputs)


class LateFusionHead(Head):
    """One classifier, or one a modality."""

    fuses = False

    def __init__(self, config: LateFusionConfig, widths: Mapping[str, int], num_outputs: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        joined = {"all": sum(widths.values())} if config.join == "vectors" else self.widths
        self.classifiers = nn.ModuleDict(
            {name: classifier(width, config.hidden, num_outputs, config.dropout) for name, width in joined.items()}
        )

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Outputs [B, E]."""
        found, present_BM = vectors(encoded, batch, self.widths)
        if "all" in self.classifiers:
            joined: Tensor = self.classifiers["all"](torch.cat(list(found.values()), dim=1))
            return joined
        said = torch.stack([self.classifiers[name](vector) for name, vector in found.items()], dim=1)  # [B, M, E]
        weights = present_BM.to(said.dtype)[..., None]
        return (said * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
