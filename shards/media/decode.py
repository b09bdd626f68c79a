"""Media bytes -> arrays: sound through PyAV, pictures through decord or, stored as JPEG, simplejpeg. No torch.

Sound of a 3 s clip takes PyAV 3 ms and decord 12 ms; its pictures take decord 50 ms and PyAV 87 ms. decord, however,
crashes the process on 8-22 % of mp4 files with damaged headers, PyAV on none of those tried: every file goes through
`shards.writing.probe` in a child process when shards are written, and later only bytes whose hash is known reach
decord.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

AUDIO_EXTENSIONS = ("wav", "flac", "m4a")
"""Files with sound only, the first one present is taken; else the sound inside the video file."""
VIDEO_EXTENSIONS = ("mp4", "frames.npz")
"""Files with the picture, the first one present is taken; see `shards.media.frames` for the second."""

MAX_BYTES = 512 * 2**20
"""Of one media file; a talking-face clip has under 20 MiB, so that this only stops files given by mistake."""
MAX_SECONDS = 600.0
"""Of one clip; the longest VoxCeleb2 utterance has 220 s."""
MAX_DECODED_BYTES = 4 * 2**30
"""Of one clip's RGB frames in memory: 75 s of 25 full-HD frames a second would already be more than 10 GiB."""
_TOO_BIG = f"more than the {MAX_DECODED_BYTES // 2**30} GiB that one clip may take in memory"
_TIE_S = 1e-4
"""Frames that lie this equally near to a step are equally near: decord's times are float32, 200 s to 2e-5."""
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that are not UTF-8 are no damage: PyAV 19 replaces their odd bytes itself and knows no such argument."""
MISSING_S = 0.5
"""A stream that ends this much before its header says is truncated; encoders' own rounding stays below 0.1 s."""


class DecodeError(ValueError):
    """The media is damaged, truncated or beyond the limits; the message is one plain sentence."""


def audio_of(members: Mapping[str, bytes]) -> bytes | None:
    """The file to take the sound from, out of a sample's members (extension -> bytes); None if there is none."""
    return next((members[ext] for ext in (*AUDIO_EXTENSIONS, "mp4") if ext in members), None)


def video_of(members: Mapping[str, bytes]) -> bytes | None:
    """The file to take the picture from, out of a sample's members (extension -> bytes); None if there is none."""
    return next((members[ext] for ext in VIDEO_EXTENSIONS if ext in members), None)


def decode_audio(data: bytes, rate_hz: int = 16000) -> np.ndarray | None:
    """Decode the first audio stream of a file, down-mixed and resampled.

    Time 0 is the start of the file: a stream that begins later gets zeros in front.

    Args:
        data: the whole file (wav, flac, m4a, mp4, ...).
        rate_hz: of the result.

    Returns:
        [N] float32 in [-1, 1], or None if the file has no audio stream.

    Raises:
        DecodeError: damaged, truncated, or longer than MAX_SECONDS.
    """
    with opened(data) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        expected_s = _duration_s(container, stream)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        parts, start_s = [], None
        for frame in container.decode(stream):
            if start_s is None:
                start_s = frame.time or 0.0
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        if start_s is None:
            raise DecodeError("the audio stream is empty")
        parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    lead = np.zeros(max(0, round(start_s * rate_hz)), dtype=np.float32)
    samples = np.concatenate([lead, *parts]).astype(np.float32, copy=False)
    _check_complete("audio", expected_s, len(samples) / rate_hz)
    if not np.isfinite(samples).all():
        raise DecodeError("the audio holds values that are no numbers")
    return np.clip(samples, -1.0, 1.0)


def decode_video(data: bytes, rate_hz: float) -> np.ndarray | None:
    """Decode the first video stream of a file on a regular grid: step `i` is the frame nearest to `i / rate_hz`.

    Args:
        data: the whole file (mp4, or frames.npz).
        rate_hz: frames a second of the result, whatever the file has.

    Returns:
        [T, H, W, 3] uint8 with T = floor(duration * rate_hz), or None if the file has no video stream.

    Raises:
        DecodeError: damaged, truncated, or beyond the limits.
    """
    if data[:4] == b"PK\x03\x04":  # a zip, which npz is
        from shards.media.frames import unpack  # only here: it stands on this module

        return unpack(data, rate_hz)
    with opened(data) as container:  # PyAV reads the header first, since decord may crash on one that is damaged
        if not container.streams.video:
            return None
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise DecodeError("the video's codec is unknown")
        expected_s = _duration_s(container, stream)
        most = MAX_DECODED_BYTES // max(1, stream.width * stream.height * 3)
        if expected_s is not None and expected_s * rate_hz > most:
            raise DecodeError(f"{expected_s * rate_hz:.0f} frames of {stream.width}x{stream.height} are {_TOO_BIG}")
    return _decord_frames(data, rate_hz, expected_s, most)


