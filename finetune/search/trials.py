"""The trials of a search in its folder, shared by all workers: who does which, and what came of it.

Optuna's journal (one JSON line an event) holds parameters, reports and results. Who is at work on a trial, it does not
know: each holds a POSIX lock, which the operating system frees however the process ends. A trial that is running and
whose lock is free has lost its worker, and whoever comes next goes on with it from its newest checkpoint.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from finetune.search.config import SearchConfig
from triptych.refusals import lock

STUDY = "search"
JOURNAL = "study.jsonl"

PRUNED = "pruned"
"""User attribute of a trial that is to stop: the step after which that was decided."""


@dataclass(frozen=True)
class Trials:
    """The study of an out folder."""

    folder: Path
    config: SearchConfig
    max_steps: int
    lowest: bool
    """Whether the lowest value is the best."""
    suggest: Callable[[optuna.Trial], dict[str, Any]]
    """Trial -> its values; asks Optuna for those that it has not been given yet."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers from starting trials or writing reports; they wait."""
        with locked(self.folder / ".lock", wait=True):
            yield

    def study(self) -> optuna.Study:
        """The study as it is now; made where there is none. Call it within `alone`."""
        path = self.folder / JOURNAL
        _cut_torn_line(path)
        storage = JournalStorage(JournalFileBackend(str(path)))
        if STUDY not in optuna.get_all_study_names(storage):
            optuna.create_study(study_name=STUDY, storage=storage, direction="minimize" if self.lowest else "maximize")
        return optuna.load_study(
            study_name=STUDY,
            storage=storage,
            pruner=optuna.pruners.HyperbandPruner(
                min_resource=self.config.min_steps,
                max_resource=self.max_steps,
                reduction_factor=self.config.reduction,
            ),
        )

    @contextlib.contextmanager
    def claim(self) -> Iterator["Claim | None"]:
        """A trial that is this process's until the end of the block; None where nothing is left to do."""
        with contextlib.ExitStack() as held:
            with self.alone():
                study = self.study()
                claim = self._abandoned(study, held) or self._new(study, held)
            yield claim

    def path(self, number: int) -> Path:
        """Folder of a trial's fine-tuning."""
        return self.folder / "trials" / str(number)

    def _abandoned(self, study: optuna.Study, held: contextlib.ExitStack) -> "Claim | None":
        for frozen in study.get_trials(states=(TrialState.RUNNING,)):
            if held.enter_context(locked(self._lock(frozen.number), wait=False)):
                return self._claimed(study, optuna.Trial(study, frozen._trial_id), frozen)
        return None

    def _new(self, study: optuna.Study, held: contextlib.ExitStack) -> "Claim | None":
        if len(study.trials) >= self.config.trials:
            return None
        trial = study.ask()
        if not held.enter_context(locked(self._lock(trial.number), wait=False)):
            raise RuntimeError(f"trial {trial.number} is new and yet another process holds its lock")
        return self._claimed(study, trial, None)

    def _claimed(self, study: optuna.Study, trial: optuna.Trial, before: FrozenTrial | None) -> "Claim":
        # A sampler for each trial, so that its draws depend on the seed, its number and the results so far, and not on
        # how often the search was interrupted. Two workers' trials have different numbers.
        study.sampler = optuna.samplers.TPESampler(seed=self.config.seed * 1_000_003 + trial.number)
        return Claim(study, trial, self.suggest(trial), self.path(trial.number), before, self.max_steps)

    def _lock(self, number: int) -> Path:
        return self.folder / "trials" / f".{number}.lock"


@dataclass(frozen=True)
class Claim:
    """A trial that this process is at work on."""

    study: optuna.Study
    trial: optuna.Trial
    values: dict[str, Any]
    """Path -> value."""
    folder: Path
    before: FrozenTrial | None
    """What another worker, or an earlier start, has left of it."""
    max_steps: int

    @property
    def number(self) -> int:
        """From 0."""
        return self.trial.number

    @property
    def pruned(self) -> bool:
        """Whether a report decided that it is to stop, also before an interruption."""
        return PRUNED in self.trial.user_attrs

    def report(self, step: int, value: float) -> bool:
        """Tell what an evaluation during training gave; True where the trial is not worth going on with.

        Args:
            step: finished steps; one that was told before an interruption is left as it was.
            value: of the metric.
        """
        if self.before is None or step not in self.before.intermediate_values:
            self.trial.report(value, step)
        if step >= self.max_steps or not self.trial.should_prune():
            return False
        self.trial.set_user_attr(PRUNED, step)
        return True

    def finish(self, value: float, step: int) -> None:
        """It went its whole way; `value` is its best, reached at `step`."""
        self.trial.set_user_attr("best_step", step)
        self.study.tell(self.trial, value)

    def prune(self) -> None:
        """It was stopped after a report."""
        self.study.tell(self.trial, state=TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """It cannot be trained."""
        self.trial.set_user_attr("error", reason)
        self.study.tell(self.trial, state=TrialState.FAIL)


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a POSIX lock; False where another process has it and we do not wait.

    It reaches across nodes where the file system's locks do. A process does not exclude itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield lock(file, wait=wait, where=path.parent)


def _cut_torn_line(path: Path) -> None:
    """Take away a last line without its end, as a power cut or a full disk leaves it: with the next line behind it, the
    journal could not be read any more."""
    if not path.is_file():
        return
    lock = JournalFileSymlinkLock(str(path))  # that of the backend, so that no line is just being written
    lock.acquire()
    try:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
