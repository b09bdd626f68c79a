"""The JSON that Whisper's programs write, one file a clip.

openai-whisper (with --word_timestamps True), faster-whisper's ctranslate2, WhisperX (score for probability) and
whisper-timestamped (text for word, confidence for probability):

{"language": "en", "segments": [{"start": 0.2, "end": 0.9, "text": " I won 5.", "words": [
    {"word": " I", "start": 0.2, "end": 0.3, "probability": 0.98}, ...]}]}

OpenAI's API (verbose_json): {"language": "english", "words": [{"word": "I", "start": 0.2, "end": 0.3}, ...]}
transformers (return_timestamps="word"): {"chunks": [{"text": " I", "timestamp": [0.2, 0.3]}, ...]}

Where a file's words begin with blanks, as Whisper's tokens do, an entry without one is the rest of the word before it:
" $43" ",000", " two" "-year", " C" "'est".

WhisperX gives no times to words that its aligner cannot spell, numerals above all. Such a word was said between its
neighbours, so it gets the time between them; where there is none, or too much to be the word's, it is left out. Both
are counted.
"""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from shards.transcripts.transcript import MARKS, Gathered, Said, begins_with_blank, is_mark, read_whole
from triptych.config import UserError

PLACED = "words without times, placed between their neighbours"
UNPLACED = "words without times, left out for want of a fitting gap between their neighbours"
ENDED = "words without an end, ended where the next one starts or after 0.4 s"
WORD_S = 0.4
"""Of a last word without an end: 150 words a minute, as people speak."""
TOGETHER_S = 0.05
"""The most between two pieces of a word, of which the second begins with a letter."""
SHORTEST_S, LONGEST_S = 0.02, 2.0
"""Of a word that is placed between its neighbours: a frame of sound, and a long number read aloud."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""How the names of letters of scripts without blanks begin."""
_PART_OF_WORDS = "%#@&"
"""Spoken, though Unicode calls them punctuation."""


@dataclass(frozen=True)
class _Heard:
    """A word as the file has it: `times` in seconds is None where the file gives none."""

    text: str
    times: tuple[float, float] | None
    confidence: float | None
    where: str
    is_first: bool = False
    """Of its segment, in which a word always begins."""


