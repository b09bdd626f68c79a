"""A writer that is killed at any moment leaves nothing that changes the shards, and nothing running."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.dist, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def start(root: Path, out: Path) -> subprocess.Popen[bytes]:
    overrides = [f"corpus.voxceleb2.root={root}", "corpus.voxceleb2.metadata=null", "split.by=speaker"]
    overrides += [f"out={out}", "samples_per_shard=3", "workers=2", "split.train=0.5", "split.valid=0.25"]
    command = [sys.executable, "-m", "shards", "write", "grid", *overrides, "split.test=0.25"]
    with (out.parent / "log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def children(pid: int) -> set[int]:
    """Of a process, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def test_killed_writers_leave_no_seam_and_no_children(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(speakers=8, clips=6), tmp_path / "out"
    whole = tmp_path / "whole"
    assert start(root, whole).wait(timeout=250) == 0
    random, left = np.random.default_rng(0), set()

    for reports in (0, 3, 7):  # it gets further each time
        writer = start(root, out)
        deadline = time.monotonic() + 120
        while len(list(out.glob("work/*.report.json"))) < reports and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.0 if reports else random.uniform(0, 1))  # before it opens a clip, or while it opens the next ones
        assert writer.poll() is None, (tmp_path / "log").read_text()
        left |= children(writer.pid)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()

    assert start(root, out).wait(timeout=250) == 0, (tmp_path / "log").read_text()
    assert files(out) == files(whole)
    assert left
    deadline = time.monotonic() + 30
    while any(Path("/proc", str(pid)).exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in left if Path("/proc", str(pid)).exists()]
