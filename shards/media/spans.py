"""What stretch of time the frame of each step of a feature shows: what a masked word has to hide. No torch.

A feature's step `i` is the frame nearest to `i / rate_hz`. Where the file has another rate than the feature, that frame
begins before or ends after the step: at 24, 30 and 15 frames a second up to 53 ms outside of 25 steps a second.
"""

import numpy as np

from shards.media.decode import on_grid, opened
from shards.media.timeline import LEAD_S, header_s, stream_of, zero_s
from shards.record import FrameTimes

_ROUNDED_S = 1e-3
"""Times that differ from those of a constant rate by less, do so because the file rounds them."""
_INSIDE_S = 1e-3
"""A frame that is this little outside of its step is inside."""


def frame_times(data: bytes) -> FrameTimes | None:
    """When the frames of a media file are shown, from its packets alone; None if it has no picture.

    Raises:
        DecodeError: damaged.
    """
    with opened(data) as container:
        stream = stream_of(container, "video")
        if stream is None:
            return None
        begin_s, end_s = zero_s(container), header_s(container, stream)
        shown = [packet for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard]
        starts_s = sorted({float(packet.pts * packet.time_base - begin_s) for packet in shown})
    if len(starts_s) < 2:
        return None
    rate_hz = (len(starts_s) - 1) / (starts_s[-1] - starts_s[0])
    even_s = starts_s[0] + np.arange(len(starts_s)) / rate_hz
    if np.abs(even_s - starts_s).max() < _ROUNDED_S:
        return FrameTimes(start_s=round(starts_s[0], 6), rate_hz=round(rate_hz, 6))
    last_s = end_s if starts_s[-1] < end_s < starts_s[-1] + 10 else starts_s[-1] + 1 / rate_hz
    return FrameTimes(edges_s=tuple(round(edge_s, 4) for edge_s in (*starts_s, last_s)))


def spans(times: FrameTimes, num_steps: int, rate_hz: float) -> np.ndarray:
    """[T, 2] float64: start and end of the frame that each step of a feature at `rate_hz` is, in seconds.

    Raises:
        DecodeError: no step.
    """
    at_s = np.arange(num_steps) / rate_hz
    if times.stored_hz is not None:  # the step is a stored frame, which is the nearest one of the file
        stored = np.arange(int(at_s[-1] * times.stored_hz) + 2) / times.stored_hz
        at_s = stored[on_grid(stored, num_steps / rate_hz, rate_hz, num_steps)]
    if times.rate_hz is None:
        edges = np.asarray(times.edges_s)
    else:
        edges = times.start_s + np.arange(int(max(0.0, at_s[-1] - times.start_s) * times.rate_hz) + 3) / times.rate_hz
    changes = np.maximum((edges[:-2] + edges[1:-1]) / 2, edges[1:-1] - float(LEAD_S))
    number = np.searchsorted(changes + 1e-4, at_s)
    return np.stack([edges[number], edges[number + 1]], axis=-1)


def leaks(spans_T2: np.ndarray, times_T2: np.ndarray) -> bool:
    """Whether a frame shows something outside of what its step is said to be of."""
    return bool(((spans_T2[:, 0] < times_T2[:, 0] - _INSIDE_S) | (spans_T2[:, 1] > times_T2[:, 1] + _INSIDE_S)).any())
