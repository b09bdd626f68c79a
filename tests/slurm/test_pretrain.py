"""slurm/pretrain.sbatch with the real program, on two nodes of a real Slurm."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.dist, pytest.mark.xdist_group("slurm")]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "slurm" / "pretrain.sbatch"
STEPS = 40
"""Enough that the signal comes while it trains."""
TRAINER = (f"trainer.max_steps={STEPS}", "trainer.log_every=1", "trainer.checkpoint_every=10")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated shard set."""
    folder = tmp_path_factory.mktemp("clips")
    synthetic = (f"corpus.synthetic.root={folder}/raw", "corpus.synthetic.num_clips=48", f"out={folder}/shards")
    command = [sys.executable, "-m", "shards", "write", "synthetic", *synthetic, "corpus.synthetic.num_speakers=12"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=250)
    return folder / "shards"


@pytest.fixture(scope="module")
def whole(slurm, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    job = submit(slurm, clips, folder)
    slurm.finish(job, timeout_s=200, log=folder / f"pretrain-{job}.log")
    return folder / "run"


def test_one_run_on_two_nodes(whole: Path) -> None:
    assert [line["step"] for line in metrics(whole)] == list(range(1, STEPS + 1))
    assert json.loads((whole / "environment.json").read_text())["world"] == 2


def test_a_preempted_run_comes_back_without_a_seam(slurm, clips: Path, whole: Path, tmp_path: Path) -> None:
    job = submit(slurm, clips, tmp_path)
    log = tmp_path / f"pretrain-{job}.log"
    slurm.wait(job, lambda _: len(metrics(tmp_path / "run")) > 2, timeout_s=150, log=log)
    slurm.run("scancel", "--signal=USR1", job)
    assert slurm.finish(job, timeout_s=250, log=log)["Restarts"] == "1"
    assert [(line["step"], line["loss"]) for line in metrics(tmp_path / "run")] == [
        (line["step"], line["loss"]) for line in metrics(whole)
    ]


def submit(slurm, clips: Path, folder: Path) -> str:
    arguments = ("demo", f"stream.shards={clips}", f"runs={folder}", "name=run", *TRAINER)
    return slurm.submit("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", str(SCRIPT), *arguments, cwd=folder)


def metrics(run: Path) -> list[dict[str, float]]:
    """The whole lines of metrics.jsonl so far."""
    file = run / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
