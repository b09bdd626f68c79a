"""What an objective is, and the task made of a weighted set of them over one encoder."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import nn

from pretrain.objectives.galleries import GalleryEvaluator, no_figures
from shards.reading.index import ShardSet
from triptych.batch import Batch
from triptych.models.encoder import Encoder
from triptych.training.distributed import Distributed
from triptych.training.engine import Engine
from triptych.training.held_out_loss import EvalBatches, LossEvaluator
from triptych.training.task import Embeddings, Evaluator, Output, Prepare, Task, Total

if TYPE_CHECKING:  # it names the objectives, each of which imports this file
    from pretrain.config import EvaluationConfig, PretrainConfig


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What every objective is told; one with checks of its own begins them with `super().__post_init__()`."""

    weight: float = 1.0
    """Of this objective's mean loss in the sum over the objectives."""
    weight_at: dict[int, float] = field(default_factory=dict)
    """Optimizer step (from 0) -> factor of `weight`, as in {0: 0.1, 1000: 1.0}: linear between the steps, constant
    before the first and after the last; without any it is 1. Points of an override join those of the file. Where the
    factor is 0 the loss is still computed and logged, and teaches nothing."""

    may_change: ClassVar[tuple[str, ...]] = ()
    """Fields that another start of the same run may have otherwise, as where a file lies."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < inf:
            raise ValueError(f"weight: {self.weight} must be a number, 0 or more")
        for step, factor in self.weight_at.items():
            if step < 0 or not 0 <= factor < inf:
                raise ValueError(f"weight_at: {step}: {factor}; steps and factors must be numbers, 0 or more")
        if self.weight_at and not any(self.weight_at.values()):
            raise ValueError("weight_at: every factor is 0, so the objective would never count; leave it out instead")

    @abstractmethod
    def build(self, encoder: Encoder, seed: int) -> "AnyObjective":
        """The objective over an encoder.

        Args:
            encoder: freshly initialised.
            seed: of what it draws of each clip.

        Raises:
            ValueError: it does not fit the encoder.
        """

    def check(self, run: "PretrainConfig") -> None:
        """Look at the rest of the run's config.

        Raises:
            ValueError: the objective does not fit it; the message names the keys.
        """

    def labels_used(self) -> tuple[str, ...]:
        """Names of the labels that it trains on, each with where it comes from: the model card has them."""
        return ()

    def weight_of(self, step: int) -> float:
        """Weight at an optimizer step (from 0)."""
        if not self.weight_at:
            return self.weight
        steps, factors = zip(*sorted(self.weight_at.items()), strict=True)
        return self.weight * float(np.interp(step, steps, factors))


def unchanged(batch: Batch) -> Batch:
    """The `prepare` of an objective that draws nothing."""
    return batch


@dataclass(frozen=True)
class HeldOut:
    """Clips that are not trained on, and what it takes to measure on them."""

    split: str
    """Prefix of the figures in metrics.jsonl, e.g. "valid": an Evaluator's name."""
    engine: Engine
    loader: EvalBatches
    settings: "EvaluationConfig"


