"""What a task says of clips, and how good that is.

Legend: N clips of a split, C classes, E targets, T steps of a series.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.task import FinetuneTask
from shards.divisions.truth import Truth, whole_steps
from shards.reading.read import EvalLoader
from triptych.config import UserError
from triptych.evaluation import answers, conventions, results
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol
from triptych.training.engine import Engine

Said = Mapping[str, NDArray[np.float64]]
"""Key -> outputs of a clip: [C] logits of classes, [E] of emotions, [1] sentiment, [T, E] of series, where T may be
more than the clip's own."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The clips of a split that can be scored."""

    split: results.Split
    steps: Sequence[NDArray[np.bool_]]
    """Of series: [T] of each clip, which steps have all labels. None of other kinds."""

    @classmethod
    def of(cls, truth: Truth, keys: Sequence[str], folds: Sequence[str] = ()) -> "Scored":
        """Those of `keys` that have all labels of the protocol, which are read here.

        Args:
            truth: of the shard set.
            keys: of the split.
            folds: of each key, in a cross-validation.

        Raises:
            UserError: none of them has.
        """
        kept, values = truth.scored(keys)
        if not kept.any():
            raise UserError(f"none of the {len(keys)} clips, as {keys[0]}, has all labels that the protocol scores")
        own = tuple(key for key, there in zip(keys, kept, strict=True) if there)
        split = results.Split(
            keys=own,
            truth=values,
            left_out=int((~kept).sum()),
            folds=tuple(fold for fold, there in zip(folds, kept, strict=True) if there) if folds else (),
        )
        steps = [whole_steps(series) for series in truth.of(own)] if values.dtype == object else []
        return cls(split=split, steps=steps)


def predict(engine: Engine, loader: EvalLoader, shown: tuple[str, ...] | None = None) -> Said:
    """What a task says of all clips of a split, over all ranks together.

    Args:
        engine: of a FinetuneTask.
        loader: this rank's share of the split; of its labels the length of series alone is looked at.
        shown: modalities, where some are removed.
    """
    task = engine.task
    assert isinstance(task, FinetuneTask)
    task.eval()
    said: dict[str, NDArray[np.float64]] = {}
    with torch.no_grad():
        for batch in loader.batches():
            batch = batch.to(engine.device)
            outputs = task.loss.said(task.outputs(batch if shown is None else batch.keep(shown)).double())
            said |= dict(zip(batch.keys, outputs.cpu().numpy(), strict=True))
    return {key: values for part in engine.distributed.gather(said) for key, values in part.items()}


def answers_of(protocol: Protocol, scored: Scored, outputs: Sequence[NDArray[np.float64]]) -> Units:
    """Predictions as `triptych.evaluation.results.System` has them, of one run: [N], [N, E], or [N] series.

    Args:
        protocol: of the outputs.
        scored: N clips.
        outputs: of each of them.
    """
    if protocol.kind != "series":
        return answers.said(protocol, torch.from_numpy(np.stack(outputs)))
    units = np.empty(len(outputs), dtype=object)
    for index, (values, steps) in enumerate(zip(outputs, scored.steps, strict=True)):
        units[index] = values[: len(steps)][steps]
    return units


def shares_of(protocol: Protocol, outputs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """[N, C] probabilities of classes; None of other kinds."""
    return answers.probabilities(protocol, torch.from_numpy(np.stack(outputs))) if protocol.kind == "classes" else None


@dataclass
class ScoreEvaluator:
    """An Evaluator: the protocol's metrics on valid. The trainer keeps the checkpoint where they are best."""

    name: str
    """Prefix of its figures in metrics.jsonl."""
    engine: Engine
    loader: EvalLoader
    protocol: Protocol
    scored: Scored

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Metric -> score, the same on every rank; without those that are undefined on these clips.

        Raises:
            UserError: the one that chooses is undefined.
        """
        said = predict(self.engine, self.loader)
        split = self.scored.split
        predictions = answers_of(self.protocol, self.scored, [said[key] for key in split.keys])
        return figures(self.protocol, split.truth, predictions, self.name)


def figures(protocol: Protocol, truth: Units, predictions: Units, name: str) -> dict[str, float]:
    """Every metric of a protocol that is defined on some clips, and those of its targets.

    Raises:
        UserError: the metric that chooses is undefined.
    """
    found: dict[str, Any] = {}
    for metric in protocol.metrics:
        columns = conventions.columns_of(protocol, metric)
        for column in columns if protocol.kind != "classes" else columns[-1:]:  # a class may be absent from valid
            several = column.name not in (metric, "average") and len(protocol.targets) > 1
            title = f"{column.name} {metric}" if several else metric
            try:
                found[title] = float(column.score(truth, predictions))
            except ValueError as error:
                if title == protocol.select:
                    raise UserError(
                        f"{name}: {protocol.select}, by which a step is chosen, is undefined on its {len(truth)} "
                        f"clips: {error}; divide the clips otherwise"
                    ) from None
    return found
