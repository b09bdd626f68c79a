import os

import pytest

from triptych.config import UserError
from triptych.training import distributed
from triptych.training.distributed import Launch, read_launch

ADDRESS = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **ADDRESS}
SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", **ADDRESS}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch(0, 1, 0)),
        (TORCHRUN, Launch(3, 4, 1)),
        (SLURM, Launch(2, 4, 0)),
        (TORCHRUN | SLURM, Launch(3, 4, 1)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Launch(0, 1, 0)),
        ({"MASTER_ADDR": "node1"}, Launch(0, 1, 0)),
    ],
)
def test_a_launcher_is_read_from_its_environment(environment, launch):
    assert read_launch(environment) == launch


@pytest.mark.parametrize(
    ("environment", "missing"), [(environment, name) for environment in (TORCHRUN, SLURM) for name in environment]
)
def test_half_a_launcher_is_refused_with_what_is_missing(environment, missing):
    if missing == "SLURM_NTASKS":
        return  # without it there is one task
    with pytest.raises(UserError, match=f"not {missing}"):
        read_launch({name: value for name, value in environment.items() if name != missing})


def test_a_process_that_leaves_its_group_leaves_no_rank_for_those_it_starts_later(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "12345")
    joined = distributed.init("cpu")
    assert os.environ["WORLD_SIZE"] == "1"
    joined.shutdown()
    assert "WORLD_SIZE" not in os.environ
    assert "RANK" not in os.environ
    assert os.environ["MASTER_PORT"] == "12345"


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(UserError, match="RANK=4 does not fit WORLD_SIZE=4"):
        read_launch(TORCHRUN | {"RANK": "4"})


def test_a_users_mistake_on_rank_0_is_told_on_every_rank(alone):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        alone.on_main(full)
    assert alone.on_main(lambda: 3) == 3
    assert alone.gather({"a": 1}) == [{"a": 1}]


def test_ranks_that_work_on_different_things_are_named(alone, monkeypatch):
    facts = {"shard set (manifest)": "aa", "config": "bb"}
    alone.agree(facts)
    for other, said in (
        (
            {"shard set (manifest)": "cc"},
            r"rank 2 works with another shard set \(manifest\) \(cc, not aa\) than rank 0",
        ),
        (
            {"config": "dd", "shard set (manifest)": "cc"},
            r"manifest\) \(cc, not aa\) and another config \(dd, not bb\)",
        ),
    ):
        monkeypatch.setattr(distributed.Distributed, "gather", lambda _, mine, other=other: [mine, mine, mine | other])
        with pytest.raises(UserError, match=said):
            alone.agree(facts)
