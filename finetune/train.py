"""Fine-tuning from end to end: train every row, seed and fold, take the best step on valid, score held-out clips."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from finetune import outcome, report
from finetune.config import FinetuneConfig
from finetune.evaluation import Said, Scored, ScoreEvaluator, predict
from finetune.outcome import Best, Outcome, Run
from finetune.plan import Part, Plan, make_plan
from finetune.trained_weights import rates_of
from triptych import config as configs
from triptych import provenance
from triptych.config import UserError
from triptych.files import sha256_of
from triptych.models.load import save_encoder
from triptych.training import distributed as launch
from triptych.training.checkpoint import Checkpoints
from triptych.training.distributed import Distributed
from triptych.training.engine import Engine
from triptych.training.run import RunFolder
from triptych.training.task import Evaluator
from triptych.training.trainer import Trainer

MAY_CHANGE = ("out", "shards", "cache", "workers")
"""Of the config, at a later start: the same clips in another place, read by other processes."""


def run(config: FinetuneConfig) -> int:
    """Fine-tune and write the report; the same config goes on with what was interrupted.

    Returns:
        0, or triptych.training.trainer.EXIT_REQUEUE where a signal stopped it.

    Raises:
        UserError: as of `make_plan`; a finished report in the folder; a run that cannot go on.
    """
    plan, distributed = make_plan(config), launch.init()
    try:
        distributed.agree(
            {
                "shard set (manifest)": sha256_of(plan.data.shard_set.manifest.to_json()),
                "config": sha256_of(configs.to_dict(config)),
                "version of the code": f"{provenance.version()} {provenance.commit()}",
            }
        )
        distributed.on_main(lambda: _open(config))
        outcomes: dict[Run, list[Outcome]] = {}
        for share in plan.shares:
            for init in config.init:
                for seed in config.seeds:
                    found = _train_all(plan, distributed, Run(init, share, seed))
                    if isinstance(found, int):
                        return found
                    outcomes[Run(init, share, seed)] = found
        if distributed.is_main:
            report.write(plan, outcomes, Path(config.out))
            print(f"report: {config.out}/report.md")
    finally:
        distributed.shutdown()
    return 0


def train_one(plan: Plan, watched: Callable[[Evaluator], Evaluator]) -> tuple[int, float] | int:
    """Train the first row and seed on the first division and nothing else, as a search does; test clips are not read.

    Args:
        plan: whose config's folder goes on with what was interrupted there.
        watched: makes the evaluator that takes the place of the usual one on valid.

    Returns:
        The step that valid chose and its score; triptych.training.trainer.EXIT_REQUEUE where the run was asked to stop.

    Raises:
        UserError: as `run`.
    """
    config, distributed = plan.config, launch.init()
    try:
        distributed.on_main(lambda: _open(config))
        part, first = plan.parts[1.0][0], Run(config.init[0], 1.0, config.seeds[0])
        fitted = _fit(plan, part, _folder(plan, part, distributed, first), first, watched)
        return fitted if isinstance(fitted, int) else fitted.best
    finally:
        distributed.shutdown()


def _open(config: FinetuneConfig) -> None:
    out = Path(config.out)
    if (out / "report.md").exists():
        raise UserError(f"{out}: holds a finished report; give another folder, or remove it")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "config.yaml").exists())):
        raise UserError(f"{out}: is in use by something else; give an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")


def _train_all(plan: Plan, distributed: Distributed, run: Run) -> list[Outcome] | int:
    """A run's outcome for each division; an exit code where it was asked to stop."""
    outcomes = []
    for part in plan.parts[run.share]:
        if distributed.is_main:
            where = [part.division.name] if len(plan.data.divisions) > 1 else []
            where += [f"{100 * run.share:g} % of the labels"] if run.share < 1 else []
            print(", ".join([plan.config.title(run.init), f"seed {run.seed}", *where]))
        found = _train(plan, part, distributed, run)
        if isinstance(found, int):
            return found
        outcomes.append(found)
    return outcomes


@dataclass(frozen=True)
class _Fitted:
    """A trained run at the step that valid chose."""

    engine: Engine
    best: Best


