"""A step's time is that of the frame it shows, at whatever rate the file has."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from told_films import Film, make, number_of

from pretrain.masking import MaskConfig, hidden_steps
from shards.features.config import FeaturesConfig, VideoFeature
from shards.features.face_crops import FaceCrops, FaceCropsConfig
from shards.features.words import WORDS
from shards.media.decode import decode_video, video_of
from shards.media.media_form import StoreConfig
from shards.reading.collate import Sample, Steps, collate, feature_steps
from shards.record import ClipRecord, Cut, FrameTimes
from shards.writing.probe import Job, Opened, open_clip

FILMS = {
    "24": Film(fps=Fraction(24)),
    "30": Film(fps=Fraction(30)),
    "15": Film(fps=Fraction(15)),
    "29.97": Film(fps=Fraction(30000, 1001)),
    "late": Film(late=(0.33, 0.0)),
    "variable": Film(ticks=[0, 20, 100, 110, 300, 420, 433, 500, 560, 600, 700, 733, 766, 900, 1000]),
}
FEATURES = FeaturesConfig(video=VideoFeature(face_crops=FaceCropsConfig(size=8)))


def opened(path: Path, store: StoreConfig, cut: Cut | None = None) -> Opened:
    return open_clip(Job(key="a", video=path, audio=None, cut=cut), FEATURES, store)


def record_of(found: Opened) -> ClipRecord:
    record = ClipRecord(
        key="a",
        speaker="s",
        split="train",
        duration_s=found.duration_s,
        has_audio=True,
        has_video=True,
        words=None,
        source={},
        labels={},
        frames=found.frames,
    )
    return ClipRecord.from_json(json.loads(record.to_bytes()))


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("store", [StoreConfig(), StoreConfig(media="frames", size=(32, 64))], ids=["mp4", "frames"])
@pytest.mark.parametrize("rate_hz", [25.0, 10.0, 5.0])
def test_a_steps_span_holds_the_frame_that_it_shows(
    tmp_path: Path, name: str, store: StoreConfig, rate_hz: float
) -> None:
    film = FILMS[name]
    found = opened(make(tmp_path / "film.mp4", film), store)
    picture = video_of(found.members)
    assert picture is not None
    frames = decode_video(picture, rate_hz)
    assert frames is not None
    spec = FaceCrops(FaceCropsConfig(rate_hz=rate_hz)).spec
    times = feature_steps(np.zeros((len(frames), 32, 32), np.uint8), spec, record_of(found).frames).times
    starts_s = np.append(film.starts_s(), film.starts_s()[-1] + 1 / float(film.fps))
    numbers = [number_of(frame) for frame in frames]
    for step, number in enumerate(numbers):
        begin_s, end_s = times[step]
        assert begin_s <= starts_s[number] + 2e-3
        if number < len(starts_s) - 2:  # the length of the last frame of a variable rate is not known
            assert end_s >= starts_s[number + 1] - 2e-3
            assert end_s - begin_s <= max(1 / rate_hz, starts_s[number + 1] - starts_s[number]) + 2e-3


@pytest.mark.parametrize("name", FILMS)
def test_no_frame_of_a_masked_word_is_left(tmp_path: Path, name: str) -> None:
    """At 24, 30 and 15 frames a second up to 53 ms of it were."""
    film = FILMS[name]
    found = opened(make(tmp_path / "film.mp4", film), StoreConfig())
    frames = decode_video(found.members["mp4"], 25.0)
    assert frames is not None
    spec = FaceCrops(FaceCropsConfig()).spec
    edges_s = np.append(film.starts_s(), film.starts_s()[-1] + 0.2)
    numbers = np.array([number_of(frame) for frame in frames])
    steps = feature_steps(np.zeros((len(frames), 32, 32), np.uint8), spec, found.frames)
    for start_s in np.linspace(0.3, 0.9, 13):
        word = Steps(np.array([1]), np.array([[start_s, start_s + 0.1]], dtype=np.float32))
        sample = Sample(record=record_of(found), epoch=0, steps={"text": word, "video": steps})
        batch = collate([sample], {"text": WORDS, "video": spec}, {})
        hidden = hidden_steps(batch, torch.tensor([[True]]), MaskConfig())["video"][0].numpy()
        shows = (edges_s[numbers] < start_s + 0.1 - 2e-3) & (edges_s[numbers + 1] > start_s + 2e-3)
        assert not (shows & ~hidden).any()


def test_at_the_features_own_rate_and_in_older_sets_times_are_those_of_the_grid(tmp_path: Path) -> None:
    found = opened(make(tmp_path / "film.mp4", Film()), StoreConfig())
    assert found.frames == FrameTimes(start_s=0.0, rate_hz=25.0)
    old = {name: value for name, value in record_of(found).to_json().items() if name != "frames"}
    assert ClipRecord.from_json(json.loads(json.dumps(old))).frames is None
    spec = FaceCrops(FaceCropsConfig()).spec
    values = np.zeros((62, 32, 32), np.uint8)
    np.testing.assert_array_equal(feature_steps(values, spec, found.frames).times, feature_steps(values, spec).times)


def test_a_cut_tells_the_frames_of_what_is_stored(tmp_path: Path) -> None:
    path = make(tmp_path / "film.mp4", Film(fps=Fraction(30)))
    found = opened(path, StoreConfig(), Cut(start_s=0.51, end_s=1.6))
    assert found.frames is not None
    assert found.frames.edges_s is not None  # the first frame was there before the cut
    assert found.frames.edges_s[:2] == pytest.approx((0.0, 16 / 30 - 0.51), abs=0.001)
