"""The cluster of the tests is a cluster: two tasks on two nodes, and a job that queues again."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm


def test_two_nodes_run_one_task_each(slurm, tmp_path: Path) -> None:
    script = tmp_path / "ranks.sbatch"
    script.write_text("#!/bin/bash\nsrun bash -c 'echo \"rank $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME\"'\n")
    job = slurm.submit("--nodes=2", "--ntasks-per-node=1", "--output=log", str(script), cwd=tmp_path)
    slurm.finish(job, timeout_s=60, log=tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["rank 0 of 2 on n1", "rank 1 of 2 on n2"]
