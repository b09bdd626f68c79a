"""A run that is stopped again and again, at any moment and in any way, gives the curve of one that nothing stopped."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.soak, pytest.mark.dist, pytest.mark.timeout(1800)]

STEPS = 240
CURVE = (f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=5", "trainer.evaluate_every=40")

MOMENTS = ("training", "launched", "training", "opened")
"""What the stop follows by up to some seconds."""


def test_twenty_kills_leave_no_seam(demo, trials, random, record_property, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    done = demo.launch(whole, *CURVE, timeout_s=600)
    assert done.returncode == 0, done.stderr
    started, stops = time.monotonic(), []
    for number in range(wanted := trials(20)):
        stops.append(stop(demo, killed, random, MOMENTS[number % len(MOMENTS)]))
        if stops[-1] == "done":
            break
    assert len(stops) > wanted / 2, "the run was done before it was stopped often enough: raise STEPS"
    done = demo.launch(killed, *CURVE, timeout_s=600)
    assert done.returncode == 0, (killed / "log").read_text()[-4000:] + done.stderr
    assert demo.logged(killed) == demo.logged(whole)
    encoders = [folder / "run" / "encoder" / "model.safetensors" for folder in (whole, killed)]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    record_property("measured", f"stopped after {', '.join(stops)}; {time.monotonic() - started:.0f} s")


def stop(demo, runs: Path, random: np.random.Generator, moment: str) -> str:
    """Start the run and stop it at some moment, with a signal that it can answer or one that it cannot."""
    growing = {"opened": "environment.json", "training": "metrics.jsonl"}.get(moment)
    size, deadline = length(runs, growing), time.monotonic() + 120
    torchrun = demo.start(runs, *CURVE)
    while growing and torchrun.poll() is None and time.monotonic() < deadline:
        size, before = length(runs, growing), size
        if size > before:
            break
        time.sleep(0.01)
    time.sleep(random.uniform(0, {"launched": 8, "opened": 4, "training": 2}[moment]))
    if torchrun.poll() is not None:
        assert torchrun.returncode == 0, (runs / "log").read_text()[-4000:]
        return "done"
    steps = max((line["step"] for line in demo.logged(runs)), default=0)
    if random.random() < 0.5:
        demo.kill(torchrun)
        return f"{steps:.0f} KILL"
    torchrun.send_signal(signal.SIGTERM)  # which torchrun passes on
    try:
        torchrun.wait(timeout=60)
    finally:
        demo.kill(torchrun)
    return f"{steps:.0f} TERM"


def length(runs: Path, name: str | None) -> int:
    """Of a file of the run; a run that continues cuts its metrics first, and then they grow."""
    file = runs / "run" / (name or "none")
    return file.stat().st_size if file.is_file() else 0