def _decord_frames(data: bytes, rate_hz: float, expected_s: float | None, most: int) -> np.ndarray:
    """As `decode_video`; a header that does not say how long the clip is, or lies, gets at most `most` frames."""
    import decord  # only here: sound and words work without it

    decord.logging.set_level(decord.logging.FATAL)  # errors are raised; its own lines on stderr name no clip

    try:
        reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
        times = reader.get_frame_timestamp(np.arange(len(reader)))  # [F, 2] start and end in seconds
        duration_s = float(times[:, 1].max())
        _check_complete("video", expected_s, duration_s)
        wanted = on_grid(times[:, 0], duration_s, rate_hz, most)
        frames, places = np.unique(wanted, return_inverse=True)
        decoded = reader.get_batch(frames).asnumpy()
    except (decord.DECORDError, RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the video cannot be decoded ({_reason(error)})") from None
    return decoded if len(frames) == len(wanted) else decoded[places]


def on_grid(starts_s: np.ndarray, duration_s: float, rate_hz: float, most: int) -> np.ndarray:
    """For each step of a regular grid the frame that starts nearest to it; the earlier one of two equally near.

    Args:
        starts_s: [F] when each frame starts, ascending.
        duration_s: when the last frame ends.
        rate_hz: step `i` is at `i / rate_hz`.
        most: steps that may be taken.

    Returns:
        [T] indices into `starts_s`, T = floor(duration_s * rate_hz).

    Raises:
        DecodeError: no step, or more than `most`.
    """
    steps = int(duration_s * rate_hz + 1e-3)  # 3.0 s written as 2.99999 s are 75 frames of 1/25 s
    if steps == 0:
        raise DecodeError("the video stream is shorter than one step")
    if steps > most:
        raise DecodeError(f"{steps} frames are {_TOO_BIG}")
    middles = (starts_s[1:].astype(np.float64) + starts_s[:-1]) / 2
    return np.searchsorted(middles + _TIE_S, np.arange(steps) / rate_hz)


@contextmanager
def opened(file: bytes | Path) -> Iterator[Any]:
    """A PyAV container; everything PyAV raises inside becomes a DecodeError.

    Args:
        file: the whole file; or its path, which may be of any size: only what is asked for is read.
    """
    if isinstance(file, bytes) and len(file) > MAX_BYTES:
        raise DecodeError(f"{len(file) / 2**20:.0f} MiB in one media file; the limit is {MAX_BYTES // 2**20} MiB")
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as source:
            _check_riff(source)
            with av.open(source, **_ANY_TAGS) as container:
                yield container
    except (av.FFmpegError, EOFError) as error:
        raise DecodeError(f"the file cannot be decoded ({_reason(error)})") from None
    except OSError as error:
        name = file.name if isinstance(file, Path) else "the file"
        raise DecodeError(f"{name} cannot be read: {error.strerror}") from None


def _duration_s(container: Any, stream: Any) -> float | None:
    """End of the stream as the header has it, in seconds from the start of the file; None where it does not say."""
    if stream.duration is not None:
        seconds = float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    else:
        return None
    if seconds > MAX_SECONDS:
        raise DecodeError(f"{seconds:.0f} s long; the limit is {MAX_SECONDS:.0f} s")
    return seconds


def _check_complete(what: str, expected_s: float | None, found_s: float) -> None:
    if found_s > MAX_SECONDS:
        raise DecodeError(f"{found_s:.0f} s of {what}; the limit is {MAX_SECONDS:.0f} s")
    if expected_s is not None and found_s < expected_s - MISSING_S:
        raise DecodeError(f"truncated: {found_s:.2f} s of {what} where the header says {expected_s:.2f} s")


def _check_riff(source: BinaryIO) -> None:
    """Refuse a wav file shorter than its header says: FFmpeg would decode what is there and stay silent."""
    head, size = source.read(8), source.seek(0, io.SEEK_END)
    source.seek(0)
    if head[:4] == b"RIFF" and len(head) == 8:
        says = int.from_bytes(head[4:], "little") + 8
        if size < says < 2**32:  # streaming writers put 0 or 2**32 - 1
            raise DecodeError(f"truncated: {size} bytes where the header says {says}")


def _reason(error: Exception) -> str:
    """What the library says, without its own source lines, clock times and error numbers."""
    if isinstance(error, av.FFmpegError) and error.strerror:
        return str(error.strerror)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+?:\d+: ", "", text)[:200]
