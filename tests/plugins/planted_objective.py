"""`python planted_objective.py CONFIG [a.b=c ...]`: `python -m pretrain` with one objective more, which compares clips
and calls its rows what no objective of the house does."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.config import ObjectivesConfig, PretrainConfig
from pretrain.objectives.objective import Comparison, ObjectiveConfig, unchanged
from pretrain.train import pretrain
from triptych.batch import Batch
from triptych.config import find, load, run_command
from triptych.models.encoder import Encoder
from triptych.training.distributed import Distributed
from triptych.training.task import Embeddings, Total

NAME = "spread"


@dataclass(frozen=True, kw_only=True)
class SpreadConfig(ObjectiveConfig):
    """Spread the clips' sounds over a sphere (uniformity of Wang and Isola 2020, clip by clip)."""

    def build(self, encoder: Encoder, seed: int) -> "Spread":
        """See ObjectiveConfig."""
        return Spread(self, encoder)


class Spread(Comparison):
    """One row a clip; every clip counts."""

    name = NAME
    prepare = staticmethod(unchanged)

    def __init__(self, config: SpreadConfig, encoder: Encoder) -> None:
        super().__init__(config)
        self.output = nn.Linear(encoder.widths["audio"], 4)

    def count(self, batch: Batch) -> int:
        """See AnyObjective."""
        return len(batch)

    def embed(self, encoder: Encoder, batch: Batch) -> Embeddings:
        """See Comparison."""
        rows = nn.functional.normalize(self.output(encoder.encode(batch, fuse=False).pooled["audio"]).float(), dim=1)
        return Embeddings(
            rows={"ball": rows}, present={"any": torch.ones(len(batch), dtype=torch.bool).to(rows.device)}
        )

    def compare(self, gathered: Embeddings, own: slice, distributed: Distributed) -> tuple[Total, Mapping[str, Total]]:
        """See Comparison."""
        loss = spread(gathered.rows["ball"])[own]
        return Total(loss.sum(), len(loss)), {}


def spread(rows_ND: Tensor) -> Tensor:
    """[N] logarithm of the mean of exp(-2 |x - y|^2) over all clips y, itself included."""
    return (-2 * (rows_ND[:, None] - rows_ND).square().sum(dim=2)).logsumexp(dim=1) - torch.tensor(len(rows_ND)).log()


@dataclass(frozen=True, kw_only=True)
class Objectives(ObjectivesConfig):
    """With the new one."""

    spread: SpreadConfig | None = None


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """With the new one."""

    objectives: Objectives


if __name__ == "__main__":
    run_command(lambda: pretrain(load(Config, find(sys.argv[1], "pretrain"), sys.argv[2:])))