def read(path: Path) -> Said:
    """Read the words and the language of one clip; punctuation around a word is stripped.

    Raises:
        UserError: the file cannot be read, is not of this form, or was made without word times; the message names the
            file, and line or place in it.
    """
    try:
        content = json.loads(read_whole(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8, so not JSON") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or very deep
        raise UserError(f"{path}: not JSON ({error})") from None
    gathered = Gathered(str(path))
    heard: list[_Heard] = []
    for said in _joined(_ended(list(_heard(path, content, gathered.counted)), gathered.counted)):
        text = "" if is_mark(said.text.strip()) else _stripped(said.text.strip())
        if text:
            heard.append(replace(said, text=text))
        else:
            gathered.counted[MARKS] += 1
    for said in _timed(heard, gathered.counted):
        assert said.times is not None
        gathered.add(said.text, *said.times, said.confidence, said.where)
    language = content.get("language")
    if language is not None and not isinstance(language, str):
        raise UserError(f"{path}: language is {str(language)[:60]}; expected a name like en")
    return gathered.said(language)


def _heard(path: Path, content: Any, counted: Counter[str]) -> Iterator[_Heard]:
    """The words as they come, blanks at their edges included."""
    content = content if isinstance(content, dict) else {}
    segments, words, chunks = content.get("segments"), content.get("words"), content.get("chunks")
    if isinstance(chunks, list):
        for place, fields in enumerate(chunks):
            yield _chunk(fields, f"{path}: chunks[{place}]")
    elif isinstance(words, list) and not _has_words(segments):
        for place, fields in enumerate(words):
            yield _word(fields, f"{path}: words[{place}]")
    elif isinstance(segments, list):
        for number, segment in enumerate(segments):
            yield from _of_segment(segment, f"{path}: segments[{number}]", counted, _has_words(segments))
    else:
        raise UserError(
            f"{path}: no 'segments'; expected the JSON of openai-whisper or WhisperX, 'words' as of OpenAI's API, or "
            "'chunks' as of transformers"
        )


def _has_words(segments: Any) -> bool:
    """Whether the words are told by segment."""
    listed = segments if isinstance(segments, list) else []
    return any(isinstance(segment, dict) and isinstance(segment.get("words"), list) for segment in listed)


def _of_segment(segment: Any, where: str, counted: Counter[str], others: bool) -> Iterator[_Heard]:
    words = segment.get("words") if isinstance(segment, dict) else None
    if not isinstance(words, list):
        if not others or not isinstance(segment, dict):
            raise UserError(f"{where} has no 'words'; run whisper with --word_timestamps True, or align with WhisperX")
        words = []
    if not words and segment.get("text"):  # nothing of it could be aligned
        counted[UNPLACED] += len(str(segment["text"]).split())
    for place, fields in enumerate(words):
        yield replace(_word(fields, f"{where}.words[{place}]"), is_first=place == 0)


def _word(fields: Any, where: str) -> _Heard:
    text = (
        next((fields[name] for name in ("word", "text") if name in fields), None) if isinstance(fields, dict) else None
    )
    if not isinstance(text, str):
        raise UserError(f"{where}: no 'word'; expected {{'word': ..., 'start': ..., 'end': ..., 'score': ...}}")
    start_s, end_s = _number(fields, "start", where), _number(fields, "end", where)
    name = next((name for name in ("score", "probability", "confidence") if name in fields), "score")
    times = None if start_s is None or end_s is None else (start_s, end_s)
    return _Heard(text, times, _number(fields, name, where), where)


def _chunk(fields: Any, where: str) -> _Heard:
    """A word of transformers' pipeline; it leaves out the end of the last one of a window: NaN until `_ended`."""
    text, times = (fields.get("text"), fields.get("timestamp")) if isinstance(fields, dict) else (None, None)
    if not isinstance(text, str) or not isinstance(times, list) or len(times) != 2:
        raise UserError(f"{where}: expected {{'text': ..., 'timestamp': [start, end]}}")
    start_s, end_s = (_number({"timestamp": time}, "timestamp", where) for time in times)
    return _Heard(text, None if start_s is None else (start_s, math.nan if end_s is None else end_s), None, where)


def _ended(heard: Sequence[_Heard], counted: Counter[str]) -> Iterator[_Heard]:
    """Words without an end get the next one's start, and at most `LONGEST_S`; the last one has `WORD_S`."""
    for said, after in zip_longest(heard, heard[1:]):
        if said.times is None or not math.isnan(said.times[1]):
            yield said
            continue
        start_s = said.times[0]
        next_s = round(start_s + WORD_S, 3) if after is None or after.times is None else after.times[0]
        counted[ENDED] += 1
        yield replace(said, times=(start_s, min(max(next_s, start_s), start_s + LONGEST_S)))


def _joined(heard: Iterable[_Heard]) -> Iterator[_Heard]:
    """Whole words of pieces: first start, last end of a piece that is spoken, and the least of their confidences."""
    pieces = list(heard)
    if not any(begins_with_blank(said.text) for said in pieces):
        yield from pieces
        return
    whole: _Heard | None = None
    for said in pieces:
        if whole is not None and _goes_on(whole, said):
            whole = _with(whole, said)
            continue
        if whole is not None:
            yield whole
        whole = said
    if whole is not None:
        yield whole


def _goes_on(whole: _Heard, said: _Heard) -> bool:
    """Whether a piece is the rest of a word, and not the next word of a script that is written without blanks.

    One that begins with a letter also follows at once: tokens part a word where no time passes.
    """
    text, piece = whole.text, said.text
    edges = (text[-1:], piece[:1])
    is_late = whole.times and said.times and said.times[0] - whole.times[1] > TOGETHER_S
    return not (
        not piece
        or said.is_first
        or (piece[0].isalnum() and is_late)
        or begins_with_blank(piece)
        or begins_with_blank(text[-1:])
        or is_mark(piece.strip())
        or is_mark(text.strip())
        or any(unicodedata.name(edge, "").startswith(_UNSPACED) for edge in edges if edge)
    )


def _with(whole: _Heard, piece: _Heard) -> _Heard:
    text = whole.text + piece.text
    if not _stripped(piece.text.strip()):  # punctuation, which nobody says
        return replace(whole, text=text)
    times = piece.times and whole.times and (whole.times[0], piece.times[1])
    known = [one.confidence for one in (whole, piece) if one.confidence is not None]
    return replace(whole, text=text, times=times or whole.times, confidence=min(known, default=None))


def _number(fields: dict[str, Any], name: str, where: str) -> float | None:
    """None where it is missing, null or NaN: WhisperX has written all three."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {name} is {str(value)[:60]!r}; expected a number")
    try:
        return None if math.isnan(value) else float(value)
    except OverflowError:
        return math.inf  # refused where the word is made


def _stripped(text: str) -> str:
    """Without punctuation and pictures ("♪") at both edges; those inside a word (don't, 3.5) stay."""
    if text.isalnum():
        return text
    spoken = [place for place, character in enumerate(text) if not _is_edge(character)]
    return text[spoken[0] : spoken[-1] + 1] if spoken else ""


def _is_edge(character: str) -> bool:
    category = unicodedata.category(character)
    is_punctuation = category[0] == "P" and character not in _PART_OF_WORDS
    return is_punctuation or category in ("So", "Cf") or character.isspace()


def _timed(heard: list[_Heard], counted: Counter[str]) -> Iterator[_Heard]:
    """The words with times; runs of words without share the gap between the words around them equally."""
    before_s: float | None = None
    runs = [(has_times, list(run)) for has_times, run in groupby(heard, lambda said: said.times is not None)]
    for number, (has_times, run) in enumerate(runs):
        if has_times:
            for said in run:
                assert said.times is not None
                yield said
                before_s = said.times[1]
            continue
        after = runs[number + 1][1][0].times if number + 1 < len(runs) else None
        each_s = 0.0 if before_s is None or after is None else (after[0] - before_s) / len(run)
        if before_s is None or not SHORTEST_S <= each_s <= LONGEST_S:
            counted[UNPLACED] += len(run)
            continue
        counted[PLACED] += len(run)
        for place, said in enumerate(run):
            start_s, end_s = (round(before_s + each_s * edge, 3) for edge in (place, place + 1))
            yield replace(said, times=(start_s, end_s), confidence=None)
