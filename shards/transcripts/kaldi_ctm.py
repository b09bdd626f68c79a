"""Kaldi's CTM: one word a line with its times, what almost every speech recogniser and aligner can write.

;; comment
<utterance> <channel> <start> <duration> <word> [<confidence>]     times in seconds
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from shards.record import Word
from triptych.config import UserError

_NON_WORD = re.compile(r"<.*>|\[.*\]")
"""<eps>, <unk>, [noise], [laughter]: marks of the recogniser, not words."""


@dataclass(frozen=True)
class Transcript:
    """What one file says."""

    words: dict[str, tuple[Word, ...]]
    """Utterance -> its words by start time; () where the file knows the utterance and holds no word of it."""
    num_non_words: int
    """Tokens in <> or [], which are left out."""


def read(path: Path) -> Transcript:
    """Read a CTM file.

    Raises:
        UserError: the file cannot be read, or a line is no CTM line; the message names file and line.
    """
    utterances: dict[str, list[Word]] = {}
    num_non_words = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if not fields or fields[0].startswith(";;"):
                    continue
                utterance, word = _word(fields, f"{path}:{number}")
                words = utterances.setdefault(utterance, [])
                if _NON_WORD.fullmatch(word.text):
                    num_non_words += 1
                else:
                    words.append(word)
    except OSError as error:
        raise UserError(f"{path}: the transcript cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the transcript is not UTF-8 text") from None
    by_start = {name: tuple(sorted(words, key=lambda word: word.start_s)) for name, words in utterances.items()}
    return Transcript(by_start, num_non_words)


def _word(fields: list[str], where: str) -> tuple[str, Word]:
    expected = "expected '<utterance> <channel> <start s> <duration s> <word> [<confidence>]'"
    if len(fields) not in (5, 6):
        raise UserError(f"{where}: {len(fields)} fields; {expected}")
    try:
        start_s, length_s, *confidence = (float(field) for field in (*fields[2:4], *fields[5:]))
    except ValueError:
        raise UserError(f"{where}: a time or confidence is no number; {expected}") from None
    if not all(map(math.isfinite, (start_s, length_s, *confidence))) or start_s < 0 or length_s < 0:
        raise UserError(f"{where}: start {fields[2]} and duration {fields[3]}; both must be 0 s or more")
    end_s = round(start_s + length_s, 6)  # .28 + .51 is .79, not .7900000000000001
    return fields[0], Word(fields[4], start_s, end_s, *confidence)
