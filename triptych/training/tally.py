"""What micro-batches add up to, over a rank and over all ranks, in one read of the device.

Legend: M micro-batches, K totals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.batch import Batch
from triptych.config import UserError
from triptych.training.distributed import Distributed
from triptych.training.task import Total

Record = tuple[Mapping[str, Total], Mapping[str, Total]]
"""Losses and report of one micro-batch."""

Key = tuple[str, str]
"""("loss" or "report", name)."""

Broken = list[tuple[str, tuple[str, ...]]]
"""Objective whose loss was not finite, and the clips of that micro-batch."""


@dataclass(frozen=True)
class Tally:
    """A rank's totals, not yet read from the device."""

    keys: tuple[Key, ...]
    """K, sorted, so that they stand in the same order on all ranks."""
    sums: Tensor
    """[M, K] float64."""
    counts: list[int]
    """K, over the micro-batches."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Tally":
        """The totals of one micro-batch or more, all with the same names (see triptych.training.task.Output)."""
        named = [
            {("loss", name): total for name, total in losses.items()}
            | {("report", name): total for name, total in report.items()}
            for losses, report in records
        ]
        keys = tuple(sorted(named[0]))
        assert all(set(totals) == set(keys) for totals in named), "micro-batches report different figures"
        sums = torch.stack([totals[key].sum.detach().double() for totals in named for key in keys])
        counts = [sum(int(totals[key].count) for totals in named) for key in keys]
        return cls(keys, sums.view(len(named), len(keys)), counts)

    def over_ranks(self, distributed: Distributed, *numbers: float) -> tuple[dict[Key, tuple[float, int]], list[float]]:
        """Key -> sum and count over all ranks, and the ranks' sums of `numbers`, in one message (a collective).

        Counts travel as float64, which is exact below 2^53. Ranks add up by position: their keys must be the same.
        """
        exact = torch.tensor([*self.counts, *numbers], dtype=torch.float64, device=self.sums.device)
        total = distributed.sum(torch.cat([self.sums.sum(dim=0), exact])).tolist()
        size = len(self.keys)
        pairs = zip(total[:size], map(int, total[size : 2 * size]), strict=True)
        return dict(zip(self.keys, pairs, strict=True)), total[2 * size :]

    def find_broken(self, micro_batches: Sequence[Batch]) -> Broken:
        """Which losses of which of the M micro-batches are not finite."""
        return [
            (name, batch.keys)
            for batch, row in zip(micro_batches, self.sums.isfinite().tolist(), strict=True)
            for (kind, name), finite in zip(self.keys, row, strict=True)
            if kind == "loss" and not finite
        ]


def means(sums: Mapping[Key, tuple[float, int]], kind: str) -> dict[str, float]:
    """Name -> mean, of "loss" or of "report"; one without items is missing."""
    return {name: value / count for (own, name), (value, count) in sums.items() if own == kind and count}


def refuse_broken(broken_ranks: Sequence[Broken], step: int, in_fp16: bool = False) -> None:
    """Say which ranks and clips have a loss that is not finite.

    Raises:
        UserError: always.
    """
    lines = [
        f"rank {rank}: {objective}, in the micro-batch of {', '.join(keys)}"
        for rank, broken in enumerate(broken_ranks)
        for objective, keys in broken
    ]
    raise UserError(
        f"step {step}: the loss is not finite, so no rank updated its weights. " + "; ".join(lines) + ". Look at "
        "these clips (python -m shards show), or continue from the last checkpoint with a lower learning rate"
        + (", or start over in bf16 or fp32, as fp16 holds nothing above 65504" if in_fp16 else "")
    )
