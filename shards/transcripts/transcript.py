"""What every reader of transcripts gives, whatever the format."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from shards.record import Word
from triptych.config import UserError

MAX_BYTES = 1 << 26
"""Of a file that holds one clip's words and is read as a whole; an hour of speech takes about 2 MB."""

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


def word(text: str, start_s: float, end_s: float, confidence: float | None, where: str) -> Word:
    """A word, checked.

    Args:
        text: without blanks around it.
        start_s: from the clip's start.
        end_s: as `start_s`.
        confidence: of the recogniser, or None.
        where: file and line, for the message.

    Raises:
        UserError: times that are not finite, negative or backwards, a confidence that is not finite, or several words.
    """
    if not (math.isfinite(start_s) and math.isfinite(end_s)) or not 0 <= start_s <= end_s:
        raise UserError(f"{where}: {text!r} from {start_s:g} s to {end_s:g} s; times must be 0 or more and rise")
    if confidence is not None and not math.isfinite(confidence):
        raise UserError(f"{where}: the confidence {confidence} of {text!r} is not finite")
    if len(text.split()) != 1:
        raise UserError(f"{where}: {text!r} are several words at one time; give word by word times")
    return Word(intern(text), start_s, end_s, confidence)  # a corpus has 20 words a clip, and few different ones


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
