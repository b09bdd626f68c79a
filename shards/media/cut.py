"""A part of a longer recording as a clip of its own: decoded from the key frame before it on, encoded anew. No torch.

Packets cannot be copied: a picture can only start at a key frame, seconds away from where a clip starts.

Time 0 is the start of the recording, that of the stream which starts first, as players and annotators count. What
starts before 0 or ends after the recording is clipped to what is there (`from_start` moves words and labels along).

- Picture: H.264 in mp4, `CRF` and `PRESET`. A frame belongs to the cut in which its middle lies, so that cuts that
  follow each other share the frames of their recording; frames keep their times, also at a variable rate, except that
  the first one is shown from the clip's start on. `Cut.box` and even sizes are cropped, never scaled.
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

from shards.media.decode import MAX_SECONDS, MISSING_S, DecodeError, opened
from shards.media.media_form import flac
from shards.record import Cut, RawClip

CRF = 18
"""x264's constant quality: differences are hardly seen; faces are looked at closely here."""
PRESET = "veryfast"
BIT_RATE = 128_000
"""Of the AAC, one channel."""

_CLOCK = Fraction(1, 90_000)
"""Of the mp4's picture: NTSC's and film's rates are whole ticks of it, or a third of a tick off."""
_BACK_S = (0.0, 10.0, math.inf)
"""How much before the start a file is tried: an index may lead to a key frame that is shown after what is wanted."""
_RUN_IN_S = 1.0
"""Of sound: what a decoder says first after a jump is not yet right (MP3 needs up to 9 packets, Opus 80 ms)."""
_JITTER_S = 0.002
"""Sound that is this little off its time follows what was before: some formats give times in whole milliseconds."""
_USUAL_HZ = Fraction(25)
"""Of a recording that does not tell its rate: how long its last frame is shown."""
_MIN_SIDE = 16
_NO_LENGTH = ("aac",)
"""Formats whose headers do not tell how long they are: FFmpeg guesses from the first packets, off by minutes."""
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

    info: Any
    header_s: float
    """Where it ends, as the header has it; infinity where it does not say."""
    frames: Iterator[tuple[Fraction, Any]]
    """Time and frame, from one at or before the start that was asked for on."""


@contextmanager
def _stream(path: Path, kind: str, from_s: float) -> Iterator[_Stream | None]:
    """The first stream of a kind ("video", "audio"), read from `from_s` on; None if the recording has none."""
    with ExitStack() as files:
        for back_s in _BACK_S:
            container = files.enter_context(opened(path))
            streams = getattr(container.streams, kind)
            if not streams:
                yield None
                return
            info, zero_s = streams[0], Fraction(container.start_time or 0, av.time_base)
            begin_s = from_s - back_s
            if begin_s > 0:
                try:
                    container.seek(int((Fraction(begin_s) + zero_s) / info.time_base), stream=info)
                except av.FFmpegError:  # a format without an index
                    continue
            frames = _timed(container.decode(info), zero_s)
            if begin_s > 0:  # what comes before the first key frame refers to frames that were not read
                first = next((pair for pair in frames if kind == "audio" or pair[1].key_frame), None)
                if first is None or first[0] > from_s:
                    continue
                frames = chain([first], frames)
            yield _Stream(info, _header_s(container, info, zero_s), frames)
            return


