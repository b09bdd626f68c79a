"""The one timeline of a media file, for whole files and for cuts: streams, their frames' times, their length. No torch.

Time 0 is the start of the file: that of the stream which starts first, as players and annotators count. The other
starts where its own times say (edit lists, late starts, delayed B-frames, variable rates). A cover picture is none.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

MISSING_S = 0.5
"""A stream that ends this much before its header says may be truncated; encoders' own rounding stays below 0.1 s."""
USUAL_HZ = Fraction(25)
"""Of a picture that does not tell its rate: how long its last frame is shown."""
LEAD_S = Fraction(1, 10)
"""A frame is shown from the middle between its start and that of the one before on, yet never this much too early:
in a hole of the picture the last frame stays, as in a player."""

_NO_LENGTH = ("aac", "wav")
"""Formats whose headers tell no length: FFmpeg guesses from the first packets, off by minutes, or believes a wav's
header, which may hold anything; `shards.media.decode.opened` looks at that itself."""
_COUNTS_FRAMES = (b"Xing", b"Info", b"VBRI")
"""In the first frame of an mp3 whose length is not guessed either."""
_ROUNDED_S = 0.002
"""Headers tell lengths in whole milliseconds."""
_OUR_SOUND = {"major_brand": "isom", "minor_version": "512", "compatible_brands": "isomiso2mp41"}
"""All that an m4a says which `shards.media.media_form` took out of an mp4: its start is still the picture's."""


class DecodeError(ValueError):
    """The media is damaged, truncated or beyond the limits; the message is one plain sentence."""


def stream_of(container: Any, kind: str) -> Any | None:
    """The first stream of a kind ("video", "audio"); None if there is none but a cover picture."""
    return next((stream for stream in getattr(container.streams, kind) if not _is_cover(stream)), None)


def zero_s(container: Any) -> Fraction:
    """The start of a file on its streams' clock, in seconds."""
    if dict(container.metadata) == _OUR_SOUND and len(container.streams) == 1:
        return Fraction(0)
    streams = (*container.streams.video, *container.streams.audio)
    starts = [
        stream.start_time * stream.time_base
        for stream in streams
        if stream.start_time is not None and not _is_cover(stream)
    ]
    return min(starts, default=Fraction(container.start_time or 0, av.time_base))


def timed(frames: Iterator[Any], begin_s: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Frames with their times from `begin_s` on; those that do not come later than the one before are none.

    A frame without a time follows the one before, if that tells how long it is.
    """
    last_s = next_s = None
    for frame in frames:
        time_s = next_s if frame.pts is None else frame.pts * frame.time_base - begin_s
        if time_s is None or (last_s is not None and time_s <= last_s):
            continue
        yield time_s, frame
        last_s = time_s
        next_s = time_s + frame.duration * frame.time_base if frame.duration else None


def changes_s(time_s: Fraction, next_s: Fraction) -> Fraction:
    """When the picture changes from a frame to the next one, given when they start."""
    return max((time_s + next_s) / 2, next_s - LEAD_S)


def shown_until(stream: Any, time_s: Fraction, frame: Any) -> Fraction:
    """When the last frame of a picture ends.

    At a variable rate an mp4 gives each frame the length of another one, in the order of decoding; the header is right.
    """
    own_s = frame.duration * frame.time_base if frame.duration else 1 / (stream.average_rate or USUAL_HZ)
    told_s = math.inf if stream.duration is None else header_s(stream.container, stream)
    if 0 < told_s - time_s <= MISSING_S and abs(told_s - time_s - own_s) > _ROUNDED_S:
        return Fraction(told_s)
    return time_s + own_s


def header_s(container: Any, stream: Any) -> float:
    """When a stream ends from the start of the file, as the header has it; infinity where it does not say."""
    if container.format.name in _NO_LENGTH or (container.format.name == "mp3" and not _counts_frames(container)):
        return math.inf
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base - zero_s(container))
    return math.inf if container.duration is None else container.duration / av.time_base


def is_truncated(container: Any, stream: Any, found_s: float) -> bool:
    """Whether a stream that was read to its end, at `found_s`, misses what its file should have.

    Headers promise more than the file ever had: a stream may lack its last packets, and some formats tell the length of
    the longer stream alone. So the packets are looked at before a file is called truncated.
    """
    told_s = header_s(container, stream)
    if math.isinf(told_s) or found_s >= told_s - MISSING_S:
        return False
    begin_s = zero_s(container)
    container.seek(container.start_time or 0)
    found, reached_s = 0, 0.0
    for packet in container.demux():
        if packet.dts is None or packet.size == 0:
            continue
        found += packet.stream_index == stream.index
        if packet.pts is not None and not _is_cover(packet.stream):
            reached_s = max(reached_s, float((packet.pts + (packet.duration or 0)) * packet.time_base - begin_s))
    listed = len(getattr(stream, "index_entries", ()))  # what an edit list leaves out, no packet is read of
    if stream.frames and listed and container.format.name.startswith("mov"):
        return found < min(stream.frames, listed)
    return reached_s < told_s - MISSING_S


def _counts_frames(container: Any) -> bool:
    source = container.file.file
    place = source.tell()
    source.seek(0)
    head = source.read(2**16)
    source.seek(place)
    return any(tag in head for tag in _COUNTS_FRAMES)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)
