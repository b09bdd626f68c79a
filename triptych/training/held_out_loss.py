"""Held-out losses during training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from triptych.batch import Batch
from triptych.config import UserError
from triptych.training.engine import Engine


class EvalBatches(Protocol):
    """This rank's share of a split; the same number of batches on all ranks."""

    @property
    def max_damaged(self) -> int:
        """Most clips that may be damaged."""

    def batches(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class LossEvaluator:
    """An Evaluator: the task's own losses and report on a split, e.g. "loss/masked_lm"."""

    name: str
    """Prefix of its figures in metrics.jsonl, e.g. "valid"."""
    engine: Engine
    loader: EvalBatches

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Means over the whole split, the same on every rank.

        Raises:
            UserError: more clips are damaged than the loader allows.
        """
        figures = self.engine.evaluate(self.loader.batches())
        refuse_damage(self.name, int(figures.get("damaged_clips", 0)), self.loader)
        return figures


def refuse_damage(name: str, damaged: int, loader: EvalBatches) -> None:
    """Raise a UserError where more clips of a split are damaged than its loader allows."""
    if damaged > loader.max_damaged:
        raise UserError(
            f"{name}: {damaged} clips are damaged, and stream.max_damaged_share allows {loader.max_damaged} of this "
            "split; the log names them: copy their shards again"
        )
