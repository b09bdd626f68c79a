"""Held-out losses during training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from triptych.batch import Batch
from triptych.engine import Engine


class EvalBatches(Protocol):
    """This rank's share of a split; the same number of batches on all ranks."""

    def batches(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class LossEvaluator:
    """An Evaluator: the task's own losses and report on a split, e.g. "loss/masked_lm"."""

    name: str
    """Prefix of its figures in metrics.jsonl, e.g. "valid"."""
    engine: Engine
    loader: EvalBatches

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Means over the whole split, the same on every rank."""
        return self.engine.evaluate(self.loader.batches())
