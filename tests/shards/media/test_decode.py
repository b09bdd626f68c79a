from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from shards.media.decode import DecodeError, decode_audio, decode_video


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a", ".mp4"])
def test_sound_is_mono_at_the_asked_rate_and_in_place(make_clip, tmp_path: Path, suffix: str) -> None:
    data = make_clip(tmp_path / f"clip{suffix}", seconds=1.0, rate_hz=22050).read_bytes()

    samples = decode_audio(data, rate_hz=16000)

    assert samples is not None
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 16000) < 1600  # AAC fills its last block
    assert np.abs(samples).max() <= 1.0
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    assert loud[0] / 16000 == pytest.approx(0.5, abs=0.03)
    assert np.sqrt(np.mean(samples[9000:15000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), abs=0.03)


def test_missing_streams_are_none(make_clip, tmp_path: Path) -> None:
    assert decode_audio(make_clip(tmp_path / "mute.mp4", audio=False).read_bytes()) is None
    assert decode_video(make_clip(tmp_path / "sound.m4a").read_bytes(), 25) is None


@pytest.mark.parametrize("fps", [25, 30, Fraction(30000, 1001), 10])
@pytest.mark.parametrize("rate_hz", [25.0, 10.0])
def test_frames_are_taken_by_time(make_clip, tmp_path: Path, fps: Fraction, rate_hz: float) -> None:
    data = make_clip(tmp_path / "clip.mp4", seconds=2.0, fps=fps, audio=False).read_bytes()

    frames = decode_video(data, rate_hz)

    assert frames is not None
    assert frames.shape == (int(2.0 * rate_hz), 64, 64, 3)
    assert frames.dtype == np.uint8
    told_s = frames.mean(axis=(1, 2, 3)) / 250 * (2.0 - 1 / float(fps))  # brightness tells the time
    half_frame_s = 0.5 / float(fps)
    late = np.arange(len(frames)) / rate_hz > 2.0 - 1 / float(fps)  # after the last frame there is none nearer
    assert np.abs(told_s - np.arange(len(frames)) / rate_hz)[~late].max() < half_frame_s + 0.03


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(make_clip, tmp_path: Path, part: float) -> None:
    for name in ("clip.mp4", "clip.wav"):
        data = make_clip(tmp_path / name, seconds=2.0).read_bytes()
        with pytest.raises(DecodeError):
            decode_audio(data[: int(part * len(data))])
    video = make_clip(tmp_path / "clip.mp4", seconds=2.0, audio=False).read_bytes()
    with pytest.raises(DecodeError):
        decode_video(video[: int(part * len(video))], 25)


@pytest.mark.parametrize("data", [b"", b"not media at all" * 100, bytes(5000)])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode_audio(data)
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode_video(data, 25)


def test_a_clip_that_fills_the_memory_is_refused_with_or_without_a_length(
    make_clip, tmp_path: Path, monkeypatch
) -> None:
    data = make_clip(tmp_path / "clip.mp4", seconds=1.0, audio=False).read_bytes()
    monkeypatch.setattr("shards.media.decode.MAX_DECODED_BYTES", 10 * 64 * 64 * 3)
    assert decode_video(data, 10.0) is not None
    with pytest.raises(DecodeError, match="25 frames of 64x64 are more than"):
        decode_video(data, 25.0)
    monkeypatch.setattr("shards.media.decode._duration_s", lambda container, stream: None)
    with pytest.raises(DecodeError, match="25 frames are more than"):
        decode_video(data, 25.0)
