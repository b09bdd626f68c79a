"""Predictions on a split, and their scores during training.

Legend: N clips of a split, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.task import FinetuneTask
from shards.read import EvalLoader
from triptych import conventions, evaluation
from triptych.batch import UNLABELLED
from triptych.engine import Engine
from triptych.protocols.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a task says of a split; equal on every rank."""

    split: evaluation.Split
    probabilities: NDArray[np.float64]
    """[N, C]"""


def predict(engine: Engine, loader: EvalLoader, label: str) -> Predicted:
    """Class probabilities of a split's labelled clips, over all ranks together.

    Args:
        engine: of a FinetuneTask.
        loader: this rank's share of the split.
        label: name in `Batch.labels`.
    """
    task = engine.task
    assert isinstance(task, FinetuneTask)
    task.eval()
    keys: list[str] = []
    truth: list[int] = []
    rows: list[list[float]] = []
    left_out = 0
    with torch.no_grad():
        for batch in loader.batches():
            batch = batch.to(engine.device)
            wanted = batch.labels[label] != UNLABELLED
            left_out += int((~wanted).sum())
            keys += [key for key, want in zip(batch.keys, wanted.tolist()) if want]
            truth += batch.labels[label][wanted].tolist()
            rows += task.logits(batch)[wanted].double().softmax(dim=1).tolist()
    heard = engine.distributed.gather((keys, truth, rows, left_out))
    return Predicted(
        split=evaluation.Split(
            keys=tuple(key for part in heard for key in part[0]),
            truth=np.array([value for part in heard for value in part[1]], dtype=np.int64),
            left_out=sum(part[3] for part in heard),
        ),
        probabilities=np.array([row for part in heard for row in part[2]]),
    )


@dataclass
class ScoreEvaluator:
    """An Evaluator: the protocol's metrics on valid. The trainer keeps the checkpoint where they are best."""

    name: str
    """Prefix of its figures in metrics.jsonl."""
    engine: Engine
    loader: EvalLoader
    protocol: Protocol

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Metric -> score, the same on every rank."""
        predicted = predict(self.engine, self.loader, self.protocol.label)
        classes = predicted.probabilities.argmax(axis=1)
        return conventions.scores_of(self.protocol, predicted.split.truth, classes)
