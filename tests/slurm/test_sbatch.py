"""slurm/pretrain.sbatch alone: a stub stands where `python -m pretrain` would be found."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "pretrain.sbatch"

STUB = """
import os, signal, sys, time

rank, restarts = int(os.environ["SLURM_PROCID"]), int(os.environ.get("SLURM_RESTART_COUNT", 0))
def save(number, frame):
    with open(f"saved-{rank}.txt", "a") as file:
        print(signal.Signals(number).name, file=file)
    sys.exit(75)

signal.signal(signal.SIGUSR1, save)
signal.signal(signal.SIGTERM, save)
address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
with open(f"rank-{rank}.txt", "a") as file:
    print(restarts, os.environ["SLURM_NTASKS"], address, port, *sys.argv[1:], file=file)
if sys.argv[1] == "fail":
    sys.exit(3)
while restarts == 0 and sys.argv[1] == "wait":
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("stop", "signal"), [(("scancel", "--signal=USR1"), "SIGUSR1"), (("scontrol", "requeue"), "SIGTERM")]
)
def test_a_stopped_job_queues_again_and_finishes(slurm, tmp_path: Path, stop: tuple[str, str], signal: str) -> None:
    job = submit(slurm, tmp_path, "wait", "optimizer.lr=1e-3")
    ranks = [tmp_path / f"rank-{rank}.txt" for rank in (0, 1)]
    log = tmp_path / f"pretrain-{job}.log"
    slurm.wait(job, lambda _: all(rank.exists() and rank.read_text() for rank in ranks), timeout_s=60, log=log)
    slurm.run(*stop, job)
    slurm.wait(job, lambda state: state["Restarts"] == "1", timeout_s=60, log=log)
    state = slurm.finish(job, timeout_s=60, log=log)
    assert state["Restarts"] == "1"
    assert state["Requeue"] == "1"
    assert [(tmp_path / f"saved-{rank}.txt").read_text().split() for rank in (0, 1)] == [[signal]] * 2
    for rank in ranks:
        starts = [line.split() for line in rank.read_text().splitlines()]
        assert [start[0] for start in starts] == ["0", "1"]
        assert all(start[1] == "2" and start[4:] == ["wait", "optimizer.lr=1e-3"] for start in starts)
    assert ranks[0].read_text() == ranks[1].read_text(), "ranks disagree on where rank 0 listens"


def test_a_failed_run_fails_the_job_with_its_code(slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "fail")
    log = tmp_path / f"pretrain-{job}.log"
    state = slurm.wait(job, lambda state: state["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 60, log)
    assert (state["JobState"], state["ExitCode"], state["Restarts"]) == ("FAILED", "3:0", "0")


def test_without_a_config_it_says_how_to_use_it(slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path)
    log = tmp_path / f"pretrain-{job}.log"
    state = slurm.wait(job, lambda state: state["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 60, log)
    assert state["ExitCode"] == "2:0"
    assert "usage: sbatch" in log.read_text()


def submit(slurm, folder: Path, *arguments: str) -> str:
    (folder / "pretrain.py").write_text(STUB)
    return slurm.submit("--nodes=2", "--ntasks-per-node=1", str(SCRIPT), *arguments, cwd=folder)
