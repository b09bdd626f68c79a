"""The command itself, from generated clips to an exported encoder, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych.models.load import load

ROOT = Path(__file__).parents[2]
STEPS = 24
SMALL = (
    f"trainer.max_steps={STEPS}",
    "trainer.log_every=1",
    "trainer.checkpoint_every=4",
    "trainer.evaluate_every=6",
    "encoder.cross_modal.transformer.width=32",
    "encoder.cross_modal.transformer.layers=1",
)
TIMES = {"time_s", "samples_per_s", "data_wait_share"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated shard set."""
    folder = tmp_path_factory.mktemp("clips")
    arguments = [f"corpus.synthetic.root={folder}/raw", "corpus.synthetic.num_clips=40", f"out={folder}/shards"]
    command = [sys.executable, "-m", "shards", "write", "synthetic", *arguments, "corpus.synthetic.num_speakers=10"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=250, capture_output=True)
    return folder / "shards"


def command(shards: Path, runs: Path, *overrides: str, processes: int = 2) -> list[str]:
    program = ["-m", "pretrain", "demo", f"stream.shards={shards}", f"runs={runs}", "name=run", *SMALL, *overrides]
    if processes == 1:
        return [sys.executable, *program]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *program]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=280)


def curve(folder: Path) -> list[dict[str, float]]:
    """Everything that was logged, less the clock."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(command(shards, folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_ends_with_metrics_tensorboard_checkpoints_and_an_encoder_that_loads(whole: Path) -> None:
    folder = whole / "run"
    steps = [line["step"] for line in curve(whole) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))
    assert [line["step"] for line in curve(whole) if "valid/loss/masked_lm" in line] == [6, 12, 18, 24]
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json").is_file()
    assert set(load(folder / "encoder").widths) == {"text", "audio", "video", "fused"}


@pytest.mark.slow
@pytest.mark.dist
def test_after_sigkill_the_same_command_gives_the_same_curve_to_the_last_bit(
    shards: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = command(shards, tmp_path)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log)
        saved = tmp_path / "run" / "checkpoints" / "step-00000004"
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and not saved.is_dir():
            time.sleep(0.02)
        # torchrun gives each rank a session of its own, so that killing its group would leave the ranks at work
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in (process.pid, *map(int, ranks)):
            os.kill(number, signal.SIGKILL)
        process.wait()
    assert saved.is_dir(), (tmp_path / "log").read_text()
    assert len(ranks) == 2
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stderr, done.stderr
    assert curve(tmp_path) == curve(whole)


@pytest.mark.slow
@pytest.mark.dist
def test_world_size_and_accumulation_change_nothing_but_rounding(shards: Path, whole: Path, tmp_path: Path) -> None:
    """Without dropout, one process that accumulates sees the same losses as two that do not."""
    two, one = tmp_path / "two", tmp_path / "one"
    quiet = "encoder.cross_modal.transformer.dropout=0"
    for folder, processes, micro in ((two, 2, 8), (one, 1, 4)):
        done = run(command(shards, folder, quiet, f"stream.micro_batch={micro}", processes=processes))
        assert done.returncode == 0, done.stderr
    losses = [[line["loss"] for line in curve(folder) if "loss" in line] for folder in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.dist
def test_mistakes_end_in_one_message(shards: Path, whole: Path, tmp_path: Path) -> None:
    cases = {
        "engine.zero_stag=2": "Did you mean: 'zero_stage'",
        "stream.global_batch=1": "global_batch 1 is less than the number of ranks (2)",
        "stream.global_batch=500": "lower global_batch to at most",
        "stream.shards=nowhere": "nowhere: is not there; a shard set is the folder that",
        "encoder.cross_modal.anchor=audio": "objectives.masked_lm",
    }
    for override, message in cases.items():
        processes = 2 if "ranks" in message else 1
        done = run(command(shards, tmp_path, override, processes=processes))
        assert done.returncode != 0, override
        assert message in done.stderr, (override, done.stderr)
        assert not (tmp_path / "run").exists(), override
        if processes == 1:  # torchrun adds its own account of which process failed
            assert "Traceback" not in done.stderr, done.stderr
    done = run(command(shards, whole, "optimizer.lr=0.5", processes=1))
    assert done.returncode == 2
    assert "started with another config (optimizer.lr: 0.001 -> 0.5)" in done.stderr
