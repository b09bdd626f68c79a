"""A part of a longer recording as a clip of its own: decoded from the key frame before it on, encoded anew. No torch.

Packets cannot be copied: a picture can only start at a key frame, seconds away from where a clip starts.

Time 0 is the start of the recording (`shards.media.timeline`). What starts before 0 or ends after the recording is
clipped to what is there (`from_start` moves words and labels along).

- Picture: H.264 in mp4, `CRF` and `PRESET`. A frame belongs to the cut in which its middle lies, so that cuts that
  follow each other share the frames of their recording; frames keep their times, also at a variable rate, except that
  the first one is shown from the clip's start on. They are turned as the recording says; of the upright picture
  `Cut.box` and even sizes are cropped, never scaled.
- Sound: sample by sample, at the recording's rate and down-mixed to mono as `shards.media.decode` does for every
  reader: as AAC in the mp4 where the recording has both, else as FLAC of 16 bits.

The same recording gives the same bytes. A file is read from its path and not into memory: it may be of any size.
"""

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType

from shards.media.decode import MAX_SECONDS, DecodeError, check_sound, opened
from shards.media.media_form import flac
from shards.media.sound import Placed
from shards.media.timeline import USUAL_HZ, changes_s, header_s, is_truncated, shown_until, stream_of, timed, zero_s
from shards.media.upright import CLOCK, Upright
from shards.record import Cut, RawClip

CRF = 18
"""x264's constant quality: differences are hardly seen; faces are looked at closely here."""
PRESET = "veryfast"
BIT_RATE = 128_000
"""Of the AAC, one channel."""

_BACK_S = (0.0, 0.1, 10.0, math.inf)
"""How much before the start a file is tried: an index may lead to a key frame that is shown after what is wanted, and
since FFmpeg 8.1 to the packet of sound behind it."""
_RUN_IN_S = 1.0
"""Of sound: what a decoder says first after a jump is not yet right (MP3 needs up to 9 packets, Opus 80 ms)."""
_AAC_SAMPLES = 1024


@dataclass(frozen=True)
class _Sound:
    samples: np.ndarray
    """[N] int16"""
    rate_hz: int


def cut_media(video: Path | None, audio: Path | None, cut: Cut) -> dict[str, bytes]:
    """Extension -> bytes of a part of a recording.

    Args:
        video: the file with the picture, and the sound where `audio` is None and it has any.
        audio: the file with the sound.
        cut: which part, and which box of the picture.

    Returns:
        "mp4" where there is a picture, with the sound if that is in the same file; "flac" where it is not.

    Raises:
        DecodeError: a file cannot be read or is damaged, the cut is outside of it, shorter than a frame or longer
            than MAX_SECONDS, or there is neither picture nor sound.
    """
    heard_in = audio or video
    sound = None if heard_in is None else _sound(heard_in, cut)
    picture = None if video is None else _mp4(video, cut, sound if audio is None else None)
    if picture is None and sound is None:
        raise DecodeError("neither sound nor picture")
    media = {} if picture is None else {"mp4": picture}
    if sound is not None and (picture is None or audio is not None):
        media["flac"] = flac(sound.samples, sound.rate_hz)
    return media


def cut_picture(path: Path, cut: Cut) -> dict[str, bytes]:
    """The picture alone of a part of a recording, as "mp4"; nothing if it has none.

    Raises:
        DecodeError: as of `cut_media`.
    """
    picture = _mp4(path, cut, None)
    return {} if picture is None else {"mp4": picture}


def cut_sound(path: Path, cut: Cut) -> bytes | None:
    """The sound alone of a part of a recording, as .flac; None if it has none.

    Raises:
        DecodeError: as of `cut_media`.
    """
    sound = _sound(path, cut)
    return None if sound is None else flac(sound.samples, sound.rate_hz)


def from_start(clip: RawClip) -> RawClip:
    """The clip with words and series told from where its media start: with the recording, if the cut starts before."""
    lead_s = 0.0 if clip.cut is None or not clip.cut.sound else max(0.0, -clip.cut.start_s)
    if not lead_s:
        return clip
    words = clip.words and tuple(
        replace(word, start_s=max(0.0, word.start_s - lead_s), end_s=max(0.0, word.end_s - lead_s))
        for word in clip.words
    )
    labels = {
        name: {**label, "values": label["values"][round(lead_s * label["rate_hz"]) :]}
        if isinstance(label, dict)
        else label
        for name, label in clip.labels.items()
    }
    return replace(clip, words=words, labels=labels)


