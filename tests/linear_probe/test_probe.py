"""The command from raw sound files to the report, with a tiny encoder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from linear_probe.config import BaselinesConfig, ProbeConfig, ScoredConfig
from linear_probe.probe import run
from triptych.config import UserError


def config(tones: Path, out: Path, **settings) -> ProbeConfig:
    baselines = BaselinesConfig(untrained=[0, 1], **settings.pop("baselines", {}))
    settings = {"encoder": str(tones / "encoder"), "classes": ["happy", "sad"], "num_resamples": 50, **settings}
    if "on" not in settings:
        settings = {"shards": str(tones / "shards"), "protocol": "ravdess", **settings}
    return ProbeConfig(out=str(out), baselines=baselines, **settings)


def ua_of(numbers) -> dict[str, float]:
    return {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_two_tones_are_told_apart_by_every_system_but_the_majority(tones: Path, tmp_path: Path):
    numbers = run(config(tones, tmp_path))
    ua = ua_of(numbers)
    assert ua["majority class"] == 0.5
    assert ua["input means"] == 1
    assert ua["pretrained"] > 0.7
    by_name = {row["system"]: row for row in numbers["systems"]}
    assert len(by_name["untrained"]["metrics"]["UA"]["runs"]) == 2
    assert len(by_name["pretrained, random labels"]["metrics"]["UA"]["runs"]) == 20
    recalls = by_name["pretrained"]["metrics"]["UA"]["targets"]
    assert np.mean([recalls[name]["value"] for name in ("happy", "sad")]) == pytest.approx(ua["pretrained"])
    assert (tmp_path / "figures" / "by_target.png").is_file()
    assert json.loads((tmp_path / "results.json").read_text()) == numbers
    assert numbers["protocol"]["split_rule"]["by"] == "speaker"
    assert (tmp_path / "figures" / "embedding.png").is_file()
    assert "figures/embedding.png" in (tmp_path / "report.md").read_text()


def test_the_grid_is_told_in_full(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path, layers=["pooled", "all"]))
    tried = [row for row in rows_of(tmp_path / "grid.csv") if row["system"] == "pretrained"]
    views = {row["view"] for row in tried}
    assert views == {"pooled", "layer -1, mean", "layer -2, mean"}  # one block, and what enters it
    assert len(tried) == len(views) * 5
    assert all(0 <= float(row["valid"]) <= 1 for row in tried)


def test_the_same_probe_gives_the_same_predictions_whatever_the_micro_batch(tones: Path, tmp_path: Path):
    rows = []
    for micro_batch in (3, 16):
        run(config(tones, tmp_path / str(micro_batch), micro_batch=micro_batch))
        table = rows_of(tmp_path / str(micro_batch) / "predictions.csv")
        rows.append([(row["system"], row["run"], row["key"], row["prediction"]) for row in table])
    assert rows[0] == rows[1]


def test_a_second_probe_takes_its_features_from_the_folder(tones: Path, tmp_path: Path, monkeypatch):
    kept = {"features": str(tmp_path / "features")}
    first = run(config(tones, tmp_path / "first", **kept))

    def refuse(*_):
        raise AssertionError("media were read")

    monkeypatch.setattr("shards.reading.read.EvalLoader.batches", refuse)
    assert run(config(tones, tmp_path / "second", **kept))["systems"] == first["systems"]


def test_cross_validation_scores_every_clip_once(tones: Path, tmp_path: Path):
    numbers = run(config(tones, tmp_path, split="leave_one_actor_out"))
    assert numbers["protocol"]["rule"] == "ravdess/leave_one_actor_out"
    assert list(numbers["protocol"]["folds"].values()) == [4] * 6
    assert "cross-validation SHA-256" in numbers["protocol"]["facts"]
    keys = [row["key"] for row in rows_of(tmp_path / "predictions.csv") if row["system"] == "pretrained"]
    assert len(keys) == len(set(keys)) == 24
    folds = next(row for row in numbers["systems"] if row["system"] == "pretrained")["metrics"]["UA"]["folds"]
    assert len(folds["values"]) == 6


def test_a_learning_curve_has_a_row_for_each_share(tones: Path, tmp_path: Path):
    numbers = run(config(tones, tmp_path, label_shares=[1.0, 0.3]))
    names = [row["system"] for row in numbers["curve"]["systems"]]
    assert names == [f"{name}, {share} % of the labels" for share in (30, 100) for name in ("untrained", "pretrained")]
    whole = numbers["curve"]["systems"][-1]["metrics"]
    assert whole == next(row for row in numbers["systems"] if row["system"] == "pretrained")["metrics"]
    assert (tmp_path / "figures" / "curve.png").is_file()


def test_several_corpora_give_a_matrix(tones: Path, tmp_path: Path):
    shards = str(tones / "shards")
    on = {
        "own": ScoredConfig(shards=shards, protocol="ravdess", classes=["happy", "sad"]),
        "six": ScoredConfig(shards=shards, protocol="ravdess_6", classes=["happy", "sad"], split="leave_one_actor_out"),
    }
    encoders = {"a": str(tones / "encoder"), "b": str(tones / "pairwise")}
    numbers = run(config(tones, tmp_path, encoder="", encoders=encoders, on=on, classes=[]))
    assert set(numbers["matrix"]["a (audio)"]) == set(numbers["matrix"]["b (audio)"]) == {"own", "six"}
    report = (tmp_path / "report.md").read_text()
    assert "| system | own: UA | six: UA |" in report
    assert "(six/report.md)" in report
    assert (tmp_path / "six" / "results.json").is_file()


def test_several_encoders_share_the_baselines(tones: Path, tmp_path: Path):
    encoder = str(tones / "encoder")
    numbers = run(config(tones, tmp_path, encoder="", encoders={"a": encoder, "b": encoder}))
    names = [row["system"] for row in numbers["systems"]]
    assert names == ["majority class", "input means", "untrained", "a", "b", "a, random labels"]
    assert {(row["first"], row["second"]) for row in numbers["differences"]} == {
        ("a (audio)", "untrained (audio)"),
        ("b (audio)", "untrained (audio)"),
    }


def test_an_encoder_of_another_architecture_has_its_own_untrained_row(tones: Path, tmp_path: Path):
    encoders = {"fused": str(tones / "encoder"), "towers": str(tones / "pairwise")}
    baselines = {"random_labels": 0, "handcrafted": True}
    numbers = run(config(tones, tmp_path, encoder="", encoders=encoders, baselines=baselines))
    names = [row["system"] for row in numbers["systems"]]
    assert names[1:] == ["input means", "handcrafted", "untrained", "fused", "untrained, as towers", "towers"]
    facts = numbers["protocol"]["facts"]
    assert facts["scored clips in the pretraining of towers"].startswith("not known: no data.json")
    assert ua_of(numbers)["towers"] > 0.7


def test_rows_of_other_systems_stand_in_the_same_table(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path / "one"))
    rows = rows_of(tmp_path / "one" / "predictions.csv")
    other = tmp_path / "other.csv"
    with other.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["key", "kind", "system", "inputs", "truth", "prediction"], extrasaction="ignore")
        writer.writeheader()
        mine = [row for row in rows if row["system"] == "pretrained"]
        writer.writerows({**row, "system": "always right", "prediction": row["truth"]} for row in mine)
    numbers = run(config(tones, tmp_path / "two", predictions=[str(other)]))
    assert ua_of(numbers)["always right"] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ["audo"]}, "Did you mean audio"),
        ({"outputs": ["video"]}, "no 'video'"),
        ({"layers": ["-7"]}, "has 2 for audio"),
        ({"classes": ["happy", "bored"]}, "no 'bored'"),
        ({"classes": ["calm", "angry"]}, "none of the 16 clips to learn from has a label that ravdess scores"),
        ({"encoder": "nowhere"}, "no encoder"),
        ({"encoder": ""}, "either encoder="),
        ({"protocol": ""}, "give protocol="),
        ({"split": "leave_one_out"}, "Did you mean leave_one_actor_out"),
        ({"split": "hicmae_6fold"}, "leave_one_actor_out"),
        ({"layers": ["stack"]}, "heads.linear="),
        ({"predictions": ["nowhere.csv"]}, "nowhere.csv"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tones: Path, tmp_path: Path, settings, message):
    with pytest.raises(UserError, match=message):
        run(config(tones, tmp_path / "out", **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["last"]}, "layers: 'last'"),
        ({"pooling": ["max"]}, "pooling: 'max'"),
        ({"label_shares": [0]}, "label_shares: 0"),
        ({"seeds": [1, 1]}, "seeds:"),
        ({"micro_batch": 0}, "micro_batch: 1 or more"),
        ({"workers": -1}, "workers: 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**settings)
