import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from shards.media.cut import cut_media
from shards.media.decode import DecodeError, decode_audio, decode_video
from shards.record import Cut


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


def wav(samples: np.ndarray, *, riff: int | None = None, data: int | None = None, rate_hz: int = 16000) -> bytes:
    """[N, C] as a wav file of whatever sizes its header is to tell; None is the right one."""
    kinds = {"int16": (1, 16), "int32": (1, 32), "uint8": (1, 8), "float32": (3, 32), "float64": (3, 64)}
    kind, bits = kinds[samples.dtype.name]
    content, channels = samples.tobytes(), samples.shape[1]
    data = len(content) if data is None else data
    riff = 36 + len(content) if riff is None else riff
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * block, block, bits)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + (struct.pack("<I", data) + content)
    )


def voice(num: int = 16000) -> np.ndarray:
    """[N, 1] int16"""
    return (29000 * np.sin(2 * np.pi * 440 * np.arange(num) / 16000)).round().astype(np.int16)[:, None]


SIZES = {
    "sox into a pipe": (0x7FFFF024, 0x7FFFF000),
    "arecord": (0x80000024, 0x80000000),
    "ffmpeg into a pipe": (0xFFFFFFFF, 0xFFFFFFFF),
    "a browser": (0xFFFFFFFF, 0xFFFFFFDB),
    "a signed limit": (0x7FFFFFFF, 0x7FFFFFDB),
    "not yet known": (0, 0),
    "never finished": (36, 0),
    "one too many": (32037, 32001),
    "one too many in all": (32037, 32000),
    "with the header": (32044, 32044),
    "half of RIFF": (100, 32000),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_wav_is_read_to_its_end_whatever_size_its_writer_could_tell(tmp_path: Path, kind: str) -> None:
    riff, data = SIZES[kind]
    content = wav(voice(), riff=riff, data=data)
    samples = decode_audio(content)
    np.testing.assert_array_equal(samples, voice()[:, 0] / np.float32(32768))
    (tmp_path / "a.wav").write_bytes(content)
    part = decode_audio(cut_media(None, tmp_path / "a.wav", Cut(start_s=0.5, end_s=2.0))["flac"])
    np.testing.assert_array_equal(part, samples[8000:])


def test_a_64_bit_wav_is_read_and_refused_where_it_is_cut_off() -> None:
    plain = wav(voice(), riff=2**32 - 1, data=2**32 - 1)
    for says, whole in ((32000, True), (64000, False)):
        long = b"RF64" + plain[4:12] + b"ds64" + struct.pack("<IQQQI", 28, 2**64 - 1, says, says // 2, 0) + plain[12:]
        if whole:
            assert decode_audio(long) is not None
        else:
            with pytest.raises(DecodeError, match="truncated"):
                decode_audio(long)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_wav_that_is_cut_off_is_refused(part: float) -> None:
    whole = wav(voice())
    with pytest.raises(DecodeError, match=r"truncated: \d+ bytes where the header says 32044"):
        decode_audio(whole[: int(part * len(whole))])


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "float64"])
@pytest.mark.parametrize("gains", [(1,), (1, 1), (1, 0), (1, 1, 1, 1, 1, 1), (0, 0, 0.5, 0, 0, 0)])
def test_a_mix_is_never_louder_than_its_loudest_channel(tmp_path: Path, kind: str, gains: tuple[float, ...]) -> None:
    """Also of floats, of bytes, and of channels whose places the file does not tell."""
    scaled = voice() / 32768 * np.array(gains)
    to = {"int16": 32767, "int32": 2**31 - 1, "uint8": 127}.get(kind, 1)
    content = wav((scaled * to + (128 if kind == "uint8" else 0)).astype(kind))
    (tmp_path / "a.wav").write_bytes(content)
    cut = cut_media(None, tmp_path / "a.wav", Cut())["flac"]
    for samples in (decode_audio(content), decode_audio(cut)):
        assert samples is not None
        weight = sum(gains) / len(gains)
        assert np.abs(samples).max() == pytest.approx(29000 / 32768 * weight, abs=0.01)


def test_channels_that_cancel_each_other_are_refused(tmp_path: Path) -> None:
    content = wav(np.hstack([voice(), -voice()]))
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DecodeError, match="each other's opposite and cancel out; keep one of them"):
        decode_audio(content)
    with pytest.raises(DecodeError, match="each other's opposite"):
        cut_media(None, tmp_path / "a.wav", Cut())
    silent = decode_audio(wav(np.zeros((16000, 2), dtype=np.int16)))
    assert silent is not None
    assert not silent.any()


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
