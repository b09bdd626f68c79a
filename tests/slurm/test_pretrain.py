"""slurm/pretrain.sbatch with the real program, on two nodes of a real Slurm."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.dist]

SCRIPT = Path(__file__).parents[2] / "slurm" / "pretrain.sbatch"
STEPS = 60
"""Enough that the signal comes while it trains."""
LONG = (f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=30", "trainer.evaluate_every=60")


@pytest.fixture(scope="module")
def whole(slurm, demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    job = submit(slurm, demo, folder)
    slurm.finish(job, timeout_s=200, log=folder / f"pretrain-{job}.log")
    return folder


def test_one_run_on_two_nodes(demo, whole: Path) -> None:
    assert [line["step"] for line in demo.logged(whole) if "loss" in line] == list(range(1, STEPS + 1))
    assert [start["world_size"] for start in starts(whole)] == [2]


def test_a_preempted_run_comes_back_without_a_seam(slurm, demo, whole: Path, tmp_path: Path) -> None:
    job = submit(slurm, demo, tmp_path)
    log = tmp_path / f"pretrain-{job}.log"
    slurm.wait(job, lambda _: len(demo.logged(tmp_path)) > 2, timeout_s=150, log=log)
    slurm.run("scancel", "--signal=USR1", job)
    assert slurm.finish(job, timeout_s=250, log=log)["Restarts"] == "1"
    assert len(starts(tmp_path)) == 2
    assert demo.logged(tmp_path) == demo.logged(whole)


def submit(slurm, demo, folder: Path) -> str:
    tasks = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
    return slurm.submit(*tasks, str(SCRIPT), *demo.arguments(folder, *LONG), cwd=folder)


def starts(runs: Path) -> list[dict[str, int]]:
    """Where the run was started, each time."""
    found: list[dict[str, int]] = json.loads((runs / "run" / "environment.json").read_text())
    return found
