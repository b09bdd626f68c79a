"""Probe the checkpoints of a pretraining that is under way, on the validation clips alone, into its TensorBoard.

The test split is for the end: nothing here reads its labels, so that the checkpoint which a curve recommends can still
be tested once.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from linear_probe.config import ProbeConfig
from linear_probe.plan import make_plan
from triptych.config import UserError
from triptych.training.run import read_metrics

POLL_S = 20.0


def watch(config: ProbeConfig) -> list[dict[str, Any]]:
    """Probe every checkpoint that is there or appears, until the run has ended and all are done; then, or after a stop,
    the same command goes on with those that are not done.

    Returns:
        A {"step": ..., "probe/<row>": score on valid, ...} for each checkpoint, those of earlier calls included. They
        are appended to probe.jsonl in the run's folder, and drawn by TensorBoard from tensorboard/probe.

    Raises:
        UserError: no such run, or what `linear_probe.probe.run` raises.
    """
    run = Path(config.watch)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: no run here (config.yaml is missing); give watch=runs/<name>")
    if config.encoder or config.encoders or config.out:
        raise UserError("watch: probes the encoders of the run's checkpoints; leave encoder, encoders and out away")
    log = run / "probe.jsonl"
    while True:
        ended = (run / "encoder").is_dir()  # asked first: what the run saves at its end is then found below
        done = {row["step"] for row in _rows(log)}
        waiting = [step for step in _checkpoints(run) if step not in done]
        for step in waiting:
            figures = _probe(config, run, step, with_baselines=not _rows(log))
            if figures is not None:
                _write(run, log, step, figures)
        if ended:
            return _rows(log)
        if not waiting:
            time.sleep(POLL_S)


def _probe(config: ProbeConfig, run: Path, step: int, with_baselines: bool) -> dict[str, float] | None:
    """Row -> score on valid; None where the run has meanwhile removed the checkpoint."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(folder) / "encoder"
        try:
            shutil.copytree(_folder(run, step) / "encoder", encoder)
        except FileNotFoundError:
            return None
        for name, scored in config.scored().items():
            plan = make_plan(replace(config, watch="", encoder=str(encoder), missing=False), scored)
            if not with_baselines:
                plan = replace(plan, rows=plan.encoder_rows)
            study = plan.study()
            for row in plan.rows:
                figures["/".join(filter(None, ("probe", name, row.title)))] = study.learn(row).valid_score
    return figures


def _write(run: Path, log: Path, step: int, figures: Mapping[str, float]) -> None:
    from torch.utils.tensorboard import SummaryWriter  # a second, and only where it is written

    with SummaryWriter(str(run / "tensorboard" / "probe")) as board:
        for name, value in figures.items():
            board.add_scalar(name, value, step)
    with log.open("a") as file:
        file.write(json.dumps({"step": step, **figures}) + "\n")
    print(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)


def _checkpoints(run: Path) -> list[int]:
    """Steps of whole checkpoints, in order."""
    found = (run / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _rows(log: Path) -> list[dict[str, Any]]:
    return read_metrics(log) if log.is_file() else []
