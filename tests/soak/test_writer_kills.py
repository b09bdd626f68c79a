"""Shards that a writer was killed over again and again are those of one that nothing stopped, to the byte."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shards import check
from shards.reading.index import load_manifest

pytestmark = [pytest.mark.soak, pytest.mark.dist, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


def test_twenty_kills_leave_the_same_shards(trials, random, record_property, tmp_path: Path) -> None:
    config = ["synthetic", f"corpus.synthetic.root={tmp_path}/raw", "corpus.synthetic.num_clips=240"]
    config += ["corpus.synthetic.num_speakers=24", "samples_per_shard=2", "workers=2"]
    whole = tmp_path / "whole"
    assert start("write", *config, f"out={whole}", log=tmp_path / "log").wait(600) == 0, (tmp_path / "log").read_text()
    began, kills, sets, wanted = time.monotonic(), list[str](), [tmp_path / "set-0"], trials(20)
    while len(kills) < wanted:
        out = sets[-1]
        part = [f"part={random.integers(1, 4)}/3"] if random.random() < 0.5 else []  # in any order, and all of it
        moment = kill_at_some_moment(["write", *config, f"out={out}", *part], out, random, tmp_path / "log")
        kills += [] if moment == "too late" else [moment]
        if (out / "manifest.json").exists():  # on a fast machine several sets are written under the kills
            assert files(out) == files(whole)
            sets.append(tmp_path / f"set-{len(sets)}")
    out = sets[-1]
    for place in range(1, 4):  # what is left, by parts
        writer = start("write", *config, f"out={out}", f"part={place}/3", log=tmp_path / "log")
        assert writer.wait(600) == 0, (tmp_path / "log").read_text()[-4000:]
    kill_at_some_moment(["merge", str(out)], out, random, tmp_path / "log")
    assert start("merge", str(out), log=tmp_path / "log").wait(600) == 0, (tmp_path / "log").read_text()[-4000:]

    assert files(out) == files(whole)
    assert check.inspect(out, load_manifest(out), quiet=True).problems == []
    record_property(
        "measured", f"writer killed at shard {', '.join(kills)} of {len(sets)} sets; {time.monotonic() - began:.0f} s"
    )


def start(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("a") as said:
        return subprocess.Popen([sys.executable, "-m", "shards", *arguments], cwd=ROOT, stdout=said, stderr=said)


def kill_at_some_moment(command: list[str], out: Path, random: np.random.Generator, log: Path) -> str:
    """Start it and kill it, some time after it started or wrote one to three more shards; how many there were then."""
    wanted = int(random.choice([0, 1, 2, 3], p=[0.3, 0.3, 0.2, 0.2]))
    before = len(list(out.glob("work/*.report.json")))
    writer = start(*command, log=log)
    while writer.poll() is None and len(list(out.glob("work/*.report.json"))) < before + wanted:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.5 if wanted else 4))
    done = writer.poll() is not None
    writer.send_signal(signal.SIGTERM if random.random() < 0.3 else signal.SIGKILL)
    writer.wait(60)
    return "too late" if done else str(len(list(out.glob("work/*.report.json"))))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