def _timed(frames: Iterator[Any], zero_s: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Frames with their times from the recording's start; those that do not come later than the one before are none."""
    last_s: Fraction | None = None
    for frame in frames:
        if frame.pts is not None:
            time_s = frame.pts * frame.time_base - zero_s
            if last_s is None or time_s > last_s:
                yield time_s, frame
                last_s = time_s


def _header_s(container: Any, info: Any, zero_s: Fraction) -> float:
    if container.format.name in _NO_LENGTH:
        return math.inf
    if info.duration is not None:
        return float((info.duration + (info.start_time or 0)) * info.time_base - zero_s)
    return math.inf if container.duration is None else container.duration / av.time_base


def _check_there(what: str, cut: Cut, ended_s: float, header_s: float) -> None:
    """Refuse a cut of a stream that was read to its end, and ended before it should have, or before the cut."""
    wanted_s = min(math.inf if cut.end_s is None else cut.end_s, header_s)
    if math.isfinite(header_s) and ended_s < wanted_s - MISSING_S:
        raise DecodeError(f"truncated: the {what} ends at {ended_s:.2f} s where the header says {header_s:.2f} s")
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
        rate_hz = stream.info.rate
        first, stop = round(start_s * rate_hz), math.inf if end_s == math.inf else round(end_s * rate_hz)
        most = first + MAX_SECONDS * rate_hz
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        parts: list[tuple[int, np.ndarray]] = []
        place: int | None = None  # of the next sample, from the recording's start
        for time_s, frame in stream.frames:
            at = round(time_s * rate_hz)
            if place is None or abs(at - place) > _JITTER_S * rate_hz:
                place = at
            samples = np.concatenate([piece.to_ndarray()[0] for piece in resampler.resample(frame)])
            parts.append((place - first, samples))
            place += len(samples)
            if place >= stop or place > most:
                break
        else:
            _check_there("sound", cut, 0.0 if place is None else place / rate_hz, stream.header_s)
    assert place is not None
    if min(stop, place) > most:
        raise DecodeError(f"{_told(cut)} is longer than the limit of {MAX_SECONDS:.0f} s")
    found = np.zeros(int(min(stop, place)) - first, dtype=np.int16)
    for begin, samples in parts:
        kept = samples[max(0, -begin) :][: max(0, len(found) - max(0, begin))]
        found[max(0, begin) : max(0, begin) + len(kept)] = kept
    if not len(found):
        raise DecodeError(f"{_told(cut)} is shorter than a sample")
    return _Sound(found, rate_hz)


def _of_cut(stream: _Stream, cut: Cut) -> Iterator[tuple[Fraction, Any]]:
    """Time and frame of those whose middle lies in the cut; at last where the cut ends, with None."""
    start_s, end_s = _span(cut)
    rate_hz = stream.info.average_rate or _USUAL_HZ
    before: tuple[Fraction, Any] | None = None
    for time_s, frame in stream.frames:
        if before is not None and start_s <= (before[0] + time_s) / 2 < end_s:
            yield before
        before = time_s, frame
        if time_s >= end_s:  # the frame before is the last one, or this one is
            break
        if time_s > start_s + int(MAX_SECONDS):
            raise DecodeError(f"{_told(cut)} is longer than the limit of {MAX_SECONDS:.0f} s")
    if before is None:
        raise DecodeError("the video stream is empty")
    ended_s = before[0] + (before[1].duration * before[1].time_base or 1 / rate_hz)
    if start_s <= (before[0] + ended_s) / 2 < end_s:
        yield before
    if ended_s < end_s:
        _check_there("picture", cut, float(ended_s), stream.header_s)
    yield Fraction(min(ended_s, end_s)), None


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
        options = {"fflags": "+bitexact", "movie_timescale": str(_CLOCK.denominator)}
        with av.open(content, "w", "mp4", options) as target:
            box = _Box(first[1], cut)
            picture = _add_picture(target, stream.info.average_rate, box.stored(first[1], 0))
            heard = None if sound is None else _add_sound(target, sound)
            times, packets = list[int](), list[av.Packet]()
            for time_s, frame in chain([first], shown):
                times.append(round((time_s - start_s) / _CLOCK) if times else 0)
                if frame is not None:
                    packets += picture.encode(box.stored(frame, times[-1]))
            packets += picture.encode(None)
            ends = dict(pairwise(times))
            for packet in packets:  # encoders know no times but starts: the last frame would have none
                packet.duration = ends[packet.pts] - packet.pts
                target.mux(packet)
            if sound is not None and heard is not None:
                target.mux(_encoded(heard, sound))
    return content.getvalue()


class _Box:
    """Makes of each frame what is stored: yuv420p, the box, even sizes.

    Args:
        first: all frames are of its size.
        cut: which box.
    """

    def __init__(self, first: Any, cut: Cut) -> None:
        left, top, right, bottom = cut.box or (0.0, 0.0, 1.0, 1.0)
        self._size = first.width, first.height
        x, y = round(left * first.width) // 2 * 2, round(top * first.height) // 2 * 2
        width, height = (round(right * first.width) - x) // 2 * 2, (round(bottom * first.height) - y) // 2 * 2
        if min(width, height) < _MIN_SIDE:
            raise DecodeError(f"{width}x{height} pixels of {first.width}x{first.height} are too small for a picture")
        self._graph = graph = av.filter.Graph()
        source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=_CLOCK)
        yuv, box = graph.add("format", "yuv420p"), graph.add("crop", f"{width}:{height}:{x}:{y}")
        graph.link_nodes(source, yuv, box, graph.add("buffersink")).configure()

    def stored(self, frame: Any, ticks: int) -> av.VideoFrame:
        """A frame to encode, shown from `ticks` of the clock on."""
        if (frame.width, frame.height) != self._size:
            raise DecodeError("the picture changes its size")
        self._graph.vpush(frame)
        ready = self._graph.vpull()
        ready.pts, ready.time_base = ticks, _CLOCK
        ready.pict_type = PictureType.NONE  # else it would be coded as what it was in the recording
        return ready


def _add_picture(target: Any, rate_hz: Fraction | None, like: av.VideoFrame) -> Any:
    # one thread: x264 codes a picture otherwise with each number of them
    options = {"preset": PRESET, "crf": str(CRF), "threads": "1"}
    picture = target.add_stream("libx264", rate=rate_hz or _USUAL_HZ, options=options)
    picture.width, picture.height, picture.pix_fmt = like.width, like.height, "yuv420p"
    context = picture.codec_context
    context.time_base = _CLOCK
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
