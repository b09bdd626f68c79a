"""The only training loop. It knows engine, loader, run folder and evaluators, and no method."""

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.batch import Batch
from triptych.config import UserError
from triptych.files import write_atomically
from triptych.training.account import Account
from triptych.training.checkpoint import Checkpoints, SaveEncoder
from triptych.training.engine import Engine, StepResult
from triptych.training.run import MetricsLog, RunFolder, versions
from triptych.training.task import Evaluator

EXIT_REQUEUE = 75
"""EX_TEMPFAIL: the run was asked to stop, saved itself, and wants to be started again; batch scripts requeue on it."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

GRACE_S = 60
"""How long a loader's worker lives on that a scheduler signals together with us, so that we can finish the step."""


class TrainBatches(Protocol):
    """This rank's micro-batches of every optimizer step from `start_step`; endless."""

    @property
    def max_damaged(self) -> int:
        """Most different clips that may be damaged before the run stops."""

    def steps(self, start_step: int) -> Iterator[list[Batch]]: ...


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long, and how often what is written."""

    max_steps: int
    """Optimizer steps of the whole run; the schedule ends there."""
    log_every: int = 10
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    """Newest checkpoints to keep; the best one is kept beside them."""
    evaluate_every: int = 1000
    """A step that is evaluated is checkpointed too; the last step is always evaluated."""
    best_metric: str | None = None
    """Figure that chooses what is exported, e.g. valid/loss/masked_lm; without one it is the last step."""
    best_is: Literal["lowest", "highest"] = "lowest"
    patience: int | None = None
    """The run ends after this many evaluations in a row without a better `best_metric`; the schedule does not know."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name}: {getattr(self, name)} must be at least 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"trainer.patience: {self.patience} must be at least 1")


