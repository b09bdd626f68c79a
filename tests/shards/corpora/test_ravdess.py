"""RAVDESS: what the names say, which files of a performance are read, and what is told of the others."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shards.corpora.config import CorpusConfig
from shards.corpora.look_alikes.ravdess import MISSING
from shards.corpora.ravdess import RavdessConfig, published
from shards.divisions.split import SplitConfig
from shards.features.config import FeaturesConfig, VideoFeature, build
from shards.features.landmarks import LandmarksConfig
from shards.look_alike import make
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.write import WriteConfig, write
from triptych.config import UserError


def test_the_name_tells_everything(tmp_path: Path) -> None:
    (tmp_path / "Actor_12").mkdir()
    (tmp_path / "Actor_12" / "01-01-05-02-02-01-12.mp4").touch()
    (tmp_path / "03-02-01-01-01-02-07.wav").touch()
    (tmp_path / "words.ctm").write_text("01-01-05-02-02-01-12 1 0.5 0.2 dogs\n")

    angry, song = RavdessConfig(root=str(tmp_path), modality="all", song=True, transcripts=["words.ctm"]).clips()

    assert angry.key == "01-01-05-02-02-01-12"
    assert angry.speaker == "actor-12"
    assert angry.labels == {"emotion": "angry", "intensity": "strong"}
    assert angry.source == {
        "modality": "av",
        "channel": "speech",
        "statement": "02",
        "repetition": "01",
        "take": "01-05-02-02-01-12",
    }
    assert angry.video is not None
    assert angry.audio is None
    assert angry.words is not None
    assert angry.words[0].text == "dogs"
    assert song.source["modality"] == "audio"
    assert song.source["channel"] == "song"
    assert song.audio is not None
    assert song.video is None


@pytest.mark.parametrize("name", ["holiday.mp4", "01-01-09-01-01-01-01.mp4", "01-01-05-01-02-01.wav"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(UserError, match=rf"{name}: not a RAVDESS name"):
        list(RavdessConfig(root=str(tmp_path)).clips())


def test_a_clip_found_twice_and_an_empty_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip; looked for"):
        list(RavdessConfig(root=str(tmp_path)).clips())
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "03-01-01-01-01-01-01.wav").touch()
    with pytest.raises(UserError, match="is also at"):
        list(RavdessConfig(root=str(tmp_path)).clips())


def test_landmarks_are_those_of_the_recording(tmp_path: Path) -> None:
    """The published files are named like the av clips; the video clips show the same."""
    for name in ("clips/01-01-05-02-02-01-12.mp4", "clips/02-01-05-02-02-01-12.mp4", "clips/03-01-05-02-02-01-12.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tracking").mkdir()
    tracked = tmp_path / "tracking" / "01-01-05-02-02-01-12.csv"
    tracked.touch()

    corpus = RavdessConfig(root=str(tmp_path), modality="all", landmarks="tracking")
    clips = {clip.key[:2]: clip for clip in corpus.clips()}

    assert clips["01"].attachments == clips["02"].attachments == {"landmarks.csv": tracked}
    assert clips["03"].attachments == {}


@pytest.fixture(scope="module")
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ravdess") / "raw"
    make("ravdess", folder)
    return folder


def kinds(root: Path, **settings: Any) -> Counter[tuple[str, str]]:
    clips = RavdessConfig(root=str(root), **settings).clips()
    return Counter((clip.source["modality"], clip.source["channel"]) for clip in clips)


def test_a_performance_is_read_once_unless_asked_for(look_alike: Path) -> None:
    assert kinds(look_alike) == kinds(look_alike, modality="av") == {("av", "speech"): 7}
    assert kinds(look_alike, modality="audio") == {("audio", "speech"): 11}
    assert kinds(look_alike, modality="video") == {("video", "speech"): 7}
    every = {("av", "speech"): 7, ("video", "speech"): 7, ("audio", "speech"): 11}
    assert kinds(look_alike, modality="all") == every
    assert kinds(look_alike, modality="all", song=True) == every | {("audio", "song"): 1}


def test_the_sound_only_download_needs_no_setting(look_alike: Path) -> None:
    assert kinds(look_alike / "Audio_Speech_Actors_01-24") == {("audio", "speech"): 11}
    with pytest.raises(UserError, match="modality: auto, song: false; there are 1 audio song"):
        kinds(look_alike / "Audio_Song_Actors_01-24")
    with pytest.raises(UserError, match="modality: video, song: false; there are 11 audio speech"):
        kinds(look_alike / "Audio_Speech_Actors_01-24", modality="video")


def test_all_files_of_a_performance_have_its_take(look_alike: Path) -> None:
    takes = Counter(clip.source["take"] for clip in RavdessConfig(root=str(look_alike), modality="all").clips())
    assert len(takes) == 11
    assert Counter(takes.values()) == {3: 7, 1: 4}
    assert takes["01-05-01-01-01-01"] == 3


def test_what_is_left_out_and_what_lacks_is_told(look_alike: Path, caplog: pytest.LogCaptureFixture) -> None:
    kinds(look_alike)

    left, compared = caplog.messages
    assert "left out 1 audio song, 11 audio speech, 7 video speech" in left
    assert "7 of the 1440 published av speech clips; missing: all of actors 03 04 05" in compared
    assert "; 01-01-01-01-02-01" in compared  # actor 01 lacks her second repetitions


def test_the_published_performances() -> None:
    assert (len(published("speech")), len(published("song"))) == (1440, 1012)
    speech = Counter(take.split("-")[1] for take in published("speech"))
    assert speech == {"01": 96, **dict.fromkeys(("02", "03", "04", "05", "06", "07", "08"), 192)}
    assert "18" not in {take[-2:] for take in published("song")}


def test_a_missing_trial_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for take in published("speech") - {MISSING}:
        (tmp_path / f"03-{take}.wav").touch()

    assert len(list(RavdessConfig(root=str(tmp_path)).clips())) == 1439

    assert f"1439 of the 1440 published audio speech clips; missing: {MISSING}" in caplog.text


def shards(corpus: RavdessConfig, out: Path, **settings: Any) -> ShardSet:
    split = SplitConfig(train=1.0, valid=0.0, test=0.0)
    raw = CorpusConfig(ravdess=corpus)
    write(WriteConfig(corpus=raw, out=str(out), split=split, workers=1, timeout_s=600.0, **settings))
    return ShardSet(out)


def test_look_alike_to_batches(look_alike: Path, tmp_path: Path) -> None:
    corpus = RavdessConfig(root=str(look_alike), landmarks="FacialTracking_Actors_01-24")

    shard_set = shards(corpus, tmp_path / "shards")

    manifest = shard_set.manifest
    assert (manifest.found, manifest.written, manifest.quarantined) == (7, 7, {})
    assert manifest.labels["emotion"] == {"neutral": 2, "happy": 2, "sad": 2, "angry": 1}
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    features = build(FeaturesConfig(video=VideoFeature(landmarks=LandmarksConfig())))
    labels = {"emotion": ("neutral", "happy", "sad", "angry")}
    loader = EvalLoader(
        shard_set, features, vocabulary=None, batch_size=4, rank=0, world=1, split="train", labels=labels
    )
    batches = list(loader.batches())
    found = {key: int(label) for batch in batches for key, label in zip(batch.keys, batch.labels["emotion"])}
    assert found["01-01-05-01-01-01-01"] == 3
    assert found["01-01-03-01-01-01-02"] == 1
    assert all(bool(batch.tracks["video"].present.all()) for batch in batches)


def test_landmarks_are_read_by_column_name_and_a_missing_column_is_told(look_alike: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    names = ("01-01-01-01-01-01-01", "01-01-03-01-01-01-01", "01-01-04-01-01-01-01")
    tracked = raw / "tracked"
    tracked.mkdir(parents=True)
    for name in names:
        shutil.copy(look_alike / "Video_Speech_Actor_01" / "Actor_01" / f"{name}.mp4", raw)
    tables = {}
    for name in names:
        text = (look_alike / "FacialTracking_Actors_01-24" / f"{name}.csv").read_text()
        tables[name] = [line.split(", ") for line in text.splitlines()]
    (tracked / f"{names[0]}.csv").write_text("\n".join(", ".join(row) for row in tables[names[0]]))
    (tracked / f"{names[1]}.csv").write_text("\n".join(",".join(reversed(row)) for row in tables[names[1]]))
    (tracked / f"{names[2]}.csv").write_text("\n".join(", ".join(row[:-1]) for row in tables[names[2]]))

    corpus = RavdessConfig(root=str(raw), landmarks="tracked")
    landmarks = FeaturesConfig(video=VideoFeature(landmarks=LandmarksConfig()))
    shard_set = shards(corpus, tmp_path / "shards", features=landmarks, max_quarantined_share=0.5)

    assert shard_set.manifest.written == 2
    assert shard_set.manifest.counts["without_landmarks"] == 0
    assert "no column y_67" in shard_set.manifest.quarantined[names[2]]
