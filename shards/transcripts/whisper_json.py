"""The JSON of openai-whisper (with --word_timestamps True), whisper-ctranslate2 and WhisperX: one file a clip.

{"language": "en", "segments": [{"start": 0.2, "end": 0.9, "text": " I won 5.", "words": [
    {"word": " I", "start": 0.2, "end": 0.3, "probability": 0.98}, ...]}]}         WhisperX says score for probability

WhisperX gives no times to words that its aligner cannot spell, numerals above all. Such a word was said between its
neighbours, so it gets the time between them; where there is none, or too much to be the word's, it is left out. Both
are counted.
"""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from shards.record import Word
from shards.transcripts.transcript import MARKS, Said, is_mark, read_whole, word
from triptych.config import UserError

PLACED = "words without times, placed between their neighbours"
UNPLACED = "words without times, left out for want of a fitting gap between their neighbours"
SHORTEST_S, LONGEST_S = 0.02, 2.0
"""Of a word that is placed between its neighbours: a frame of sound, and a long number read aloud."""

_PART_OF_WORDS = "%#@&"
"""Spoken, though Unicode calls them punctuation."""


@dataclass(frozen=True)
class _Heard:
    """A word as the file has it: `times` in seconds is None where the file gives none."""

    text: str
    times: tuple[float, float] | None
    confidence: float | None
    where: str


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
    except (ValueError, RecursionError) as error:  # not Unicode, a number of thousands of digits, or very deep
        raise UserError(f"{path}: not JSON ({error})") from None
    counted = Counter[str]()
    heard: list[_Heard] = []
    for said in _heard(path, content, counted):
        text = "" if is_mark(said.text) else _stripped(said.text)
        if text:
            heard.append(_Heard(text, said.times, said.confidence, said.where))
        else:
            counted[MARKS] += 1
    words = _timed(heard, counted)
    language = content.get("language")
    if language is not None and not isinstance(language, str):
        raise UserError(f"{path}: language is {str(language)[:60]}; expected a name like en")
    return Said(tuple(sorted(words, key=lambda word: word.start_s)), language, counted)


def _heard(path: Path, content: Any, counted: Counter[str]) -> Iterator[_Heard]:
    segments = content.get("segments") if isinstance(content, dict) else None
    if not isinstance(segments, list):
        raise UserError(f"{path}: no 'segments'; expected the JSON of openai-whisper or WhisperX")
    for number, segment in enumerate(segments):
        where = f"{path}: segments[{number}]"
        words = segment.get("words") if isinstance(segment, dict) else None
        if not isinstance(words, list):
            raise UserError(f"{where} has no 'words'; run whisper with --word_timestamps True, or align with WhisperX")
        if not words and segment.get("text"):  # WhisperX could align nothing of it
            counted[UNPLACED] += len(str(segment["text"]).split())
        for place, fields in enumerate(words):
            yield _word(fields, f"{where}.words[{place}]")


def _word(fields: Any, where: str) -> _Heard:
    if not isinstance(fields, dict) or not isinstance(fields.get("word"), str):
        raise UserError(f"{where}: no 'word'; expected {{'word': ..., 'start': ..., 'end': ..., 'score': ...}}")
    start_s, end_s = _number(fields, "start", where), _number(fields, "end", where)
    confidence = _number(fields, "score" if "score" in fields else "probability", where)
    times = None if start_s is None or end_s is None else (start_s, end_s)
    return _Heard(fields["word"].strip(), times, confidence, where)


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
    return (category[0] == "P" and character not in _PART_OF_WORDS) or category in ("So", "Cf")


def _timed(heard: list[_Heard], counted: Counter[str]) -> Iterator[Word]:
    """The words with times; runs of words without share the gap between the words around them equally."""
    before_s: float | None = None
    runs = [(has_times, list(run)) for has_times, run in groupby(heard, lambda said: said.times is not None)]
    for number, (has_times, run) in enumerate(runs):
        if has_times:
            for said in run:
                assert said.times is not None
                yield word(said.text, *said.times, said.confidence, said.where)
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
            yield word(said.text, start_s, end_s, None, said.where)