def _told(cut: Cut) -> str:
    end = "its end" if cut.end_s is None else f"{cut.end_s:g} s"
    return f"the cut from {cut.start_s:g} s to {end}"


@dataclass(frozen=True)
class _Stream:
    """A stream of an open recording."""

    container: Any
    info: Any
    frames: Iterator[tuple[Fraction, Any]]
    """Time and frame, from one at or before the start that was asked for on."""


@contextmanager
def _stream(path: Path, kind: str, from_s: float) -> Iterator[_Stream | None]:
    """The first stream of a kind ("video", "audio"), read from `from_s` on; None if the recording has none."""
    with ExitStack() as files:
        for back_s in _BACK_S:
            container = files.enter_context(opened(path))
            info = stream_of(container, kind)
            if info is None:
                yield None
                return
            begin_s, zero = from_s - back_s, zero_s(container)
            if begin_s > 0:
                try:
                    container.seek(int((Fraction(begin_s) + zero) / info.time_base), stream=info)
                except av.FFmpegError:  # a format without an index
                    continue
            frames = timed(container.decode(info), zero)
            if begin_s > 0:  # what comes before the first key frame refers to frames that were not read
                first = next((pair for pair in frames if kind == "audio" or pair[1].key_frame), None)
                if first is None or first[0] > from_s:
                    continue
                frames = chain([first], frames)
            yield _Stream(container, info, frames)
            return


def _check_there(what: str, cut: Cut, ended_s: float, stream: _Stream) -> None:
    """Refuse a cut of a stream that was read to its end, and ended before it should have, or before the cut."""
    if (cut.end_s is None or ended_s < cut.end_s) and is_truncated(stream.container, stream.info, ended_s):
        told_s = header_s(stream.container, stream.info)
        raise DecodeError(f"truncated: the {what} ends at {ended_s:.2f} s where the header says {told_s:.2f} s")
    if ended_s <= max(0.0, cut.start_s):
        raise DecodeError(f"{_told(cut)} is outside of the recording, whose {what} ends at {ended_s:.2f} s")


def _span(cut: Cut) -> tuple[Fraction, Fraction | float]:
    """Start and end; refuses a cut that no recording has."""
    if cut.end_s is not None and cut.end_s <= max(0.0, cut.start_s):
        raise DecodeError(f"{_told(cut)} holds nothing")
    return Fraction(max(0.0, cut.start_s)), math.inf if cut.end_s is None else Fraction(cut.end_s)


def _sound(path: Path, cut: Cut) -> _Sound | None:
    """The part's sound; None if the recording has none."""
    start_s, end_s = _span(cut)
    with _stream(path, "audio", float(start_s) - _RUN_IN_S) as stream:
        if stream is None:
            return None
        most_s = start_s + int(MAX_SECONDS)
        sound = Placed.read(stream.frames, float(min(end_s, most_s + 1)))
        ended_s = sound.end / sound.rate_hz if sound.parts else 0.0
        if sound.complete:
            _check_there("sound", cut, ended_s, stream)
    if min(end_s, ended_s) > most_s:
        raise DecodeError(f"{_told(cut)} is longer than the limit of {MAX_SECONDS:.0f} s")
    stop = sound.end if end_s == math.inf else min(sound.end, round(end_s * sound.rate_hz))
    samples = sound.between(round(start_s * sound.rate_hz), stop)
    if not len(samples):
        raise DecodeError(f"{_told(cut)} is shorter than a sample")
    check_sound(sound)
    return _Sound((samples * 32768).round().clip(-32768, 32767).astype(np.int16), sound.rate_hz)


def _of_cut(stream: _Stream, cut: Cut) -> Iterator[tuple[Fraction, Any]]:
    """Time and frame of those whose middle lies in the cut, or of the one that stands still in it; at last where the
    cut ends, with None. A picture that starts late shows its first frame from the start of the cut on."""
    start_s, end_s = _span(cut)
    usual_s = 1 / (stream.info.average_rate or USUAL_HZ)
    before: tuple[Fraction, Any] | None = None
    still: tuple[Fraction, Any] | None = None  # shown in the cut, if nothing else is
    taken = False
    for time_s, frame in stream.frames:
        if before is None and time_s - start_s > usual_s / 2:
            yield start_s, frame
            taken = True
        changes = time_s if before is None else changes_s(before[0], time_s)
        if before is not None and start_s <= changes < end_s:
            yield before
            taken = True
        still = before if before is not None and changes >= end_s else (time_s, frame)
        before = time_s, frame
        if time_s >= end_s:  # the frame before is the last one, or this one is
            break
        if time_s > start_s + int(MAX_SECONDS):
            raise DecodeError(f"{_told(cut)} is longer than the limit of {MAX_SECONDS:.0f} s")
    if before is None or still is None:
        raise DecodeError("the video stream is empty")
    ended_s = shown_until(stream.info, *before)
    if ended_s < end_s:
        _check_there("picture", cut, float(ended_s), stream)
    until_s = Fraction(min(ended_s, end_s))
    if start_s <= changes_s(before[0], ended_s) < end_s:
        yield before
    elif not taken and until_s - start_s >= usual_s:
        yield still
    yield until_s, None


