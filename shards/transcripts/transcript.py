"""What every reader of transcripts gives, whatever the format."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from shards.record import Word
from triptych.config import UserError

MAX_BYTES = 1 << 26
"""Of a file that holds one clip's words and is read as a whole; an hour of speech takes about 2 MB."""

TINY_S = 0.05
"""Of a start before the clip that is taken for its start."""
ROUNDING_S = 0.001
"""By so much a word may end before its start; it has no length then."""
EARLY = "words that start just before their clip, taken from its start on"
IMPOSSIBLE = "words left out, for they end before they start or lie before the clip"
SEVERAL = "entries left out that are several words at one time"
UNSURE = "confidences that are no numbers and were forgotten"
_BREAKING_BLANK = re.compile(r"[^\S\u00a0\u2007\u202f]")
"""Any blank but those that do not break a line."""
MARKS = "marks like <sil>, spn or [noise], which are no words"
_MARK = re.compile(r"<.*>|\[.*\]|\{.*\}")


@dataclass(frozen=True)
class Said:
    """What a transcript says of one clip."""

    words: tuple[Word, ...]
    """By start time; () where nothing was said."""
    language: str | None = None
    """As the recogniser names it ("en"); None where the format does not tell."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """What became no word or got no time of its own -> how often; the text completes "a file has 3 ..."."""


def is_mark(text: str) -> bool:
    """Whether a label is a mark of the recogniser or annotator: <eps>, <unk>, [noise], {laugh}."""
    return _MARK.fullmatch(text) is not None


def begins_with_blank(text: str) -> bool:
    """Whether an ordinary blank, one that parts words, is in front of a text."""
    return _BREAKING_BLANK.match(text) is not None


class Gathered:
    """The words of one clip, as a reader meets them: what is odd about one is mended or counted, and does not stop the
    other million.

    Clamped: a start just before the clip (aligners round so). Forgotten: a confidence that is no number. Left out:
    words whose times cannot be, and several words at one time. A clip that has more of those than good words is not
    believed.
    """

    def __init__(self, where: str) -> None:
        """`where` is the clip's file, for the message."""
        self.where = where
        self.counted = Counter[str]()
        self._words: list[Word] = []
        self._odd: list[str] = []

    def add(self, text: str, start_s: float, end_s: float, confidence: float | None, where: str) -> None:
        """Take a word.

        Args:
            text: without blanks around it; blanks that do not break a line ("20 000" in French) are part of the word.
            start_s: from the clip's start.
            end_s: as `start_s`.
            confidence: of the recogniser, or None.
            where: file and line, for the message.
        """
        if -TINY_S <= start_s < 0 <= end_s:
            self.counted[EARLY] += 1
            start_s = 0.0
        if start_s - ROUNDING_S <= end_s < start_s:
            end_s = start_s
        if not (math.isfinite(start_s) and math.isfinite(end_s)) or not 0 <= start_s <= end_s:
            told = f"{text!r} from {start_s:g} s to {end_s:g} s; times must be 0 or more and rise"
            self._leave_out(IMPOSSIBLE, f"{where}: {told}")
        elif _BREAKING_BLANK.search(text):
            self._leave_out(SEVERAL, f"{where}: {text!r} are several words at one time; give word by word times")
        else:
            if confidence is not None and not math.isfinite(confidence):
                self.counted[UNSURE] += 1
                confidence = None
            self._words.append(Word(intern(text), start_s, end_s, confidence))  # few different ones in a corpus

    def _leave_out(self, kind: str, told: str) -> None:
        self.counted[kind] += 1
        self._odd.append(told)

    def said(self, language: str | None = None) -> Said:
        """All of it.

        Raises:
            UserError: most of the words are odd; the message tells the first.
        """
        if len(self._odd) > len(self._words):
            more = (
                f" ({len(self._odd)} such words of {len(self._odd) + len(self._words)})" if len(self._odd) > 1 else ""
            )
            raise UserError(f"{self._odd[0]}{more}")
        return Said(tuple(sorted(self._words, key=lambda word: word.start_s)), language, +self.counted)


def read_whole(path: Path) -> bytes:
    """The content of a transcript of one clip.

    Raises:
        UserError: it cannot be read, or is larger than MAX_BYTES.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: the transcript cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so no transcript of one clip")
    return content