class Trainer:
    """Runs an engine to the end of its config, from wherever the run folder says it stopped."""

    def __init__(
        self,
        engine: Engine,
        loader: TrainBatches,
        run: RunFolder,
        config: TrainerConfig,
        *,
        save_encoder: SaveEncoder,
        evaluators: Sequence[Evaluator] = (),
    ) -> None:
        """Put a run together.

        Args:
            engine: with the task in it.
            loader: this rank's micro-batches.
            run: the opened folder.
            config: lengths and intervals.
            save_encoder: called with (folder, encoder weights) for every checkpoint.
            evaluators: called together every `evaluate_every` steps; figures are logged as <name>/<figure>.

        Raises:
            UserError: patience without a metric that tells what is better.
        """
        if config.patience is not None and config.best_metric is None:
            raise UserError("trainer.patience: without trainer.best_metric nothing tells what is better")
        self._engine = engine
        self._loader = loader
        self._run = run
        self._config = config
        self._save_encoder = save_encoder
        self._evaluators = evaluators
        self._distributed = engine.distributed
        self._checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints, engine.distributed)
        self._stop = False
        self._account = Account()

    def train(self) -> int:
        """Train to the end or to a stop signal; every rank returns the same.

        Returns:
            0 when the run is finished, EXIT_REQUEUE when it was asked to stop and wants to be started again.

        Raises:
            UserError: no target in a global batch, a loss that is not finite, a disk that is full.
        """
        start = self._resume()
        # Rank 0 looks, as a network file system may show the others an older folder.
        if start == self._config.max_steps and self._distributed.on_main((self._run.path / "encoder").is_dir):
            return 0
        log = MetricsLog(self._run, start)
        with contextlib.closing(log), self._listen(), self._progress(start) as show:
            self._evaluate_if_due(start, log)
            steps = self._loader.steps(start)
            last = start if self._is_spent(log) else self._config.max_steps  # ended before an interruption
            for step in range(start, last):
                began = time.perf_counter()
                micro_batches = next(steps)
                waited = time.perf_counter() - began
                result = self._engine.train_step(micro_batches, step, lambda: self._stop)
                done = step + 1
                self._account.add(result.reading, self._loader.max_damaged)
                if self._is_due(done, self._config.log_every):
                    figures = _figures(result, time.perf_counter() - began, waited)
                    log.write(done, {**figures, **self._account.figures()})
                show(done, result)
                if not (result.stop or self._is_due(done, self._config.checkpoint_every) or self._evaluates(done)):
                    continue
                log.sync()
                self._save(done)
                if result.stop and done < self._config.max_steps:
                    self._say(f"asked to stop: saved step {done}; the same command continues from there")
                    return EXIT_REQUEUE
                self._evaluate_if_due(done, log)
                self._checkpoints.prune(self._best(log))
                if self._evaluates(done) and self._is_spent(log):
                    break
            self._export(log)
            if any(self._account.figures().values()):
                self._say(f"reading: {self._account}")
        return 0

    def _resume(self) -> int:
        """Load the newest good checkpoint; returns the number of finished steps."""
        start = self._checkpoints.newest_good()
        if start is None:
            return 0
        files, state = self._checkpoints.load(start)
        self._engine.load_state(files)
        self._account = Account(state.get("reading"))
        self._say(
            f"{self._run.path}: this run is finished ({start} steps)"
            if start == self._config.max_steps
            else f"{self._run.path}: continuing after step {start} of {self._config.max_steps}"
        )
        return start

    def _save(self, step: int) -> None:
        extra = {"world_size": self._distributed.world, "versions": versions(), "reading": self._account.state()}
        files, encoder = self._engine.state(), self._engine.encoder_state()
        self._checkpoints.save(step, files, extra, encoder, self._save_encoder)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._config.max_steps

    def _evaluates(self, step: int) -> bool:
        return bool(self._evaluators) and step > 0 and self._is_due(step, self._config.evaluate_every)

    def _evaluate_if_due(self, step: int, log: MetricsLog) -> None:
        """Evaluate after the checkpoint of the step, unless it was done before an interruption."""
        if self._evaluates(step):
            names = {f"{evaluator.name}/" for evaluator in self._evaluators}
            done = any(row["step"] == step and any(key.startswith(tuple(names)) for key in row) for row in log.rows())
            if not self._distributed.gather(done)[0]:
                figures = {
                    f"{evaluator.name}/{figure}": value
                    for evaluator in self._evaluators
                    for figure, value in evaluator.evaluate(step).items()
                }
                log.write(step, figures)

    def _is_spent(self, log: MetricsLog) -> bool:
        """Whether patience has run out, as the log of all evaluations tells (a collective)."""
        metric, patience = self._config.best_metric, self._config.patience
        if metric is None or patience is None:
            return False

        def look() -> bool:
            sign = 1 if self._config.best_is == "lowest" else -1
            scores = [sign * row[metric] for row in log.rows() if math.isfinite(row.get(metric, math.nan))]
            spent = bool(scores) and len(scores) - 1 - scores.index(min(scores)) >= patience
            if spent:
                self._say(f"{patience} evaluations without a better {metric}: the run ends here")
            return spent

        return self._distributed.on_main(look)

    def _best(self, log: MetricsLog) -> int | None:
        """Step of the best checkpoint that is there, also written to best.json (a collective)."""
        metric = self._config.best_metric
        if metric is None:
            return None

        def choose() -> int | None:
            rows = log.rows()
            evaluated = sorted({key for row in rows for key in row if "/" in key})
            if metric not in evaluated and any(self._evaluates(row["step"]) for row in rows):
                raise UserError(f"trainer.best_metric: no figure {metric!r}; there are: {', '.join(evaluated)}")
            scored = [
                row
                for row in rows
                if math.isfinite(row.get(metric, math.nan)) and self._checkpoints.path(row["step"]).is_dir()
            ]
            if not scored:
                return None
            sign = 1 if self._config.best_is == "lowest" else -1
            best = min(scored, key=lambda row: sign * row[metric])
            told = {"step": best["step"], "metric": metric, "value": best[metric]}
            write_atomically(self._run.path / "best.json", json.dumps(told) + "\n")
            return int(best["step"])

        return self._distributed.on_main(choose)

    def _export(self, log: MetricsLog) -> None:
        best = self._best(log)
        chosen = self._config.max_steps if best is None else best
        self._distributed.on_main(lambda: self._checkpoints.refuse_damaged(chosen))
        self._run.export_encoder(self._checkpoints.path(chosen))
        self._say(f"{self._run.path / 'encoder'}: the encoder of step {chosen}")

    @contextlib.contextmanager
    def _listen(self) -> Iterator[None]:
        """Turn stop signals into a flag that the ranks agree on at the end of a step."""
        owner = os.getpid()

        def note(number: int, frame: FrameType | None) -> None:
            if os.getpid() == owner:
                self._stop = True
            elif number == signal.SIGTERM:  # a forked loader worker; it must not outlive a real request for long
                signal.alarm(GRACE_S)

        before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _progress(self, start: int) -> Iterator[Any]:
        """A bar on a terminal, a line each logged step elsewhere."""
        console = Console(stderr=True)
        if self._distributed.is_main and console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            with Progress(*columns, console=console) as bar:
                task = bar.add_task("step", total=self._config.max_steps, completed=start)
                yield lambda done, result: bar.update(task, completed=done, description=f"loss {result.loss:.4f}")
            return

        def line(done: int, result: StepResult) -> None:
            if self._is_due(done, self._config.log_every):
                self._say(f"step {done}/{self._config.max_steps} loss {result.loss:.4f} lr {result.lr:.3g}")

        yield line

    def _say(self, text: str) -> None:
        if self._distributed.is_main:
            print(text, file=sys.stderr, flush=True)


def _figures(result: StepResult, time_s: float, waited_s: float) -> dict[str, float]:
    """A step's line in metrics.jsonl."""
    return {
        "loss": result.loss,
        **{f"loss/{name}": value for name, value in result.losses.items()},
        **({f"weight/{name}": value for name, value in result.weights.items()} if len(result.weights) > 1 else {}),
        **result.report,
        "lr": result.lr,
        **({"grad_norm": result.grad_norm} if math.isfinite(result.grad_norm) else {}),  # else fp16 left the step out
        "samples": result.reading.clips,
        "samples_per_s": result.reading.clips / time_s,
        "useful_share": result.reading.real_steps / result.reading.all_steps,
        "data_wait_share": waited_s / time_s,
        "time_s": time_s,
    }