class AnyObjective(nn.Module):
    """One loss over an encoder, with the weights that it needs beside it and throws away later."""

    name: str
    prepare: Prepare
    """Puts what it draws into `batch.targets`, under names that begin with the objective's."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Label -> classes, of what the loader is to read into `batch.labels`."""
        return {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the targets beside config and shards, as JSON types: a resumed run must find the same."""
        return {}

    def check_data(self, shard_set: ShardSet) -> list[str]:
        """Lines to print about the shards at the start of a run.

        Raises:
            UserError: they lack what the objective asks for.
        """
        return []

    def start(self, encoder: Encoder, counts: Sequence[int]) -> None:
        """Begin a fresh run; what goes on from a checkpoint has all of this in its weights.

        Args:
            encoder: with the weights that it starts with.
            counts: how often each word of the vocabulary is said.
        """

    def evaluators(self, held_out: HeldOut) -> list[Evaluator]:
        """What measures it on a split, beside the losses and reports of `forward`."""
        return []

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """Number of items that a prepared micro-batch asks for."""


class Objective(AnyObjective):
    """One whose loss is a sum over items of a micro-batch."""

    @abstractmethod
    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """The loss summed over the items, and figures to report."""


class Comparison(AnyObjective):
    """One that compares all clips of an optimizer step with each other, see triptych.training.compare."""

    @abstractmethod
    def embed(self, encoder: Encoder, batch: Batch) -> Embeddings:
        """What is compared, of a prepared micro-batch."""

    @abstractmethod
    def compare(self, gathered: Embeddings, own: slice, distributed: Distributed) -> tuple[Total, Mapping[str, Total]]:
        """See Task.compare."""

    def evaluators(self, held_out: HeldOut) -> list[Evaluator]:
        """What measures it on a split: its held-out loss."""
        return [self.gallery_evaluator(held_out)]

    def gallery_evaluator(
        self, held_out: HeldOut, measure: Callable[[Embeddings], Mapping[str, float]] = no_figures
    ) -> GalleryEvaluator:
        """Of its held-out loss, and of figures of its own that `measure` takes from the same embeddings."""
        gallery = held_out.settings.gallery
        return GalleryEvaluator(held_out.split, held_out.engine, held_out.loader, self.name, gallery, measure)


@dataclass(frozen=True)
class PrepareAll:
    """Every objective's draw, one after the other."""

    steps: tuple[Prepare, ...]

    def __call__(self, batch: Batch) -> Batch:
        """The batch with all targets."""
        for step in self.steps:
            batch = step(batch)
        return batch


class PretrainTask(Task):
    """An encoder and its objectives."""

    def __init__(self, encoder: Encoder, objectives: Mapping[str, AnyObjective]) -> None:
        super().__init__()
        assert all(objective.name == name for name, objective in objectives.items())
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.prepare = PrepareAll(tuple(objective.prepare for objective in objectives.values()))
        self.compares = any(isinstance(objective, Comparison) for objective in objectives.values())
        self.has_losses = any(isinstance(objective, Objective) for objective in objectives.values())

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """See Objective.labels: those of all."""
        return {label: classes for _, objective in self._named() for label, classes in objective.labels.items()}

    @property
    def identity(self) -> Mapping[str, Mapping[str, Any]]:
        """Objective -> its identity, of those that have one."""
        return {name: objective.identity for name, objective in self._named() if objective.identity}

    def check_data(self, shard_set: ShardSet) -> list[str]:
        """See Objective.check_data: lines of all, each with the objective's name."""
        return [f"{name}: {line}" for name, objective in self._named() for line in objective.check_data(shard_set)]

    def start(self, counts: Mapping[str, int]) -> None:
        """See Objective.start, of all.

        Args:
            counts: word -> how often it is said; a word of the vocabulary that is not in it counts as 0.
        """
        assert isinstance(self.encoder, Encoder)
        for _, objective in self._named():
            objective.start(self.encoder, [counts.get(word, 0) for word in self.encoder.words])

    def evaluators(self, held_out: HeldOut) -> list[Evaluator]:
        """What measures the objectives on a split."""
        losses = [LossEvaluator(held_out.split, held_out.engine, held_out.loader)] if self.has_losses else []
        return [*losses, *(own for _, objective in self._named() for own in objective.evaluators(held_out))]

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """See Task.counts."""
        return {name: objective.count(batch) for name, objective in self._named()}

    def weights(self, step: int) -> Mapping[str, float]:
        """See Task.weights."""
        return {name: objective.config.weight_of(step) for name, objective in self._named()}

    def forward(self, batch: Batch) -> Output:
        """See Task.forward."""
        assert isinstance(self.encoder, Encoder)
        losses: dict[str, Total] = {}
        report: dict[str, Total] = {}
        for name, objective in self._named():
            if isinstance(objective, Objective):
                losses[name], figures = objective(self.encoder, batch)
                report |= _under(name, figures)
        return Output(losses=losses, report=report)

    def embed(self, batch: Batch) -> Mapping[str, Embeddings]:
        """See Task.embed."""
        assert isinstance(self.encoder, Encoder)
        return {
            name: objective.embed(self.encoder, batch)
            for name, objective in self._named()
            if isinstance(objective, Comparison)
        }

    def compare(
        self, objective: str, gathered: Embeddings, own: slice, distributed: Distributed
    ) -> tuple[Total, Mapping[str, Total]]:
        """See Task.compare."""
        comparison = self.objectives[objective]
        assert isinstance(comparison, Comparison)
        loss, figures = comparison.compare(gathered, own, distributed)
        return loss, _under(objective, figures)

    def _named(self) -> list[tuple[str, AnyObjective]]:
        return [(name, module) for name, module in self.objectives.items() if isinstance(module, AnyObjective)]


def _under(objective: str, figures: Mapping[str, Total]) -> dict[str, Total]:
    return {f"{figure}/{objective}": total for figure, total in figures.items()}
