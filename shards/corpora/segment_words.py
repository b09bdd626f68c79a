"""The words of CMU-MOSEI's and CMU-MOSI's segments: with times from a computational sequence, else from transcripts."""

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from shards.corpora import csd
from shards.corpora.segments import TOLERANCE_S, Segment
from shards.record import Word
from shards.transcripts.spread import spread
from triptych.config import UserError
from triptych.text_files import open_text, read_text

logger = logging.getLogger(__name__)

SILENCE = "sp"
"""What the aligner calls a pause."""

ALIGNED, SPREAD = "aligned", "spread"

Spoken = dict[str, tuple[Word, ...]]
"""Key of a segment -> its words."""


@dataclass(frozen=True)
class Line:
    """An utterance of a transcript, seconds from the recording's start."""

    start_s: float
    end_s: float
    text: str


def timed(path: Path, segments: Sequence[Segment]) -> Spoken:
    """Words of CMU_MOSEI_TimestampedWords.csd or CMU_MOSI_TimestampedWords.csd.

    A word belongs to every segment that its middle is in; segments of videos that the file lacks have none.

    Raises:
        UserError: the file cannot be read, or holds something other than words.
    """
    found: dict[str, list[Word]] = {}
    for video, rows in csd.read(path).videos.items():
        if rows.features.dtype.kind != "S" or rows.features.shape[1] != 1:
            raise UserError(f"{path}: {video} has no words but {rows.features.dtype}; expected ...TimestampedWords.csd")
        texts = (text.decode("utf-8", "replace").strip() for text in rows.features[:, 0].tolist())
        words = (Word(text, *times) for text, times in zip(texts, rows.intervals.tolist(), strict=True))
        found[video] = sorted(
            (word for word in words if word.text not in ("", SILENCE)), key=lambda word: (word.start_s, word.end_s)
        )
    spoken = {segment.key: _inside(segment, found[segment.video]) for segment in segments if segment.video in found}
    _tell_lacking(path, segments, spoken)
    return spoken


def _inside(segment: Segment, words: Sequence[Word]) -> tuple[Word, ...]:
    origin_s = segment.clip_start_s
    return tuple(
        Word(
            word.text,
            round(max(word.start_s - origin_s, 0.0), 6),
            round(min(word.end_s - origin_s, segment.duration_s), 6),
        )
        for word in words
        if origin_s <= (word.start_s + word.end_s) / 2 < segment.end_s
    )


def spread_lines(folder: Path, segments: Sequence[Segment], lines_of: Callable[[str], list[Line]]) -> Spoken:
    """Words of the transcript's line that has a segment's times, to within TOLERANCE_S; spread over the segment.

    A line is taken once, so that two segments of one interval get a line each.

    Args:
        folder: of the transcripts, for messages.
        segments: by video and time.
        lines_of: video -> the lines of its transcript.

    Raises:
        UserError: a transcript cannot be read, or none has a line for any segment.
    """
    spoken: Spoken = {}
    for video, there in groupby(segments, lambda segment: segment.video):
        lines = lines_of(video)
        for segment in there:
            near = [line for line in lines if _distance(line, segment) <= TOLERANCE_S]
            if near:
                line = min(near, key=lambda line: _distance(line, segment))
                lines.remove(line)
                spoken[segment.key] = spread(line.text, 0.0, segment.duration_s)
    _tell_lacking(folder, segments, spoken)
    return spoken


def mosei_lines(folder: Path) -> Callable[[str], list[Line]]:
    """Reader of Transcript/Segmented/Combined/<video>.txt: lines <video>___<clip>___<start>___<end>___<text>.

    The clip numbers have gaps and are those of no other file, so that only the times are used.
    """

    def lines_of(video: str) -> list[Line]:
        lines = []
        for line in _text(folder / f"{video}.txt").splitlines():
            try:
                # an id may end with an underscore, so the line is not simply split
                if not line.startswith(f"{video}___"):
                    raise ValueError
                _, start, end, text = line[len(video) + 3 :].split("___", 3)
                lines.append(Line(float(start), float(end), text))
            except ValueError:
                if line.strip():
                    logger.warning("%s: not <video>___<clip>___<start>___<end>___<text>: %.60r", video, line)
        return lines

    return lines_of


def mosi_lines(folder: Path, table: Path) -> Callable[[str], list[Line]]:
    """Reader of Transcript/Segmented/<video>.annotprocessed: lines <clip>_DELIM_<text>.

    They have no times. Those are in the raw archive's own table, rows start,end,video,clip,sentiment without a header.

    Args:
        folder: of the transcripts.
        table: Labels/OpinionLevelSentiment.csv.

    Raises:
        UserError: the table is not there or bad.
    """
    times: dict[tuple[str, str], tuple[float, float]] = {}
    try:
        with open_text(table, newline="") as file:
            for start, end, video, clip, *_ in csv.reader(file):
                times[video.strip(), clip.strip()] = float(start), float(end)
    except OSError as error:
        raise UserError(
            f"{table}: cannot be read: {error.strerror}. The lines of {folder} have no times, and this table tells "
            "them; copy it from the raw archive, or set words to CMU_MOSI_TimestampedWords.csd"
        ) from None
    except UserError:
        raise
    except (ValueError, csv.Error) as error:
        raise UserError(f"{table}: expected rows start,end,video,clip,sentiment: {error}") from None

    def lines_of(video: str) -> list[Line]:
        lines = []
        for line in _text(folder / f"{video}.annotprocessed").splitlines():
            clip, delimiter, text = line.partition("_DELIM_")
            if delimiter and (video, clip.strip()) in times:
                lines.append(Line(*times[video, clip.strip()], text))
            elif line.strip():
                logger.warning("%s: a line of no clip in %s: %.60r", video, table, line)
        return lines

    return lines_of


def _text(path: Path) -> str:
    """Empty where there is no file: the segments without words are told together."""
    try:
        return read_text(path, errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{path}: the transcript cannot be read: {error.strerror}") from None


def _distance(line: Line, segment: Segment) -> float:
    return max(abs(line.start_s - segment.start_s), abs(line.end_s - segment.end_s))


def _tell_lacking(path: Path, segments: Sequence[Segment], spoken: Spoken) -> None:
    lacking = [segment.key for segment in segments if segment.key not in spoken]
    if len(lacking) == len(segments):
        raise UserError(f"{path}: no words for any segment, first: {segments[0].key}; are they of this corpus?")
    if lacking:
        logger.warning("%s: no words for %d of %d segments, first: %s", path, len(lacking), len(segments), lacking[0])
