"""Praat's TextGrid, as the Montreal Forced Aligner and many others write it: one file a clip, one tier with its words.

By Praat's definition a text file is read from left to right, and only what stands free between blanks counts: numbers,
"text" (a quote inside is doubled) and <flags>; all else is for the reader's eyes, and "!" starts a comment. So one rule
reads the long form ("xmin = 0.5") and the short one ("0.5").
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from shards.transcripts.transcript import MARKS, Gathered, Said, is_mark, read_whole
from triptych.config import UserError
from triptych.text_files import decode_text

EMPTY = "empty labels"

_TOKEN = re.compile(
    r'(?<!\S)(?:"(?P<text>[^"]*+(?:""[^"]*+)*+)"|(?P<flag><\w+>)|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))(?!\S)'
    r"|(?<!\S)!.*"
)
_SILENCES = {"sil", "sp", "spn", "nsn"}
"""Silence, short pause, spoken noise and other noise, as aligners label them without brackets."""

Interval = tuple[float, float, str, int]
"""Start and end in seconds, label, and where in the text it begins."""


def read(path: Path, tier: str | None) -> Said:
    """Read the words of one clip.

    Args:
        path: a text file in UTF-8, or UTF-16 with its byte order mark; in the long or the short form.
        tier: name of the interval tier with the words; when None, the only one that is named word or words, alone or
            behind a speaker ("Mary - words"), whatever the case.

    Raises:
        UserError: the file cannot be read, is no whole TextGrid, has no such tier or several; the message names file
            and line.
    """
    text = _decode(path)
    tiers = _Reader(path, text).tiers()
    gathered = Gathered(str(path))
    for start_s, end_s, label, position in _chosen(path, tiers, tier):
        said = label.strip()
        if not said:
            gathered.counted[EMPTY] += 1
        elif is_mark(said) or said.lower() in _SILENCES:
            gathered.counted[MARKS] += 1
        else:
            gathered.add(said, start_s, end_s, None, f"{path}:{_line(text, position)}")
    return gathered.said()


def _decode(path: Path) -> str:
    content = read_whole(path)
    if content.startswith(b"ooBinaryFile"):
        raise UserError(f"{path}: a binary TextGrid; save it from Praat as a text file or a short text file")
    return decode_text(content, str(path))


def _chosen(path: Path, tiers: list[tuple[str, list[Interval]]], tier: str | None) -> list[Interval]:
    pattern = re.compile(r"(.* - )?words?" if tier is None else re.escape(tier), re.IGNORECASE)
    fitting = [intervals for name, intervals in tiers if pattern.fullmatch(name.strip())]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(repr(name) for name, _ in tiers) or "none"
    wanted = f"named {tier!r}" if tier is not None else "named word or words"
    number = f"{len(fitting)} interval tiers are" if fitting else "no interval tier is"
    raise UserError(f"{path}: {number} {wanted}; it has {names}. Name the one to read as the corpus' words_tier")


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


class _Reader:
    """Takes the tokens of a TextGrid in the order in which they must come."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._tokens: Iterator[re.Match[str]] = (match for match in _TOKEN.finditer(text) if match.lastgroup)

    def tiers(self) -> list[tuple[str, list[Interval]]]:
        """Name and intervals of each interval tier; tiers of points are passed over.

        Raises:
            UserError: something else comes than must come; the message names file and line.
        """
        head = [match["text"] for match in islice(self._tokens, 2)]
        if head not in (["ooTextFile", "TextGrid"], ["ooTextFile short", "TextGrid"]):
            raise UserError(
                f'{self._path}:1: not a TextGrid; expected File type = "ooTextFile" and Object class = "TextGrid"'
            )
        self._span("the file")
        if self._take("flag", "<exists> or <absent>")["flag"] != "<exists>":
            return []
        tiers = [tier for _ in range(self._count("the number of tiers")) if (tier := self._tier()) is not None]
        if (extra := next(self._tokens, None)) is not None:
            raise self._error(extra, "the end of the file, as the counts above say")
        return tiers

    def _tier(self) -> tuple[str, list[Interval]] | None:
        match = self._take("text", "the class of a tier")
        kind, name = match["text"], self._take("text", "the name of a tier")["text"].replace('""', '"')
        self._span("a tier")
        count = self._count("the size of a tier")
        if kind == "TextTier":
            for _ in range(count):
                self._number("the time of a point")
                self._take("text", "the mark of a point")
            return None
        if kind != "IntervalTier":
            raise self._error(match, '"IntervalTier" or "TextTier"')
        return name, [self._interval() for _ in range(count)]

    def _interval(self) -> Interval:
        start_s, end_s = self._span("an interval")
        match = self._take("text", "the label of an interval")
        return start_s, end_s, match["text"].replace('""', '"'), match.start()

    def _span(self, owner: str) -> tuple[float, float]:
        return self._number(f"the start of {owner}"), self._number(f"the end of {owner}")

    def _number(self, what: str) -> float:
        return float(self._take("number", what)["number"])

    def _count(self, what: str) -> int:
        match = self._take("number", what)
        if not match["number"].isdecimal():
            raise self._error(match, what)
        return int(match["number"])

    def _take(self, group: str, what: str) -> re.Match[str]:
        match = next(self._tokens, None)
        if match is None or match.lastgroup != group:
            raise self._error(match, what)
        return match

    def _error(self, match: re.Match[str] | None, expected: str) -> UserError:
        if match is None:
            return UserError(
                f"{self._path}:{_line(self._text, len(self._text))}: the file ends where {expected} should come; it is "
                "cut short"
            )
        return UserError(
            f"{self._path}:{_line(self._text, match.start())}: {match[0][:60]} where {expected} should come"
        )
