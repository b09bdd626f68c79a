"""Media bytes -> arrays: sound and pictures through PyAV or, stored as JPEG, simplejpeg. No torch.

Where time 0 is, and what is heard and seen when, is told by `shards.media.timeline`, for cuts too.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from shards.media.sound import Placed, resampled
from shards.media.timeline import DecodeError as DecodeError
from shards.media.timeline import changes_s, header_s, is_truncated, shown_until, stream_of, timed, zero_s
from shards.media.upright import Upright

AUDIO_EXTENSIONS = ("wav", "flac", "m4a")
"""Files with sound only, the first one present is taken; else the sound inside the video file."""
OTHER_MEDIA = (
    *("aac", "ac3", "aif", "aiff", "amr", "m4b", "mka", "mp2", "mp3", "oga", "ogg", "opus", "wma"),
    *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
)
"""Endings of sound and pictures that no reader looks for: such files are encoded anew when they are written."""
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
"""Frames that lie this equally near to a step are equally near: some formats round times."""
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that are not UTF-8 are no damage: PyAV 19 replaces their odd bytes itself and knows no such argument."""

_WAV_SLACK = 256
"""Bytes that a wav's header may promise in vain: some writers count the header (44) or a padding byte as sound."""
_WAV_NEAR = 2**16
"""A size this near to 2 or 4 GiB stands for one that was not known: 0x7ffff000 of sox into a pipe, 0x80000000 of
arecord, 0xffffffff, less a header of some kind, of ffmpeg and browsers."""
_WAV_CHUNKS = 1000
"""At most before the sound."""


def audio_of(members: Mapping[str, bytes]) -> bytes | None:
    """The file to take the sound from, out of a sample's members (extension -> bytes); None if there is none."""
    return next((members[ext] for ext in (*AUDIO_EXTENSIONS, "mp4") if ext in members), None)


def video_of(members: Mapping[str, bytes]) -> bytes | None:
    """The file to take the picture from, out of a sample's members (extension -> bytes); None if there is none."""
    return next((members[ext] for ext in VIDEO_EXTENSIONS if ext in members), None)


def decode_audio(data: bytes, rate_hz: int = 16000) -> np.ndarray | None:
    """Decode the first audio stream of a file, down-mixed (`shards.media.sound`) and resampled.

    Time 0 is the start of the file: a stream that begins later gets zeros in front, and a hole in it is zeros.

    Args:
        data: the whole file (wav, flac, m4a, mp4, ...).
        rate_hz: of the result.

    Returns:
        [N] float32 in [-1, 1], or None if the file has no audio stream.

    Raises:
        DecodeError: damaged, truncated, or longer than MAX_SECONDS.
    """
    with opened(data) as container:
        stream = stream_of(container, "audio")
        if stream is None:
            return None
        _duration_s(container, stream)
        sound = Placed.read(timed(container.decode(stream), zero_s(container)), MAX_SECONDS + 1)
        if not sound.parts:
            raise DecodeError("the audio stream is empty")
        _check_complete("audio", container, stream, sound.end / sound.rate_hz)
    check_sound(sound)
    samples = resampled(sound.between(0, sound.end), sound.rate_hz, rate_hz)
    return np.clip(samples, -1.0, 1.0)


def check_sound(sound: Placed) -> None:
    """Refuse sound that gives no features.

    Raises:
        DecodeError: it holds what is no number, or its channels cancel each other.
    """
    if not all(np.isfinite(samples).all() for _, samples in sound.parts):
        raise DecodeError("the audio holds values that are no numbers")
    if sound.is_cancelled:
        raise DecodeError("the audio's channels are each other's opposite and cancel out; keep one of them")


