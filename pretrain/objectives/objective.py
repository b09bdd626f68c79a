"""What an objective is, and the task made of a weighted set of them over one encoder."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from triptych.batch import Batch
from triptych.models.encoder import Encoder
from triptych.task import Output, Prepare, Task, Total


class Objective(nn.Module):
    """One self-supervised loss over an encoder, with the weights that it needs beside it and throws away later."""

    name: str
    weight: float
    prepare: Prepare
    """Puts what it draws into `batch.targets`, under names that begin with the objective's."""

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """Number of items that a prepared micro-batch asks for."""

    @abstractmethod
    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """The loss summed over the items, and figures to report."""


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

    def __init__(self, encoder: Encoder, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives = nn.ModuleDict(objectives)
        self.prepare = PrepareAll(tuple(objective.prepare for objective in objectives.values()))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """See Task.counts."""
        return {name: objective.count(batch) for name, objective in self._named()}

    def weights(self, step: int) -> Mapping[str, float]:
        """See Task.weights: constant over the run."""
        return {name: objective.weight for name, objective in self._named()}

    def forward(self, batch: Batch) -> Output:
        """See Task.forward."""
        assert isinstance(self.encoder, Encoder)
        losses, report = {}, {}
        for name, objective in self._named():
            losses[name], figures = objective(self.encoder, batch)
            report.update({f"{figure}/{name}": total for figure, total in figures.items()})
        return Output(losses=losses, report=report)

    def _named(self) -> list[tuple[str, Objective]]:
        return [(name, module) for name, module in self.objectives.items() if isinstance(module, Objective)]