def _train(plan: Plan, part: Part, distributed: Distributed, run: Run) -> Outcome | int:
    """One run, and what it says of the test clips; an exit code where it was asked to stop.

    What it said at an earlier start is taken from its folder, and where that is everything, nothing is built.
    """
    folder, conditions = _folder(plan, part, distributed, run), plan.conditions(run)

    def kept() -> tuple[Best | None, dict[str, Said]]:
        wanted = {name: condition.sha256 for name, condition in conditions.items()}
        return outcome.read_best(folder.path), outcome.kept(folder.path, wanted, part.keys["test"])

    best, said = distributed.on_main(kept)
    if best is None or len(said) < len(conditions):
        fitted = _fit(plan, part, folder, run, lambda evaluator: evaluator)
        if isinstance(fitted, int):
            return fitted
        best, (_, said) = fitted.best, distributed.on_main(kept)  # trained again, valid may have chosen another step
        for name, condition in conditions.items():
            if name not in said:
                test = plan.eval_loader(part, "test", distributed, condition.words)
                said[name] = predict(fitted.engine, test, condition.shown)
                distributed.on_main(partial(outcome.keep, folder.path, name, condition.sha256, best, said[name]))
    return Outcome(best=best, said=said)


def _fit(
    plan: Plan, part: Part, folder: RunFolder, run: Run, watched: Callable[[Evaluator], Evaluator]
) -> _Fitted | int:
    """Train, and load the step that valid chose; an exit code where it was asked to stop."""
    config, distributed = plan.config, folder.distributed
    task = plan.task(part, run.init, run.seed)
    training = config.encoder_training(run.init)
    loader = plan.train_loader(part, run.seed, distributed)
    engine = config.engine.build(
        task,
        distributed,
        optimizer=config.optimizer,
        num_micro_batches=loader.num_micro_batches,
        max_steps=config.trainer.max_steps,
        seed=run.seed,
        rates={f"encoder.{name}": rate for name, rate in rates_of(task.encoder, training).items()},
    )
    valid = plan.eval_loader(part, "valid", distributed)

    def save(folder: Path, state: Mapping[str, Tensor]) -> None:
        save_encoder(task.encoder, folder, state)

    scored = Scored.of(plan.data.truth, part.keys["valid"])
    trainer = Trainer(
        engine,
        loader,
        folder,
        replace(
            config.trainer,
            best_metric=f"valid/{plan.data.protocol.select}",
            best_is="lowest" if plan.data.protocol.select_lowest else "highest",
        ),
        save_encoder=save,
        evaluators=[watched(ScoreEvaluator("valid", engine, valid, plan.data.protocol, scored))],
    )
    if code := trainer.train():
        return code
    best = distributed.on_main(lambda: outcome.read_best(folder.path))
    assert best is not None  # the trainer has evaluated
    checkpoints = Checkpoints(folder.checkpoints, config.trainer.keep_checkpoints, distributed)
    engine.load_state(checkpoints.load(best.step)[0])
    return _Fitted(engine, best)


def _folder(plan: Plan, part: Part, distributed: Distributed, run: Run) -> RunFolder:
    """The run's own, which tells its config and its clips."""
    config, init, seed = plan.config, run.init, run.seed
    # without what does not change the run, so that a seed, a share or a row can be added later
    own = replace(
        config,
        init=[init],
        seeds=[seed],
        label_shares=[run.share] if run.share < 1 else [],
        best_of=0,
        missing=True,
        transcripts={},
    )
    path = Path(config.out) / "runs"
    if len(plan.data.divisions) > 1:
        path /= part.division.name.replace("/", "-")
    if run.share < 1:
        path /= f"labels-{run.share:g}"
    folder = RunFolder.open(path / f"{init}-seed-{seed}", own, distributed, (*MAY_CHANGE, "num_resamples"))
    shard_set = plan.data.shard_set
    folder.keep("data.json", json.dumps(shard_set.identity, indent=1) + "\n", f"other shards than {shard_set.location}")
    divided = dict.fromkeys([part.division.name], part.division.facts["split SHA-256"])
    model = json.dumps(plan.opened.identity, indent=1) + "\n"
    folder.keep("encoder.json", model, f"another encoder than {config.encoder} is now")
    folder.keep("division.json", json.dumps(divided, indent=1) + "\n", "otherwise divided clips")
    return folder