def _mp4(path: Path, cut: Cut, sound: _Sound | None) -> bytes | None:
    """The part's picture, and a sound, in one file; None if the recording has no picture."""
    start_s = _span(cut)[0]
    with _stream(path, "video", float(start_s)) as stream:
        if stream is None:
            return None
        shown = _of_cut(stream, cut)
        first = next(shown)
        if first[1] is None:
            raise DecodeError(f"{_told(cut)} is shorter than a frame of the picture")
        content = io.BytesIO()
        # bitexact: the libraries' versions would make other bytes of the same pictures; movie_timescale: else a
        # clip's length is kept in whole milliseconds
        options = {"fflags": "+bitexact", "movie_timescale": str(CLOCK.denominator)}
        with av.open(content, "w", "mp4", options) as target:
            upright = Upright(first[1], "yuv420p", cut.box or (0.0, 0.0, 1.0, 1.0))
            picture = _add_picture(target, stream.info.average_rate, upright.of(first[1]))
            heard = None if sound is None else _add_sound(target, sound)
            times, packets = list[int](), list[av.Packet]()
            for time_s, frame in chain([first], shown):
                times.append(round((time_s - start_s) / CLOCK) if times else 0)
                if frame is not None:
                    packets += picture.encode(_shown_from(upright.of(frame), times[-1]))
            packets += picture.encode(None)
            ends = dict(pairwise(times))
            for packet in packets:  # encoders know no times but starts: the last frame would have none
                packet.duration = ends[packet.pts] - packet.pts
            # the file is as long as its packets in the order of decoding, whose last one need not be the last frame
            last = packets[-1]
            last.duration = max(last.duration, times[-1] - (last.dts - packets[0].dts))
            for packet in packets:
                target.mux(packet)
            if sound is not None and heard is not None:
                target.mux(_encoded(heard, sound))
    return content.getvalue()


def _shown_from(frame: av.VideoFrame, ticks: int) -> av.VideoFrame:
    """A frame to encode, shown from `ticks` of the clock on."""
    frame.pts, frame.time_base = ticks, CLOCK
    frame.pict_type = PictureType.NONE  # else it would be coded as what it was in the recording
    return frame


def _add_picture(target: Any, rate_hz: Fraction | None, like: av.VideoFrame) -> Any:
    # one thread: x264 codes a picture otherwise with each number of them
    options = {"preset": PRESET, "crf": str(CRF), "threads": "1"}
    picture = target.add_stream("libx264", rate=rate_hz or USUAL_HZ, options=options)
    picture.width, picture.height, picture.pix_fmt = like.width, like.height, "yuv420p"
    context = picture.codec_context
    context.time_base = CLOCK
    context.flags |= Flags.bitexact
    # what the numbers mean, so that a reader gets the recording's colours
    context.color_range, context.colorspace = like.color_range, like.colorspace
    context.color_primaries, context.color_trc = like.color_primaries, like.color_trc
    return picture


def _add_sound(target: Any, sound: _Sound) -> Any:
    heard = target.add_stream("aac", rate=sound.rate_hz, layout="mono")
    heard.bit_rate = BIT_RATE
    heard.codec_context.flags |= Flags.bitexact
    return heard


def _encoded(heard: Any, sound: _Sound) -> list[av.Packet]:
    """AAC's packets are of 1024 samples. What the sound lacks of the last one is put before its start, where the file
    says that it is left out: after its end, FFmpeg would decode it."""
    num = len(sound.samples)
    lead = -num % _AAC_SAMPLES if num > _AAC_SAMPLES else 0  # a file of which no whole packet is heard is silent
    samples = np.concatenate([np.zeros(lead, dtype=np.int16), sound.samples])
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, -lead, Fraction(1, sound.rate_hz)
    return [*heard.encode(frame), *heard.encode(None)]
