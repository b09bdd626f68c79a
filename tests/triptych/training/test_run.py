import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from triptych.config import UserError
from triptych.training.distributed import Distributed
from triptych.training.run import MetricsLog, RunFolder


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    inner: Inner = Inner()


def test_what_may_change_is_noted_and_the_rest_refused(tmp_path: Path, alone: Distributed):
    path = tmp_path / "run"
    RunFolder.open(path, Config(), alone, ("seed", "inner"))
    RunFolder.open(path, Config(seed=1, inner=Inner(rate=0.2)), alone, ("seed", "inner"))
    assert [start.get("changed") for start in json.loads((path / "environment.json").read_text())] == [
        None,
        {"inner.rate": 0.2, "seed": 1},
    ]
    assert yaml.safe_load((path / "config.yaml").read_text())["seed"] == 0
    with pytest.raises(UserError, match=r"another config \(inner.rate: 0.1 -> 0.2\)"):
        RunFolder.open(path, Config(seed=1, inner=Inner(rate=0.2)), alone, ("seed",))


def test_a_kept_file_must_stay_what_it_was(tmp_path: Path, alone: Distributed):
    run = RunFolder.open(tmp_path / "run", Config(), alone)
    run.keep("words.txt", "a\n", "other words")
    run.keep("words.txt", "a\n", "other words")
    with pytest.raises(UserError, match=r"words\.txt: the run began with other words"):
        run.keep("words.txt", "b\n", "other words")


def test_a_run_folder_is_opened_again_by_the_same_config_only(tmp_path, alone):
    run = RunFolder.open(tmp_path / "runs" / "a", Config(), alone)
    RunFolder.open(run.path, Config(), alone)
    starts = json.loads((run.path / "environment.json").read_text())
    assert [start["world_size"] for start in starts] == [1, 1]
    assert starts[0]["versions"]["torch"]
    with pytest.raises(UserError, match=r"another config \(inner.rate: 0.1 -> 0.2; seed: 0 -> 1\).*another run name"):
        RunFolder.open(run.path, Config(seed=1, inner=Inner(rate=0.2)), alone)


def test_a_run_from_before_a_setting_existed_goes_on_with_its_default(tmp_path, alone):
    path = RunFolder.open(tmp_path / "a", Config(), alone).path
    (path / "config.yaml").write_text("inner: {rate: 0.1}\n")
    RunFolder.open(path, Config(), alone)
    with pytest.raises(UserError, match=r"another config \(seed: 0 -> 1\)"):
        RunFolder.open(path, Config(seed=1), alone)
    (path / "config.yaml").write_text("inner: {rate: 0.1}\nremoved: 3\nseed: 0\n")
    with pytest.raises(UserError, match=r"another config \(.*removed: 3 -> None"):
        RunFolder.open(path, Config(), alone)


@pytest.mark.slow
def test_two_jobs_in_one_run_folder_are_refused_until_the_first_has_ended(tmp_path, alone):
    run = RunFolder.open(tmp_path / "run", Config(), alone)
    again = """
import sys
from pathlib import Path
from triptych.config import UserError
from triptych.training.distributed import Distributed
from triptych.training.run import _lock
try:
    _lock(Path(sys.argv[1]))
except UserError as error:
    print(error)
"""
    command = [sys.executable, "-c", again, str(run.path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"run: process {os.getpid()} on " in told
    assert "choose another run name" in told
    RunFolder.open(run.path, Config(), alone)  # its own process may
    # what a killed job leaves behind holds nothing
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / ".lock").write_text("process 1 on a node that was taken away\n")
    RunFolder.open(tmp_path / "dead", Config(), alone)


def test_a_folder_of_something_else_is_left_alone(tmp_path, alone):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no config.yaml; choose another run name"):
        RunFolder.open(tmp_path, Config(), alone)


def test_metrics_read_back_bit_equal_and_are_cut_to_the_checkpoint(tmp_path, alone):
    run = RunFolder.open(tmp_path / "a", Config(), alone)
    log = MetricsLog(run, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": 0.1 + 0.2, "loss/even": 1 / 3})
    log.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    log = MetricsLog(run, 2)
    assert log.rows() == [{"step": step, "loss": 0.1 + 0.2, "loss/even": 1 / 3} for step in (1, 2)]
    log.write(3, {"loss": 5.0})
    log.close()
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    "bad", [b"\xff\xfe\x00", b'{"step": 2, "loss"', b"[]", b"null", b'{"loss": 1.0}', b'{"step": "2"}']
)
def test_a_bad_line_costs_itself_and_is_told(tmp_path, alone, caplog, bad):
    run = RunFolder.open(tmp_path / "a", Config(), alone)
    path = run.path / "metrics.jsonl"
    rows = [{"step": step, "valid/loss": 1 / step} for step in (1, 2, 3, 4)]
    lines = [json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join([lines[0], bad, *lines[2:], b'{"step": 5, "lo']))

    log = MetricsLog(run, 4)

    assert log.rows() == [rows[0], *rows[2:]]
    log.close()
    assert f"{path}: 1 lines cannot be read and are left out, first: line 2" in caplog.text


@pytest.mark.parametrize("content", [b'[{"started": "2026', b"", b"{}", b"\xff"])
def test_half_an_account_of_starts_is_set_aside(tmp_path, alone, caplog, content):
    run = RunFolder.open(tmp_path / "a", Config(), alone)
    (run.path / "environment.json").write_bytes(content)

    RunFolder.open(tmp_path / "a", Config(), alone)

    assert len(json.loads((run.path / "environment.json").read_text())) == 1
    assert (run.path / "damaged-environment.json").read_bytes() == content
    assert "environment.json cannot be read and is set aside" in caplog.text
