import logging
import shutil

import pytest
import torch

from triptych.config import UserError
from triptych.training import checkpoint
from triptych.training.checkpoint import Checkpoints, find_damage


def files(value):
    return {"model": {"w": torch.full((3,), float(value))}, "optimizer": {"step/w": torch.tensor(float(value))}}


def write_encoder(folder, state):
    folder.mkdir()
    (folder / "config.json").write_text(f"{sorted(state)}")


def save(checkpoints, step):
    checkpoints.save(step, files(step), {"world_size": 1}, {"w": torch.zeros(1)}, write_encoder)


@pytest.fixture
def checkpoints(tmp_path, alone):
    return Checkpoints(tmp_path / "checkpoints", 2, alone)


def test_what_was_saved_is_loaded(checkpoints):
    assert checkpoints.newest_good() is None
    save(checkpoints, 3)
    assert checkpoints.newest_good() == 3
    loaded, state = checkpoints.load(3)
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 3.0))
    assert loaded["optimizer"]["step/w"] == 3
    assert (state["step"], state["world_size"]) == (3, 1)
    assert (checkpoints.path(3) / "encoder" / "config.json").read_text() == "['w']"


def test_the_newest_and_the_best_are_kept(checkpoints):
    for step in (1, 2, 3, 4):
        save(checkpoints, step)
    checkpoints.prune(best=1)
    assert [path.name[-1] for path in sorted(checkpoints.folder.iterdir())] == ["1", "3", "4"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(
            b"\0" * (folder / "model.safetensors").stat().st_size
        ),
        lambda folder: (folder / "optimizer.safetensors").unlink(),
        lambda folder: (folder / "encoder" / "config.json").write_text("longer than before"),
        lambda folder: (folder / "manifest.json").write_text('{"files": '),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
)
def test_a_damaged_newest_falls_back_to_the_one_before(checkpoints, caplog, harm):
    save(checkpoints, 1)
    save(checkpoints, 2)
    harm(checkpoints.path(2))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest_good() == 1
    assert "step-00000002 is damaged" in caplog.text
    save(checkpoints, 2)
    assert checkpoints.newest_good() == 2


def test_only_damaged_ones_stop_the_run_instead_of_starting_over(checkpoints):
    save(checkpoints, 1)
    (checkpoints.path(1) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="none of the 1 checkpoints is whole; to start over from step 0"):
        checkpoints.newest_good()


@pytest.mark.parametrize("where", ["save_file", "_seal"])
def test_a_full_disk_leaves_the_older_checkpoint(checkpoints, monkeypatch, where):
    save(checkpoints, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, where, full)
    with pytest.raises(UserError, match=r"step-00000002: the checkpoint could not be written .*No space left"):
        save(checkpoints, 2)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    assert find_damage(checkpoints.path(1)) is None


def test_a_half_written_checkpoint_is_not_seen(checkpoints):
    save(checkpoints, 1)
    left = checkpoints.folder / ".step-00000002.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert checkpoints.newest_good() == 1
    save(checkpoints, 2)
    assert checkpoints.newest_good() == 2


@pytest.mark.parametrize(
    ("harm", "damage"),
    [
        (lambda folder: flip_a_bit(folder / "model.safetensors"), "model.safetensors does not match its hash"),
        (lambda folder: (folder / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda folder: flip_a_bit(folder / "state.json"), "state.json does not match its hash"),
        (lambda folder: shutil.rmtree(folder), "manifest.json: .*No such file"),
    ],
)
def test_no_checkpoint_is_used_unless_it_is_what_was_written(checkpoints, harm, damage):
    """The best one is not the newest, and nobody looked at it: a flipped bit changed the test's score."""
    for step in (1, 2):
        save(checkpoints, step)
    harm(checkpoints.path(1))
    with pytest.raises(UserError, match=rf"(?s)step-00000001: this checkpoint is damaged \({damage}.*of steps 2\)"):
        checkpoints.load(1)
    assert checkpoints.load(2)[1]["step"] == 2


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
