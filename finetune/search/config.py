"""What a search is told."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from finetune.config import FinetuneConfig
from triptych.typed_yaml import SCHEMA


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values of one field: from `low` to `high`, both included, or one of `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Drawn evenly in the logarithm, as learning rates want it."""
    step: float | None = None
    """Distance of neighbouring values from `low` on; without one any number, a whole one where the field is."""
    choices: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.choices:
            if (self.low, self.high, self.log, self.step) != (None, None, False, None):
                raise ValueError("space: choices stand alone, without low, high, log and step")
            return
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"space: give choices, or low below high; given: low {self.low}, high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("space: log wants low above 0 and no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"space: step {self.step} must be above 0 and fit between low and high")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """`python -m finetune.search CONFIG overrides.encoder=<folder> overrides.shards=<folder> out=<folder>`."""

    finetune: str = MISSING
    """The base: a file, or the name of a shipped config of finetune. Trials train its first `init` and `seeds`."""
    overrides: dict[str, Any] = field(default_factory=dict, metadata={SCHEMA: FinetuneConfig})
    """Of the base, before anything is searched: {encoder: ..., trainer: {max_steps: ...}}."""
    out: str = MISSING
    """Folder of the search. The same command resumes it, and started several times at once it shares the work."""
    space: dict[str, Range] = field(default_factory=dict)
    """Path of a field of the base, as optimizer.lr -> its values."""
    trials: int = 50
    """Of all workers together; may be raised later."""
    seed: int = 0
    """Of the suggestions; one worker with the same seed is given the same ones."""
    min_steps: int = MISSING
    """Steps that every trial gets before Hyperband may stop it; the most is the base's trainer.max_steps."""
    reduction: int = 3
    """Hyperband's eta: one of so many trials goes on from each halt, to so many times the steps."""
    keep_checkpoints: bool = True
    """Of finished trials; they are as large as the model and its optimizer, several times for every trial."""

    def __post_init__(self) -> None:
        if not self.space:
            raise ValueError("space: name one or more fields to search, as optimizer.lr: {low: 1e-5, high: 1e-3}")
        for name, least in (("trials", 1), ("min_steps", 1), ("reduction", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} must be at least {least}")
