"""Predictions on a split, and the weights of the best validation score.

Legend: N clips of a split, C classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finetune.task import FinetuneTask
from shards.read import EvalLoader
from triptych import evaluation
from triptych.batch import UNLABELLED
from triptych.engine import Engine
from triptych.protocols.protocol import METRICS, Protocol


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


class BestOnValid:
    """An Evaluator that keeps the weights of the best step, by the protocol's metric on valid.

    The first of equal steps is kept. `best.safetensors` lies in the run folder, so that a resumed run goes on from it:
    evaluating the same step again gives the same score, which is not a better one.
    """

    name = "valid"

    def __init__(self, engine: Engine, loader: EvalLoader, protocol: Protocol, folder: Path) -> None:
        self._engine = engine
        self._loader = loader
        self._protocol = protocol
        self._folder = folder

    def evaluate(self, step: int) -> Mapping[str, float]:
        """The protocol's metrics on valid; keeps the weights where the score is the best so far."""
        predicted = predict(self._engine, self._loader, self._protocol.label)
        classes = predicted.probabilities.argmax(axis=1)
        figures = {name: METRICS[name](predicted.split.truth, classes) for name in self._protocol.metrics}
        score = figures[self._protocol.select]
        if self._engine.is_main and score > self.best()[1]:
            self._keep(step, score)
        return figures

    def _keep(self, step: int, score: float) -> None:
        # Accelerate keeps whole weights on every rank, so rank 0 has them all.
        weights = {name: value.cpu().contiguous() for name, value in self._engine.task.state_dict().items()}
        metadata = {"step": str(step), "score": repr(score)}
        partial = self._folder / "best.safetensors.partial"
        save_file(weights, partial, metadata=metadata)
        partial.replace(self._folder / "best.safetensors")  # weights and score change together

    def best(self) -> tuple[int, float]:
        """Step and score of the kept weights; -1 and -infinity before the first evaluation."""
        path = self._folder / "best.safetensors"
        if not path.is_file():
            return -1, -math.inf
        with safe_open(path, framework="pt") as file:
            said = file.metadata()
        return int(said["step"]), float(said["score"])

    def restore(self) -> None:
        """Put the kept weights back into the engine's task."""
        self._engine.task.load_state_dict(load_file(self._folder / "best.safetensors"))
