import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from shards.check import run as check
from shards.features.config import build
from shards.media.decode import DecodeError, decode_audio, decode_video
from shards.media.media_form import StoreConfig, as_frames
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.write import WriteConfig, write
from triptych.config import UserError, load

FRAMES = StoreConfig(media="frames", size=(64, 64))


def film_with(codec: str, container: str, late_s: float = 0.0) -> bytes:
    """One second of grey picture, and a tone that begins `late_s` after it."""
    content = io.BytesIO()
    with av.open(content, "w", container) as target:
        picture = target.add_stream("h264", rate=25, options={"preset": "ultrafast"})
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        sound = target.add_stream(codec, rate=22050, layout="stereo")
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, dtype=np.uint8), format="rgb24")
            target.mux(picture.encode(frame))
        target.mux(picture.encode())
        tone = 12000 * np.sin(np.arange(22050) / 8)
        interleaved = np.repeat(tone, 2).astype(np.int16)[None]
        samples = av.AudioFrame.from_ndarray(interleaved, format="s16", layout="stereo")
        samples.sample_rate, samples.time_base, samples.pts = 22050, Fraction(1, 22050), round(late_s * 22050)
        target.mux(sound.encode(samples))
        target.mux(sound.encode())
    return content.getvalue()


@pytest.mark.parametrize("late_s", [0.0, 0.3])
def test_the_sound_stays_sample_by_sample_and_in_place(late_s: float) -> None:
    film = film_with("aac", "mp4", late_s)

    stored = as_frames({"mp4": film, "landmarks.csv": b"1,2"}, FRAMES)

    assert set(stored) == {"frames.npz", "m4a", "landmarks.csv"}
    before, after = decode_audio(film), decode_audio(stored["m4a"])
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after, before)
    assert np.flatnonzero(np.abs(after) > 0.1)[0] / 16000 == pytest.approx(late_s, abs=0.02)
    assert as_frames({"mp4": film}, FRAMES)["m4a"] == stored["m4a"]


def test_sound_that_m4a_cannot_hold_becomes_flac() -> None:
    film = film_with("pcm_mulaw", "mov", late_s=0.3)

    stored = as_frames({"mp4": film}, FRAMES)

    assert set(stored) == {"frames.npz", "flac"}
    before, after = decode_audio(film, 22050), decode_audio(stored["flac"], 22050)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after, before, atol=1 / 32768)
    with av.open(io.BytesIO(stored["flac"])) as container:
        assert container.streams.audio[0].rate == 22050


def test_what_has_its_own_sound_or_none_gets_no_second_one(make_clip, tmp_path: Path) -> None:
    film = make_clip(tmp_path / "clip.mp4").read_bytes()
    mute = make_clip(tmp_path / "mute.mp4", audio=False).read_bytes()
    assert set(as_frames({"mp4": film, "wav": b"its sound"}, FRAMES)) == {"frames.npz", "wav"}
    assert set(as_frames({"mp4": mute}, FRAMES)) == {"frames.npz"}


def test_sound_without_a_picture_is_left_as_it_is(make_clip, tmp_path: Path) -> None:
    sound = {"m4a": make_clip(tmp_path / "clip.m4a").read_bytes()}
    only_named_mp4 = {"mp4": sound["m4a"]}
    assert as_frames(sound, FRAMES) == sound
    assert as_frames(only_named_mp4, FRAMES) == only_named_mp4


def test_size_and_rate_are_those_asked_for(make_clip, tmp_path: Path) -> None:
    film = make_clip(tmp_path / "clip.mp4", seconds=1.0, fps=30, size=64, audio=False).read_bytes()

    stored = as_frames({"mp4": film}, StoreConfig(media="frames", size=(24, 32), rate_hz=10.0))

    archive = np.load(io.BytesIO(stored["frames.npz"]), allow_pickle=False)
    assert len(archive["starts"]) == 10 + 1
    frames = decode_video(stored["frames.npz"], 10.0)
    assert frames is not None
    assert frames.shape == (10, 24, 32, 3)
    told_s = frames.mean(axis=(1, 2, 3)) / 250 * (1 - 1 / 30)  # brightness tells the time
    np.testing.assert_allclose(told_s, np.arange(10) / 10, atol=0.04)


def test_damage_is_found_before_it_is_packed(make_clip, tmp_path: Path) -> None:
    film = make_clip(tmp_path / "clip.mp4", seconds=2.0).read_bytes()
    with pytest.raises(DecodeError):
        as_frames({"mp4": film[: len(film) * 2 // 3]}, FRAMES)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"media": "frame"}, "Did you mean frames"),
        ({"media": "frames", "size": [0, 224]}, "height and width"),
        ({"media": "frames", "rate_hz": 0}, "more than 0"),
        ({"media": "frames", "quality": 100}, "1 to 95"),
        ({"rate_hz": 5.0}, "no effect on the original"),
    ],
)
def test_mistakes_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(StoreConfig, fields)


@pytest.mark.slow
def test_a_set_of_frames_is_checked_and_streams_the_same_numbers_stored_or_not(
    make_corpus: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, out = make_corpus(), tmp_path / "out"
    fields = {
        "corpus": {"voxceleb2": {"root": str(root), "transcripts": ["transcripts.ctm"]}},
        "out": str(out),
        "split": {"train": 0.5, "valid": 0.5, "test": 0.0},
        "store": {"media": "frames", "size": [32, 32]},
        "features": {"audio": {"lfbe": {"bands": 4}}, "video": {"face_crops": {"size": 8}}},
        "workers": 1,
    }
    config = load(WriteConfig, fields)
    write(config)
    assert check(str(out)) == 0

    split = ShardSet(out).split("valid")
    assert len(split)
    for sample_id in range(len(split)):
        members = split.read(sample_id)
        assert set(members) == {"json", "frames.npz", "m4a", "lfbe.npy", "face_crops.npy"}
        for feature in build(config.features).values():
            stored = np.load(io.BytesIO(members[f"{feature.spec.name}.npy"]), allow_pickle=False)
            np.testing.assert_array_equal(
                feature.compute({"frames.npz": members["frames.npz"], "m4a": members["m4a"]}), stored
            )
    asked = load(WriteConfig, {**fields, "features": {"video": {"face_crops": {"size": 16, "rate_hz": 5.0}}}})
    loader = EvalLoader(ShardSet(out), build(asked.features), vocabulary=None, batch_size=3, rank=0, world=1)
    batches = list(loader.batches())
    assert "computed while reading" in caplog.text
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted(
        json.loads(split.read(number, ("json",))["json"])["key"] for number in range(len(split))
    )
    assert all(batch.tracks["video"].present.all() for batch in batches)
