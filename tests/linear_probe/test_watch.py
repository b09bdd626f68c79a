"""Probing the checkpoints of a run, on valid alone."""

import json
import shutil
from pathlib import Path

import pytest

from linear_probe.config import BaselinesConfig, ProbeConfig
from linear_probe.watch import watch
from triptych.config import UserError


@pytest.fixture
def run(tones: Path, tmp_path: Path) -> Path:
    """A finished run with checkpoints of steps 4 and 12, as triptych.training.checkpoint writes them."""
    folder = tmp_path / "run"
    for step in (12, 4):
        shutil.copytree(tones / "encoder", folder / "checkpoints" / f"step-{step:08d}" / "encoder")
        (folder / "checkpoints" / f"step-{step:08d}" / "manifest.json").write_text("{}")
    shutil.copytree(tones / "encoder", folder / "checkpoints" / "step-00000016" / "encoder")  # half written
    shutil.copytree(tones / "encoder", folder / "encoder")
    (folder / "config.yaml").write_text("name: run\n")
    return folder


def config(tones: Path, run: Path, **settings) -> ProbeConfig:
    return ProbeConfig(
        watch=str(run),
        shards=str(tones / "shards"),
        protocol="ravdess",
        classes=["happy", "sad"],
        baselines=BaselinesConfig(untrained=[0]),
        **settings,
    )


def test_every_whole_checkpoint_is_probed_once_and_in_order(tones: Path, run: Path, monkeypatch):
    def refuse(*_):
        raise AssertionError("labels of held-out clips were opened")

    monkeypatch.setattr("linear_probe.held_out.open_labels", refuse)
    rows = watch(config(tones, run))
    assert [row["step"] for row in rows] == [4, 12]
    assert set(rows[0]) == {"step", "probe/input means (audio)", "probe/untrained (audio)", "probe/pretrained (audio)"}
    assert set(rows[1]) == {"step", "probe/pretrained (audio)"}
    assert list((run / "tensorboard" / "probe").iterdir())
    lines = (run / "probe.jsonl").read_text()
    assert [json.loads(line) for line in lines.splitlines()] == rows

    monkeypatch.setattr("linear_probe.watch._probe", refuse)
    assert watch(config(tones, run)) == rows  # nothing is left to do


def test_a_checkpoint_that_the_run_has_removed_meanwhile_is_passed_over(tones: Path, run: Path, monkeypatch):
    monkeypatch.setattr("linear_probe.watch._checkpoints", lambda run: [2, 4])
    assert [row["step"] for row in watch(config(tones, run))] == [4]


def test_a_running_run_is_waited_for(tones: Path, run: Path, monkeypatch):
    shutil.rmtree(run / "encoder")
    waits = []

    def end(seconds: float) -> None:
        waits.append(seconds)
        shutil.copytree(tones / "encoder", run / "encoder")

    monkeypatch.setattr("linear_probe.watch.time.sleep", end)
    assert len(watch(config(tones, run))) == 2
    assert len(waits) == 1


def test_what_cannot_be_watched_is_refused(tones: Path, run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no run here"):
        watch(config(tones, tmp_path / "nowhere"))
    with pytest.raises(UserError, match="leave encoder"):
        watch(config(tones, run, encoder=str(tones / "encoder")))
