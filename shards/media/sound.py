"""Sound on a file's timeline: every frame down-mixed to one channel and put where its time says. No torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np

JITTER_S = 0.002
"""Sound that is this little off its time follows what was before: some formats give times in whole milliseconds."""

_WEIGHTS = {"FC": 1.0, "FL": math.sqrt(0.5), "FR": math.sqrt(0.5), "BC": math.sqrt(0.5), "LFE": 0.0, "LFE2": 0.0}
"""Of a channel in the mix, as of libswresample (from ITU-R BS.775)."""
_OTHER = 0.5
"""Of every other channel, which is behind, beside or above, or at a place that the file does not tell."""

_SILENT = 1e-6
"""Mean square, -60 dB of full scale: below it nothing was to be heard in any channel."""
_CANCELLED = 1e-4
"""Of the mean square, -40 dB: what two channels of a recording turned upside down leave of each other."""


@dataclass
class Placed:
    """Samples of one channel at places from the start of the file."""

    rate_hz: int = 0
    end: int = 0
    """Place after the last sample."""
    parts: list[tuple[int, np.ndarray]] = field(default_factory=list)
    complete: bool = True
    """Whether the stream was read to its end."""
    loudness: tuple[float, float] = (0.0, 0.0)
    """Sum of squares of the loudest of several channels, and of their mix."""

    @classmethod
    def read(cls, frames: Iterator[tuple[Fraction, Any]], stop_s: float) -> "Placed":
        """Sound up to the first frame that reaches `stop_s`, from times since the start of the file and frames."""
        sound = cls()
        for time_s, frame in frames:
            sound.rate_hz = sound.rate_hz or frame.sample_rate
            at = round(time_s * sound.rate_hz)
            if not sound.parts or abs(at - sound.end) > JITTER_S * sound.rate_hz:
                sound.end = at
            channels = _channels(frame)
            mixed = _mix(channels, frame)
            if len(channels) > 1:
                loudest, left = sound.loudness
                loudness = np.einsum("cn,cn->c", channels, channels).max()
                sound.loudness = loudest + float(loudness), left + float(mixed @ mixed)
            samples = resampled(mixed, frame.sample_rate, sound.rate_hz)
            sound.parts.append((sound.end, samples))
            sound.end += len(samples)
            if sound.end >= stop_s * sound.rate_hz:
                sound.complete = False
                break
        return sound

    @property
    def is_cancelled(self) -> bool:
        """Whether several channels of sound gave a silent mix: one is the other upside down."""
        loudest, left = self.loudness
        samples = sum(len(samples) for _, samples in self.parts)
        return loudest > _SILENT * samples and left < _CANCELLED * loudest

    def between(self, first: int, stop: int) -> np.ndarray:
        """[stop - first] float32, zeros where there is no sound."""
        found = np.zeros(max(0, stop - first), dtype=np.float32)
        for begin, samples in self.parts:
            at = begin - first
            kept = samples[max(0, -at) :][: max(0, len(found) - max(0, at))]
            found[max(0, at) : max(0, at) + len(kept)] = kept
        return found


def _channels(frame: Any) -> np.ndarray:
    """[C, N] float32, 1 being the greatest integer of the format."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2 ** (8 * values.dtype.itemsize - 1))
    return values.astype(np.float32, copy=False)


def _mix(channels: np.ndarray, frame: Any) -> np.ndarray:
    """[N] float32: the mix of a frame's channels, which is never louder than the loudest of them.

    The weights add up to 1: a voice in all channels is as loud as it is in one channel alone. Channels whose places
    the file does not tell count alike.
    """
    if len(channels) == 1:
        mixed: np.ndarray = channels[0]
    else:
        mixed = _weights(tuple(channel.name for channel in frame.layout.channels)) @ channels
    return mixed


@lru_cache
def _weights(names: tuple[str, ...]) -> np.ndarray:
    weights = np.array([_WEIGHTS.get(name, _OTHER) for name in names], dtype=np.float32)
    return weights / weights.sum() if weights.any() else np.full(len(names), 1 / len(names), dtype=np.float32)


def resampled(samples: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """[N] float32 at another rate."""
    if rate_hz == wanted_hz or not len(samples):
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
    frame.sample_rate = rate_hz
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted_hz)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])