def decode_video(data: bytes, rate_hz: float) -> np.ndarray | None:
    """Decode the first video stream of a file on a regular grid: step `i` is the frame nearest to `i / rate_hz`.

    Time 0 is the start of the file: a stream that begins later shows its first frame until then. Frames are turned as
    the file says; a cover picture is none.

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
    with opened(data) as container:
        stream = stream_of(container, "video")
        if stream is None:
            return None
        if stream.codec_context is None:
            raise DecodeError("the video's codec is unknown")
        expected_s = _duration_s(container, stream)
        most = MAX_DECODED_BYTES // max(1, stream.width * stream.height * 3)
        if expected_s is not None and expected_s * rate_hz > most:
            raise DecodeError(f"{expected_s * rate_hz:.0f} frames of {stream.width}x{stream.height} are {_TOO_BIG}")
        stream.codec_context.thread_count = 1  # clips are decoded side by side; dav1d counts its threads here too
        stream.thread_type = "NONE"
        grid = _Grid(rate_hz, most, 64 if expected_s is None else math.ceil(expected_s * rate_hz) + 1)
        before = None
        for time_s, frame in timed(container.decode(stream), zero_s(container)):
            if before is not None:
                grid.show(before[1], changes_s(before[0], time_s))
            before = time_s, frame
            if time_s > MAX_SECONDS:
                break
        if before is None:
            raise DecodeError("the video stream is empty")
        end_s = shown_until(stream, *before)
        _check_complete("video", container, stream, float(end_s))
        return grid.finished(before[1], float(end_s))


class _Grid:
    """Frames of a regular grid, filled while they are decoded.

    Args:
        rate_hz: step `i` is at `i / rate_hz`.
        most: steps that may be taken.
        guess: of the number of steps.
    """

    def __init__(self, rate_hz: float, most: int, guess: int) -> None:
        self._rate_hz, self._most, self._guess = rate_hz, most, guess
        self._num = 0
        self._upright: Upright | None = None
        self._steps = np.empty((0, 0, 0, 3), dtype=np.uint8)

    def show(self, frame: Any, until_s: Fraction) -> None:
        """Take a frame for all steps up to a time that no frame before was taken for."""
        self._take(frame, math.floor((float(until_s) + _TIE_S) * self._rate_hz) + 1)

    def finished(self, last: Any, end_s: float) -> np.ndarray:
        """[T, H, W, 3] with the last frame, which ends then.

        Raises:
            DecodeError: no step, or more than may be taken.
        """
        total = num_steps(end_s, self._rate_hz, self._most)
        self._take(last, total)
        return self._steps[:total]

    def _take(self, frame: Any, stop: int) -> None:
        if stop <= self._num:
            return
        if stop <= self._most:  # else all are counted, for the message, and none is kept
            if self._upright is None:
                self._upright = Upright(frame, "rgb24")
                self._steps = self._room(self._guess)
            while len(self._steps) < stop:
                self._steps = np.concatenate([self._steps, self._room(len(self._steps))])
            self._steps[self._num : stop] = self._upright.of(frame).to_ndarray()
        self._num = stop

    def _room(self, num: int) -> np.ndarray:
        assert self._upright is not None
        return np.empty((num, self._upright.height, self._upright.width, 3), dtype=np.uint8)


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
    steps = num_steps(duration_s, rate_hz, most)
    middles = (starts_s[1:].astype(np.float64) + starts_s[:-1]) / 2
    return np.searchsorted(middles + _TIE_S, np.arange(steps) / rate_hz)


def num_steps(duration_s: float, rate_hz: float, most: int) -> int:
    """T = floor(duration_s * rate_hz).

    Raises:
        DecodeError: no step, or more than `most`.
    """
    steps = int(duration_s * rate_hz + 1e-3)  # 3.0 s written as 2.99999 s are 75 frames of 1/25 s
    if steps == 0:
        raise DecodeError("the video stream is shorter than one step")
    if steps > most:
        raise DecodeError(f"{steps} frames are {_TOO_BIG}")
    return steps


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
    seconds = header_s(container, stream)
    if math.isinf(seconds):
        return None
    if seconds > MAX_SECONDS:
        raise DecodeError(f"{seconds:.0f} s long; the limit is {MAX_SECONDS:.0f} s")
    return seconds


def _check_complete(what: str, container: Any, stream: Any, found_s: float) -> None:
    if found_s > MAX_SECONDS:
        raise DecodeError(f"{found_s:.0f} s of {what}; the limit is {MAX_SECONDS:.0f} s")
    if is_truncated(container, stream, found_s):
        told_s = header_s(container, stream)
        raise DecodeError(f"truncated: {found_s:.2f} s of {what} where the header says {told_s:.2f} s")


def _check_riff(source: BinaryIO) -> None:
    """Refuse a wav file whose sound is cut off: FFmpeg would decode what is there and stay silent.

    What RIFF says of the whole file is not looked at: many writers are off by some bytes.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    head = source.read(12)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE":
        place, says = _wav_data(source, size)
        if says is not None and size + _WAV_SLACK < place + says:
            raise DecodeError(f"truncated: {size} bytes where the header says {place + says}")
    source.seek(0)


def _wav_data(source: BinaryIO, size: int) -> tuple[int, int | None]:
    """Where a wav file's samples begin and how many bytes they are; None where the header does not tell."""
    place, long = 12, None
    for _ in range(_WAV_CHUNKS):
        if place + 8 > size:
            break
        source.seek(place)
        name, says = source.read(4), int.from_bytes(source.read(4), "little")
        place += 8
        if name == b"ds64":  # of RF64, for files above 4 GiB
            long = int.from_bytes(source.read(16)[8:], "little")
        if name == b"data":
            if says == 2**32 - 1 and long:
                return place, long if long < 2**63 else None
            written_later = says == 0 or any(abs(says - power) < _WAV_NEAR for power in (2**31, 2**32))
            return place, None if written_later else says
        place += says + says % 2
    return place, None


def _reason(error: Exception) -> str:
    """What the library says, without its own source lines, clock times and error numbers."""
    if isinstance(error, av.FFmpegError) and error.strerror:
        return str(error.strerror)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+?:\d+: ", "", text)[:200]
