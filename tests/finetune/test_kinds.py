"""The command on every kind of protocol, with a tiny encoder of words and sound."""

import csv
import json
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from finetune.train import run
from triptych.config import UserError
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig


def config(moods: Path, out: Path, protocol: str, **settings) -> FinetuneConfig:
    trainer = TrainerConfig(max_steps=6, log_every=6, evaluate_every=3, checkpoint_every=6, keep_checkpoints=1)
    return FinetuneConfig(
        encoder=str(moods / "encoder"),
        shards=str(moods / "shards"),
        out=str(out),
        protocol=protocol,
        num_resamples=20,
        **{
            "seeds": [0],
            "global_batch": 8,
            "trainer": trainer,
            "optimizer": OptimizerConfig(lr=0.03),
            "missing": False,
            **settings,
        },
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def results(out: Path):
    numbers = json.loads((out / "results.json").read_text())
    return {row["system"]: row["metrics"] for row in numbers["systems"]}, numbers


def test_emotions_are_learnt_and_the_predictions_that_change_without_a_modality_are_listed(moods: Path, tmp_path: Path):
    run(config(moods, tmp_path, "mosei_emotion", balanced=True, missing=True))
    systems, numbers = results(tmp_path)
    assert systems["always negative"]["w-ACC"]["value"] == 0.5
    assert systems["fine-tuned"]["w-ACC"]["targets"]["happy"]["value"] > 0.8
    assert [row["inputs"] for row in numbers["missing"]["systems"]] == ["text+audio", "text", "audio"]
    said = {row["key"]: row for row in rows_of(tmp_path / "predictions.csv") if row["system"] == "fine-tuned"}
    flips = rows_of(tmp_path / "flips.csv")
    assert flips
    for row in flips:
        assert row["with all"] != row["without"]
        assert {row["removed"], row["left"]} == {"text", "audio"}
        assert said[row["key"]][f"prediction_{row['target']}"] == row["with all"]
        assert said[row["key"]][f"truth_{row['target']}"] == row["truth"]


def test_sentiment_is_learnt(moods: Path, tmp_path: Path):
    run(config(moods, tmp_path, "mosei_sentiment"))
    systems, _ = results(tmp_path)
    assert systems["fine-tuned"]["mae"]["value"] < systems["constant median"]["mae"]["value"]
    assert systems["fine-tuned"]["acc2_nonzero"]["value"] == 1


def test_series_are_predicted_at_the_steps_of_their_labels(moods: Path, tmp_path: Path):
    run(config(moods, tmp_path, "avec2017"))
    systems, numbers = results(tmp_path)
    assert systems["constant mean"]["CCC"]["value"] == pytest.approx(0)
    assert systems["fine-tuned"]["CCC"]["value"] > 0.5
    assert numbers["protocol"]["splits"]["test"]["counts"]["steps"] == str(sum(10 - n % 3 for n in range(24, 32)))


def test_one_choice_can_be_learnt_as_decisions_against_the_rest(moods: Path, tmp_path: Path):
    run(config(moods, tmp_path, "synthetic", classes=["happy", "sad"], loss="two_way"))
    systems, _ = results(tmp_path)
    assert systems["fine-tuned"]["UA"]["value"] == 1
    rows = [row for row in rows_of(tmp_path / "predictions.csv") if row["system"] == "fine-tuned"]
    assert [float(row["p_happy"]) + float(row["p_sad"]) for row in rows] == pytest.approx([1] * 8, abs=1e-5)


def test_a_loss_of_another_kind_is_refused(moods: Path, tmp_path: Path):
    for settings, message in (
        ({"loss": "bce"}, "loss: bce is not for sentiment, as mosei_sentiment has; there is l1, mse"),
        ({"balanced": True}, "balanced: is for classes and emotions"),
    ):
        with pytest.raises(UserError, match=message):
            run(config(moods, tmp_path, "mosei_sentiment", **settings))
