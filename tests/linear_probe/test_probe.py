"""The command from raw sound files to the report, with a tiny encoder."""

import csv
import json
from pathlib import Path

import pytest

from linear_probe.config import ProbeConfig
from linear_probe.probe import run
from triptych.config import UserError


def config(tones: Path, out: Path, **settings) -> ProbeConfig:
    settings = {"encoder": str(tones / "encoder"), "classes": ["happy", "sad"], "num_resamples": 50, **settings}
    return ProbeConfig(shards=str(tones / "shards"), out=str(out), untrained_seeds=[0, 1], **settings)


def test_two_tones_are_told_apart_by_every_system_but_the_majority(tones: Path, tmp_path: Path):
    numbers = run(config(tones, tmp_path))
    ua = {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}
    assert ua["majority class"] == 0.5
    assert ua["input means"] == 1
    assert ua["pretrained"] > 0.7
    assert len(next(row for row in numbers["systems"] if row["system"] == "untrained")["metrics"]["UA"]["runs"]) == 2
    assert json.loads((tmp_path / "results.json").read_text()) == numbers
    assert numbers["protocol"]["split_rule"]["by"] == "speaker"


def test_the_same_probe_gives_the_same_predictions_whatever_the_micro_batch(tones: Path, tmp_path: Path):
    rows = []
    for micro_batch in (3, 16):
        run(config(tones, tmp_path / str(micro_batch), micro_batch=micro_batch))
        table = csv.DictReader((tmp_path / str(micro_batch) / "predictions.csv").open())
        rows.append([(row["system"], row["run"], row["key"], row["prediction"]) for row in table])
    assert rows[0] == rows[1]


def test_test_labels_are_read_by_the_score_alone(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import linear_probe.probe as probe

    run(config(tones, tmp_path / "true"))
    extracted = probe._extracted

    def shuffled(settings, shard_set, split, *rest):
        found = extracted(settings, shard_set, split, *rest)
        if split == "test":
            found.labels[:] = found.labels[::-1].copy()
        return found

    monkeypatch.setattr(probe, "_extracted", shuffled)
    run(config(tones, tmp_path / "shuffled"))
    columns = [
        [[row[name] for name in row if name != "truth"] for row in csv.DictReader(path.open())]
        for path in (tmp_path / "true" / "predictions.csv", tmp_path / "shuffled" / "predictions.csv")
    ]
    assert columns[0] == columns[1]


def test_several_encoders_share_the_baselines(tones: Path, tmp_path: Path):
    encoder = str(tones / "encoder")
    numbers = run(config(tones, tmp_path, encoder="", encoders={"a": encoder, "b": encoder}))
    names = [row["system"] for row in numbers["systems"]]
    assert names == ["majority class", "input means", "untrained", "a", "b"]
    assert {(row["first"], row["second"]) for row in numbers["differences"]} == {
        ("a (audio)", "untrained (audio)"),
        ("b (audio)", "untrained (audio)"),
    }


def test_an_encoder_without_fusion_stands_beside_one_with(tones: Path, tmp_path: Path):
    encoders = {"fused": str(tones / "encoder"), "towers": str(tones / "pairwise")}
    numbers = run(config(tones, tmp_path, encoder="", encoders=encoders))
    names = [row["system"] for row in numbers["systems"]]
    assert names[2:] == ["untrained", "fused", "input means", "untrained, as towers", "towers"]
    assert numbers["protocol"]["facts"]["features of towers"].startswith("pooled audio;")
    assert numbers["protocol"]["facts"]["scored clips in the pretraining of towers"].startswith(
        "not known: no data.json"
    )
    ua = {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}
    assert ua["towers"] > 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ["audo"]}, "Did you mean audio"),
        ({"pooled": ["video"]}, "no 'video'"),
        ({"classes": ["happy", "bored"]}, "no 'bored'"),
        ({"classes": ["calm", "angry"]}, "no clip has the label"),
        ({"encoder": "nowhere"}, "no encoder here"),
        ({"encoder": ""}, "either encoder="),
    ],
)
def test_mistakes_are_told_in_one_sentence(tones: Path, tmp_path: Path, settings, message):
    with pytest.raises(UserError, match=message):
        run(config(tones, tmp_path / "out", **settings))
