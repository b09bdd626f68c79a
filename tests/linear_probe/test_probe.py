"""The command from raw sound files to the report, with a tiny encoder."""

import csv
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from linear_probe.config import ProbeConfig
from linear_probe.probe import run
from shards.corpora.config import CorpusConfig
from shards.corpora.ravdess import RavdessConfig
from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.split import SplitConfig
from shards.write import WriteConfig, write
from triptych.config import UserError
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, save_encoder
from triptych.models.load import build as build_encoder

FEATURES = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=8)))
PITCH_HZ = {3: 300, 4: 900}  # happy and sad, by RAVDESS's codes


def tone(path: Path, pitch_hz: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=8000)
    sound = 8000 * np.sin(2 * np.pi * pitch_hz * np.arange(8000) / 16000) + 500 * noise
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(sound.astype("<i2").tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of tones whose pitch is the emotion, and an encoder that has learnt nothing."""
    root = tmp_path_factory.mktemp("probe")
    for actor in range(1, 7):
        (root / "raw" / f"Actor_{actor:02d}").mkdir(parents=True)
        for emotion, pitch_hz in PITCH_HZ.items():
            for repetition in (1, 2):
                name = f"03-01-{emotion:02d}-01-01-{repetition:02d}-{actor:02d}.wav"
                tone(root / "raw" / f"Actor_{actor:02d}" / name, pitch_hz + 5 * actor, 10 * actor + repetition)
    corpus = CorpusConfig(ravdess=RavdessConfig(root=str(root / "raw")))
    split = SplitConfig(train=0.4, valid=0.3, test=0.3)
    write(WriteConfig(corpus=corpus, out=str(root / "shards"), split=split, features=FEATURES, workers=1))
    tiny = CrossModalConfig(
        modalities=("audio",), anchor="audio", transformer=TransformerConfig(width=8, layers=1, heads=2)
    )
    inputs = {modality: feature.spec for modality, feature in build(FEATURES).items()}
    save_encoder(build_encoder(SystemConfig(cross_modal=tiny), inputs, ()), root / "encoder")
    return root


def config(folder: Path, out: Path, **settings) -> ProbeConfig:
    settings = {"encoder": str(folder / "encoder"), "classes": ["happy", "sad"], "num_resamples": 50, **settings}
    return ProbeConfig(shards=str(folder / "shards"), out=str(out), untrained_seeds=[0, 1], **settings)


def test_two_tones_are_told_apart_by_every_system_but_the_majority(folder: Path, tmp_path: Path):
    numbers = run(config(folder, tmp_path))
    ua = {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}
    assert ua["majority class"] == 0.5
    assert ua["input means"] == 1
    assert ua["pretrained"] > 0.7
    assert len(next(row for row in numbers["systems"] if row["system"] == "untrained")["metrics"]["UA"]["runs"]) == 2
    assert json.loads((tmp_path / "results.json").read_text()) == numbers
    assert numbers["protocol"]["split_rule"]["by"] == "speaker"


def test_the_same_probe_gives_the_same_predictions_whatever_the_micro_batch(folder: Path, tmp_path: Path):
    rows = []
    for micro_batch in (3, 16):
        run(config(folder, tmp_path / str(micro_batch), micro_batch=micro_batch))
        table = csv.DictReader((tmp_path / str(micro_batch) / "predictions.csv").open())
        rows.append([(row["system"], row["run"], row["key"], row["prediction"]) for row in table])
    assert rows[0] == rows[1]


def test_test_labels_are_read_by_the_score_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import linear_probe.probe as probe

    run(config(folder, tmp_path / "true"))
    extracted = probe._extracted

    def shuffled(settings, shard_set, split, *rest):
        found = extracted(settings, shard_set, split, *rest)
        if split == "test":
            found.labels[:] = found.labels[::-1].copy()
        return found

    monkeypatch.setattr(probe, "_extracted", shuffled)
    run(config(folder, tmp_path / "shuffled"))
    columns = [
        [[row[name] for name in row if name != "truth"] for row in csv.DictReader(path.open())]
        for path in (tmp_path / "true" / "predictions.csv", tmp_path / "shuffled" / "predictions.csv")
    ]
    assert columns[0] == columns[1]


def test_several_encoders_share_the_baselines(folder: Path, tmp_path: Path):
    encoder = str(folder / "encoder")
    numbers = run(config(folder, tmp_path, encoder="", encoders={"a": encoder, "b": encoder}))
    names = [row["system"] for row in numbers["systems"]]
    assert names == ["majority class", "input means", "untrained", "a", "b"]
    assert {(row["first"], row["second"]) for row in numbers["differences"]} == {
        ("a (audio)", "untrained (audio)"),
        ("b (audio)", "untrained (audio)"),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": ["audo"]}, "did you mean 'audio'"),
        ({"pooled": ["video"]}, "no 'video'"),
        ({"classes": ["happy", "bored"]}, "no 'bored'"),
        ({"classes": ["calm", "angry"]}, "no clip has the label"),
        ({"encoder": "nowhere"}, "no encoder here"),
        ({"encoder": ""}, "either encoder="),
    ],
)
def test_mistakes_are_told_in_one_sentence(folder: Path, tmp_path: Path, settings, message):
    with pytest.raises(UserError, match=message):
        run(config(folder, tmp_path / "out", **settings))
