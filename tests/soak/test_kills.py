"""A run that is stopped again and again, at any moment and in any way, gives the curve of one that nothing stopped."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.soak, pytest.mark.dist, pytest.mark.timeout(900)]

STEPS = 240
CURVE = (f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=5", "trainer.evaluate_every=40")


def test_twenty_kills_leave_no_seam(demo, trials, random, record_property, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    done = demo.run(whole, *CURVE)
    assert done.returncode == 0, done.stderr
    started, stops = time.monotonic(), []
    for number in range(wanted := trials(20)):
        stops.append(stop(demo, killed, random, while_it_starts=number % 4 == 3))
        if stops[-1] == "done":
            break
    assert len(stops) > wanted / 2, "the run was done before it was stopped often enough: raise STEPS"
    done = demo.run(killed, *CURVE)
    assert done.returncode == 0, (killed / "log").read_text()[-4000:] + done.stderr
    assert demo.logged(killed) == demo.logged(whole)
    encoders = [folder / "run" / "encoder" / "model.safetensors" for folder in (whole, killed)]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    record_property("measured", f"stopped after {', '.join(stops)}; {time.monotonic() - started:.0f} s")


def stop(demo, runs: Path, random: np.random.Generator, *, while_it_starts: bool) -> str:
    """Start the run and stop it at some moment, with a signal that it can answer or one that it cannot."""
    before = starts(runs)
    torchrun = demo.start(runs, *CURVE)
    if not while_it_starts:
        deadline = time.monotonic() + 120
        while starts(runs) == before and torchrun.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    time.sleep(random.uniform(0, 6 if while_it_starts else 3))
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


def starts(runs: Path) -> int:
    """How often the run was started so far."""
    file = runs / "run" / "environment.json"
    return len(json.loads(file.read_text())) if file.is_file() else 0
