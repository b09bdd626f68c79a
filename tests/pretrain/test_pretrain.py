"""The command itself, from generated clips to an exported encoder, in processes of its own."""

import time
from pathlib import Path

import pytest

from triptych.models.load import load


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "compiled"))
        done = demo.launch(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_ends_with_metrics_tensorboard_checkpoints_and_an_encoder_that_loads(demo, whole: Path) -> None:
    folder = whole / "run"
    steps = [line["step"] for line in demo.logged(whole) if "loss" in line]
    assert steps == list(range(1, demo.steps + 1))
    assert [line["step"] for line in demo.logged(whole) if "valid/loss/masked_lm" in line] == [6, 12, 18, 24]
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "checkpoints" / "step-00000024" / "manifest.json").is_file()
    assert set(load(folder / "encoder").widths) == {"text", "audio", "video", "fused"}


@pytest.mark.slow
@pytest.mark.dist
def test_nothing_is_compiled_at_the_start(whole: Path) -> None:
    """A process killed while it compiles leaves a lock behind at which every later start would wait forever."""
    assert not (whole / "compiled").exists()


@pytest.mark.slow
@pytest.mark.dist
def test_after_sigkill_the_same_command_gives_the_same_curve_to_the_last_bit(demo, whole: Path, tmp_path: Path) -> None:
    torchrun, deadline = demo.start(tmp_path), time.monotonic() + 200
    while time.monotonic() < deadline and len(demo.logged(tmp_path)) < 6:
        time.sleep(0.02)
    demo.kill(torchrun)
    assert 6 <= len(demo.logged(tmp_path)) < demo.steps, (tmp_path / "log").read_text()
    done = demo.launch(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stderr, done.stderr
    assert demo.logged(tmp_path) == demo.logged(whole)


@pytest.mark.slow
@pytest.mark.dist
def test_world_size_and_accumulation_change_nothing_but_rounding(demo, whole: Path, tmp_path: Path) -> None:
    """Without dropout, one process that accumulates sees the same losses as two that do not; rounding grows with the
    steps, as AdamW makes whole steps out of gradients that are next to nothing."""
    two, one = tmp_path / "two", tmp_path / "one"
    quiet = "encoder.cross_modal.transformer.dropout=0"
    for folder, processes, micro in ((two, 2, 8), (one, 1, 4)):
        done = demo.run(folder, quiet, f"stream.micro_batch={micro}", processes=processes)
        assert done.returncode == 0, done.stderr
    losses = [[line["loss"] for line in demo.logged(folder) if "loss" in line] for folder in (two, one)]
    assert losses[0][:10] == pytest.approx(losses[1][:10], rel=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
@pytest.mark.dist
def test_mistakes_end_in_one_message(demo, whole: Path, tmp_path: Path) -> None:
    cases = {
        "engine.zero_stag=2": "Did you mean: 'zero_stage'",
        "stream.global_batch=1": "global_batch 1 is less than the number of ranks (2)",
        "stream.global_batch=500": "lower global_batch to at most",
        "stream.shards=nowhere": "nowhere: is not there; a shard set is the folder that",
        "objectives.masked_lm.inputs=[audio,video]": "lack the encoder's anchor, text",
        "stream.text=false": "stream.text: false, but objectives.masked_lm asks for words",
    }
    for override, message in cases.items():
        done = demo.run(tmp_path, override, processes=2 if "ranks" in message else 1)
        assert done.returncode != 0, override
        assert message in done.stderr, (override, done.stderr)
        assert not (tmp_path / "run").exists(), override
        assert "Traceback" not in done.stderr, done.stderr
    done = demo.run(whole, "optimizer.lr=0.5")
    assert done.returncode == 2
    assert "started with another config (optimizer.lr: 0.001 -> 0.5)" in done.stderr
