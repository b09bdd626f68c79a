"""slurm/shards.sbatch: as an array with the real program, and alone with a stub in its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "slurm" / "shards.sbatch"

STUB = """
import os, signal, sys, time

print(*sys.argv[1:], file=open(f"started-{os.environ['SLURM_ARRAY_TASK_ID']}.txt", "a"), flush=True)
while os.environ["SLURM_ARRAY_TASK_ID"] == "2" and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
    time.sleep(0.1)
"""


def test_the_bash_is_bash() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False, timeout=20).returncode == 0


@pytest.mark.slow
@pytest.mark.dist
def test_an_array_and_its_merge_write_what_one_process_writes(slurm, tmp_path: Path) -> None:
    config = ["synthetic", f"corpus.synthetic.root={tmp_path}/raw", "corpus.synthetic.num_clips=24"]
    config += ["corpus.synthetic.num_speakers=8", "samples_per_shard=3"]
    write = [sys.executable, "-m", "shards", "write", *config]
    for overrides in ([f"out={tmp_path}/whole"], [f"out={tmp_path}/out", "check=true"]):
        subprocess.run([*write, *overrides], cwd=ROOT, check=True, timeout=250, capture_output=True)

    array = slurm.submit("--array=1-2", "--cpus-per-task=1", str(SCRIPT), *config, f"out={tmp_path}/out", cwd=tmp_path)
    merge = ("--wrap", f"python -m shards merge {tmp_path}/out", f"--output={tmp_path}/merge.log")
    merging = slurm.submit(f"--dependency=afterok:{array}", *merge, cwd=tmp_path)

    for task in (1, 2):
        slurm.finish(f"{array}_{task}", timeout_s=200, log=tmp_path / f"shards-{array}_{task}.log")
    slurm.finish(merging, timeout_s=100, log=tmp_path / "merge.log")
    whole, out = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "out"))
    manifests = [json.loads(files.pop("manifest.json")) for files in (whole, out)]
    assert manifests[0] == manifests[1]
    assert whole == out


def test_a_task_that_runs_out_of_time_queues_again_alone(slurm, tmp_path: Path) -> None:
    (tmp_path / "shards.py").write_text(STUB)
    array = slurm.submit("--array=1-2", "--cpus-per-task=1", str(SCRIPT), "grid", "out=a b", cwd=tmp_path)
    started, log = tmp_path / "started-2.txt", tmp_path / f"shards-{array}_2.log"
    slurm.wait(f"{array}_2", lambda _: started.exists() and started.read_text() != "", timeout_s=60, log=log)

    slurm.run("scancel", "--batch", "--signal=USR1", f"{array}_2")

    assert slurm.finish(f"{array}_1", timeout_s=60, log=tmp_path / f"shards-{array}_1.log")["Restarts"] == "0"
    slurm.wait(f"{array}_2", lambda state: state["Restarts"] == "1", timeout_s=60, log=log)
    slurm.finish(f"{array}_2", timeout_s=60, log=log)
    assert started.read_text() == "write grid workers=1 out=a b part=2/2\n" * 2


@pytest.mark.parametrize("array", [[], ["--array=2-3"], ["--array=1,3"]])
def test_an_array_that_would_leave_something_out_is_refused(slurm, tmp_path: Path, array: list[str]) -> None:
    job = slurm.submit(*array, "--output=log", str(SCRIPT), "grid", cwd=tmp_path)
    first = f"{job}_{array[0][8]}" if array else job
    log = tmp_path / "log"
    state = slurm.wait(first, lambda state: state["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 60, log)
    assert state["ExitCode"] == "2:0"
    assert "usage: sbatch --array=1-N" in log.read_text()


def test_a_task_may_add_features(slurm, tmp_path: Path) -> None:
    (tmp_path / "shards.py").write_text(STUB)
    array = slurm.submit("--array=1-1", "--cpus-per-task=1", str(SCRIPT), "features", "SET", "out=new", cwd=tmp_path)

    slurm.finish(f"{array}_1", timeout_s=60, log=tmp_path / f"shards-{array}_1.log")

    assert (tmp_path / "started-1.txt").read_text() == "features SET workers=1 out=new part=1/1\n"
