"""A worker: it takes one trial after the other until none is left, then writes the report."""

import contextlib
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from optuna.trial import TrialState

from finetune.config import FinetuneConfig
from finetune.plan import Plan, make_plan
from finetune.search import report
from finetune.search.config import SearchConfig
from finetune.search.space import changed, open_base, suggest
from finetune.search.trials import Claim, Trials
from finetune.train import train_one
from triptych import config as configs
from triptych.config import UserError
from triptych.evaluation import conventions
from triptych.files import write_atomically
from triptych.training.task import Evaluator
from triptych.training.trainer import EXIT_REQUEUE, STOP_SIGNALS

MANY_FAILED = 3
"""When so many trials failed and none did not, the mistake is in what they share."""


class Objective(Protocol):
    """Trains a trial and reports to it; the best score on valid and its step, or None where it was stopped."""

    def __call__(self, claim: Claim) -> tuple[int, float] | None: ...


def run(config: SearchConfig) -> int:
    """Do trials until all are done, beside other workers on the same folder, and write the report.

    Returns:
        0, or triptych.training.trainer.EXIT_REQUEUE where a signal stopped it.

    Raises:
        UserError: see `open_base`; the base cannot be trained; the folder belongs to another search; every trial fails.
    """
    base = open_base(config)
    protocol = _plan(base).data.protocol
    trials = Trials(
        Path(config.out),
        config,
        base.trainer.max_steps,
        protocol.select_lowest,
        lambda trial: suggest(trial, config.space, base),
    )
    _open(trials, base)
    metric = report.Metric(protocol.select, conventions.by_name(protocol.kind)[protocol.select].percent)
    code = work(trials, Finetuning(base, metric.name), metric)
    with trials.alone():
        report.write(trials, base, metric)
    print(f"report: {config.out}/report.md")
    return code


def work(trials: Trials, objective: Objective, metric: report.Metric) -> int:
    """Do trials until none is left that no other worker is at.

    Returns:
        0, or EXIT_REQUEUE where a trial was stopped by a signal; its worker's lock is free then.

    Raises:
        UserError: the first trials have all failed.
    """
    while True:
        with trials.claim() as claim:
            if claim is None:
                return 0
            if not _try(claim, objective):
                return EXIT_REQUEUE
            if not trials.config.keep_checkpoints:
                for folder in claim.folder.glob("runs/*/checkpoints"):
                    shutil.rmtree(folder)
            print(report.line(claim.study, claim.number, metric), flush=True)
            finished = [one for one in claim.study.trials if one.state.is_finished()]
            if len(finished) >= MANY_FAILED and all(one.state == TrialState.FAIL for one in finished):
                raise UserError(f"{trials.folder}: every trial fails; the last: {finished[-1].user_attrs['error']}")


def _try(claim: Claim, objective: Objective) -> bool:
    """Train a trial and say what came of it; False where a signal stopped it, so that it is to be gone on with."""
    if claim.pruned:  # and its worker was lost before it could say so
        claim.prune()
        return True
    try:
        best = objective(claim)
    except UserError as error:
        claim.fail(str(error))
        return True
    if best is not None:
        claim.finish(value=best[1], step=best[0])
    elif claim.pruned:
        claim.prune()
    else:
        return False
    return True


@dataclass(frozen=True)
class Finetuning:
    """The objective: a fine-tuning in the trial's folder, scored on valid."""

    base: FinetuneConfig
    metric: str

    def __call__(self, claim: Claim) -> tuple[int, float] | None:
        """Train, with all that it prints in a log beside the trial's folder.

        Raises:
            UserError: the values do not go together, the loss is not finite, or memory is short.
        """
        config = replace(
            changed(self.base, claim.values),
            out=str(claim.folder),
            init=self.base.init[:1],
            seeds=self.base.seeds[:1],
        )
        with (
            claim.folder.with_suffix(".log").open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            try:
                best = train_one(make_plan(config), lambda evaluator: Watched(evaluator, self.metric, claim))
            except torch.OutOfMemoryError as error:
                raise UserError(f"out of memory: {error}") from None
        return None if isinstance(best, int) else best


@dataclass(frozen=True)
class Watched:
    """An Evaluator that reports to the trial, and asks the trainer to stop as a scheduler would: it logs the figures,
    saves a step and leaves."""

    inner: Evaluator
    metric: str
    claim: Claim

    @property
    def name(self) -> str:
        """Prefix of its figures in metrics.jsonl."""
        return self.inner.name

    def evaluate(self, step: int) -> Mapping[str, float]:
        """The figures of the evaluator within."""
        figures = self.inner.evaluate(step)
        if self.claim.report(step, figures[self.metric]):
            signal.raise_signal(STOP_SIGNALS[0])
        return figures


def _plan(base: FinetuneConfig) -> Plan:
    """The base's, which finds out what would keep every trial from training, or from being worth anything.

    Raises:
        UserError: as `make_plan`; several divisions.
    """
    plan = make_plan(base)
    if (number := len(plan.data.divisions)) > 1:
        raise UserError(
            f"split: {base.split} has {number} divisions, and a search chooses on one: give a fold, as "
            f"overrides.split={base.split}/1, and keep in mind that other folds test clips which the search has seen"
        )
    return plan


def _open(trials: Trials, base: FinetuneConfig) -> None:
    """Make the folder, or find it made by the same search; only the number of trials may change.

    Raises:
        UserError: it is another's; the message has what differs.
    """
    out, config = trials.folder, trials.config
    with trials.alone():
        files = (out / "search.yaml", out / "base.yaml")
        if not files[1].is_file():
            if any(path.name not in (".lock", files[0].name) for path in out.iterdir()):
                raise UserError(f"{out}: is in use by something else; give an empty or new folder")
            write_atomically(files[0], configs.dump(config))
            write_atomically(files[1], configs.dump(base))
            return
        may_change = {"out", "trials", "keep_checkpoints"}
        for file, now in zip(files, (config, base), strict=True):
            old = configs.flatten(configs.to_dict(configs.load(type(now), file)))
            new = configs.flatten(configs.to_dict(now))
            keys = sorted(key for key in {*old, *new} - may_change if old.get(key) != new.get(key))
            if keys:
                told = "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys)
                raise UserError(f"{out}: began with another {file.stem} ({told}); give another folder")
