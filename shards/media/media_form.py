"""In which form a clip's media go into the shards: as they are, or the picture as JPEG frames of one size and rate.

With `media: frames` the mp4 gives way to `<key>.frames.npz` (`shards.media.frames`) and, if it held the only sound, to
`<key>.m4a` with the same audio packets. What is left of the mp4 is what a run can see; `benchmarks/README.md` tells
what either form costs in bytes and time.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from shards.media.decode import AUDIO_EXTENSIONS, DecodeError, decode_audio, decode_video
from shards.media.frames import pack
from triptych.config import nearest

_FORMS = ("original", "frames")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """The form of the stored media; all but `media` is of the frames."""

    media: str = "original"
    """`original`: every file unchanged. `frames`: the picture as JPEG, which costs more bytes and reads faster."""
    size: tuple[int, int] = (224, 224)
    """Height and width in pixels; VoxCeleb2's own by default. Frames of another shape are stretched to it."""
    rate_hz: float = 25.0
    quality: int = 90
    """Of the JPEG."""

    def __post_init__(self) -> None:
        if self.media not in _FORMS:
            raise ValueError(f"store.media: no form {self.media!r}.{nearest(self.media, _FORMS)}")
        if not all(8 <= side <= 2048 for side in self.size):
            raise ValueError(f"store.size: {list(self.size)}; expected height and width of 8 to 2048 pixels")
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"store.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"store.quality: {self.quality}; expected 1 to 95")
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if changed and self.media == "original":
            raise ValueError(f"store.{changed[0]}: has no effect on the original files; add store.media=frames")


def as_frames(media: Mapping[str, bytes], config: StoreConfig) -> dict[str, bytes]:
    """Replace the mp4 by its frames and, where no other file has it, its sound.

    Args:
        media: extension -> bytes of a clip's files.
        config: size, rate and quality of the frames.

    Returns:
        The same without "mp4", with "frames.npz" and perhaps "m4a" or "flac"; unchanged if there is no picture.

    Raises:
        DecodeError: the mp4 is damaged.
    """
    video = media.get("mp4")
    frames = None if video is None else decode_video(video, config.rate_hz)
    if video is None or frames is None:
        return dict(media)
    kept = {extension: data for extension, data in media.items() if extension != "mp4"}
    if not any(extension in kept for extension in AUDIO_EXTENSIONS):
        kept |= _sound(video)
    return {**kept, "frames.npz": pack(_resized(frames, config.size), config.rate_hz, config.quality)}


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frames.shape[1:3] == size:
        return frames
    height, width = size  # Pillow computes in integers: the same pixels on every machine
    shrunk = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(image) for image in shrunk])


def _sound(video: bytes) -> dict[str, bytes]:
    """Extension -> the first audio stream of a file as a file of its own; nothing if there is none."""
    samples = decode_audio(video)
    if samples is None:
        return {}
    try:
        alone = _remuxed(video)
        heard = decode_audio(alone)
        if heard is not None and np.array_equal(heard, samples):  # in place, too
            return {"m4a": alone}
    except (av.FFmpegError, DecodeError, ValueError):  # a codec that m4a cannot hold
        pass
    return {"flac": _flac(video)}


def _remuxed(video: bytes) -> bytes:
    """The audio packets as they are, in an mp4 container of their own."""
    content = io.BytesIO()
    # bitexact: the muxer's version would make other bytes of the same packets
    with av.open(io.BytesIO(video)) as source, av.open(content, "w", "mp4", {"fflags": "+bitexact"}) as target:
        stream = source.streams.audio[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:  # else the empty packet that ends the file
                packet.stream = copy
                target.mux(packet)
    return content.getvalue()


def _flac(video: bytes) -> bytes:
    """The sound in 16 bits at its own rate, down-mixed as `decode_audio` does for every reader."""
    with av.open(io.BytesIO(video)) as source:
        rate_hz = source.streams.audio[0].rate
    samples = decode_audio(video, rate_hz)
    assert samples is not None, "the caller found sound"
    return flac((samples * 32767).round().astype(np.int16), rate_hz)


def flac(samples: np.ndarray, rate_hz: int) -> bytes:
    """The content of a .flac of one channel, [N] int16."""
    content = io.BytesIO()
    with av.open(content, "w", "flac") as target:
        stream = target.add_stream("flac", rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return content.getvalue()
