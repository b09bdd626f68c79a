"""The pictures of what a fine-tuned model attends to, of tiny models that are hardly trained."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from finetune import attention, train
from finetune.config import FinetuneConfig
from finetune.heads.attention import AttentionConfig
from finetune.heads.config import HeadConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from triptych.config import UserError
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

SSE_FT = SseFtHeadConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8, inter_modal_blocks=1)
KEY = "speaker12/clip24"


def trained(data: Path, out: Path, protocol: str, encoder: str = "encoder", **settings) -> Path:
    """Folder of a fine-tuning with one run of two steps that change nearly nothing: half the clips are right."""
    trainer = TrainerConfig(max_steps=2, log_every=1, evaluate_every=1, checkpoint_every=2, keep_checkpoints=1)
    config = FinetuneConfig(
        encoder=str(data / encoder),
        shards=str(data / "shards"),
        out=str(out),
        protocol=protocol,
        seeds=[0],
        missing=False,
        global_batch=4,
        trainer=trainer,
        optimizer=OptimizerConfig(lr=1e-6),
        num_resamples=10,
        **settings,
    )
    assert train.run(config) == 0
    return out


def told(out: Path) -> list[dict]:
    return json.loads((out / "attention.json").read_text())["clips"]


@pytest.fixture(scope="module")
def fused(moods: Path, tmp_path_factory) -> Path:
    """SSE-FT on words and sound, of two classes."""
    out = tmp_path_factory.mktemp("fused") / "out"
    return trained(moods, out, "synthetic", classes=["happy", "sad"], head=HeadConfig(linear=None, sse_ft=SSE_FT))


def predictions(out: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader((out / "predictions.csv").open())
    return {row["key"]: row for row in rows if row["system"] == "fine-tuned"}


def test_a_clip_is_drawn_with_its_label_and_what_the_report_says_of_it(fused, tmp_path, capsys):
    assert attention.run(str(fused), [f"keys=[{KEY}]", f"out={tmp_path}"]) == 0
    name = KEY.replace("/", "+")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png", f"{name}.heads.png", "attention.json"}
    (clip,), reported = told(tmp_path), predictions(fused)[KEY]
    assert (clip["split"], clip["label"]) == ("test", reported["truth"])
    for name, share in clip["outputs"].items():
        assert share == pytest.approx(float(reported[f"p_{name}"]), abs=1e-5)
    assert f"test clip   labelled {reported['truth']}   model: {reported['prediction']} (" in capsys.readouterr().out
    assert [one["stack"] for one in clip["maps"]] == ["inter_modal.text_from_audio", "inter_modal.audio_from_text"]
    for one, steps in zip(clip["maps"], (20, 2), strict=True):
        assert one["queries"]["times_s"] == [None]
        assert one["keys"]["times_s"][0] is None
        weights = np.array(one["weights"])
        assert abs(weights.shape[2] - 1 - steps) <= 1  # of a second with two words, and the CLS
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)


def test_without_keys_right_and_wrong_held_out_clips_are_drawn(fused, moods, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(attention, "draw", lambda subject, shard_set, places, wanted, console: drawn.extend(places))
    attention.run(str(fused / "runs" / "pretrained-seed-0"), [f"out={tmp_path}"])
    reported = predictions(fused)  # which has the test clips alone
    assert [reported[key]["truth"] == reported[key]["prediction"] for key in drawn] == [True, True, False, False]


def test_the_beginning_of_a_name_draws_all_stacks_with_it(fused, tmp_path):
    attention.run(str(fused), [f"keys=[{KEY}]", f"out={tmp_path}", "stack=self_attention", "layer=1"])
    (clip,) = told(tmp_path)
    assert [one["stack"] for one in clip["maps"]] == ["self_attention.text", "self_attention.audio"]
    for one in clip["maps"]:
        assert one["queries"] == one["keys"]
        assert [time is None for time in one["keys"]["times_s"]] == [True] + [False] * (len(one["weights"][0]) - 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("keys=[speaker12/clip42]", "has the key 'speaker12/clip42'; the nearest is 'speaker12/clip2"),
        ("stack=inter_modal.text_from_adio", "Did you mean inter_modal.text_from_audio? There are"),
        ("layer=2", "layer: 2 of inter_modal.text_from_audio, which has 1 to 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(fused, tmp_path, override, message):
    with pytest.raises(UserError) as error:
        attention.run(str(fused), [f"keys=[{KEY}]", f"out={tmp_path / 'out'}", override])
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_one_whole_run_is_told(fused, tmp_path):
    def told_of(folder: Path) -> str:
        with pytest.raises(UserError) as error:
            attention.run(str(folder), [f"out={tmp_path / 'out'}"])
        return str(error.value)

    assert "no run of a fine-tuning" in told_of(tmp_path)
    copy = tmp_path / "copy"
    run = copy / "runs" / "pretrained-seed-0"
    shutil.copytree(fused, copy)
    shutil.copytree(run, copy / "runs" / "pretrained-seed-1")
    assert "has 2 runs; give one of them" in told_of(copy)
    (copy / "runs" / "pretrained-seed-1" / "config.yaml").write_text("name: pretraining\n")
    assert "no run of a fine-tuning that this version reads" in told_of(copy / "runs" / "pretrained-seed-1")
    (run / "data.json").write_text("{}")
    assert "name some with keys=" in told_of(run)  # what was held out of other clips, nobody knows
    weights = next(run.glob("checkpoints/*/model.safetensors"))
    for checkpoint in run.glob("checkpoints/*"):
        (checkpoint / weights.name).write_bytes(weights.read_bytes()[:-1])
    assert "is damaged (model.safetensors has" in told_of(run)
    (run / "best.json").unlink()
    assert "valid has not chosen a step" in told_of(run)


def test_the_head_of_whole_modalities_says_them_by_name_and_the_sentiment(moods, tmp_path):
    head = HeadConfig(linear=None, attention=AttentionConfig(width=8, heads=2, hidden=0))
    out = trained(moods, tmp_path / "run", "mosei_sentiment", head=head)
    attention.run(str(out), [f"keys=[{KEY}]", f"out={tmp_path / 'out'}"])
    (clip,) = told(tmp_path / "out")
    (one,) = clip["maps"]
    assert (one["stack"], one["keys"]["names"]) == ("attention", ["text", "audio"])
    assert np.array(one["weights"]).shape == (2, 2, 2)
    assert (clip["label"], clip["said"]) == ("-2.00", f"{clip['outputs']:+.2f}")


def test_where_the_head_reads_what_is_fused_its_making_is_drawn(moods, tmp_path):
    out = trained(moods, tmp_path / "run", "mosei_emotion")
    attention.run(str(out), [f"keys=[{KEY}]", f"out={tmp_path / 'out'}"])
    (clip,) = told(tmp_path / "out")
    assert [one["stack"] for one in clip["maps"]] == ["cross.audio"]
    assert clip["label"] == "sad"
    assert clip["said"] == (
        " and ".join(name for name, share in clip["outputs"].items() if share > 0.5) or "no emotion"
    )
