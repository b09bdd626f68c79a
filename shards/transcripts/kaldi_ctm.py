"""CTM: one word a line with its times, what almost every speech recogniser and aligner can write.

    ;; comment
    <utterance> <channel> <start> <duration> <word> [<confidence> [<type> [<speaker>]]]     times in seconds

Kaldi writes five or six columns, NeMo's aligner and NIST's tools eight; a confidence of NA is none. Of NIST's types
only `lex` is a word. Of alternatives (<ALT_BEGIN> ... <ALT> ... <ALT_END>) the first is read.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.transcripts.transcript import MARKS, Gathered, Said, is_mark
from triptych.config import UserError
from triptych.text_files import open_text

_EXPECTED = "expected '<utterance> <channel> <start s> <duration s> <word> [<confidence> [<type> [<speaker>]]]'"
_BLANKS = re.compile(r"[ \t\r\n\f\v]+")
"""Between columns; a word may hold blanks that do not break a line."""
_TYPES = {"lex", "frag", "fp", "un-lex", "for-lex", "non-lex", "misc", "noscore", "na"}
"""Of NIST's ctm format."""
_WORDS = {"lex", "na"}
_ALTERNATIVES = {"<alt_begin>": 1, "<alt>": 2, "<alt_end>": 0}
"""What follows: the first alternative, another one, none."""
OTHERS = "words of other alternatives than the first"


@dataclass
class _Utterance:
    name: str
    gathered: Gathered
    alternative: int = 0
    wrong: list[str] = field(default_factory=list)


def read(path: Path) -> dict[str, Said | UserError]:
    """Read a CTM file.

    Returns:
        Utterance -> what it says, without words where the file knows the utterance and holds only marks of it; or what
        is wrong with one of its lines, by file and line, for the other utterances can be right.

    Raises:
        UserError: the file cannot be read, or half of its utterances are wrong; the message tells the first.
    """
    utterances: dict[str, _Utterance] = {}
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                fields = _BLANKS.split(line.strip(" \t\r\n\f\v"))
                if not fields[0] or fields[0].startswith(";;"):
                    continue
                utterance = utterances.get(fields[0]) or _Utterance(fields[0], Gathered(str(path)))
                utterances[fields[0]] = utterance
                try:
                    _take(utterance, fields, f"{path}:{number}")
                except UserError as error:
                    utterance.wrong.append(str(error))
    except OSError as error:
        raise UserError(f"{path}: the transcript cannot be read: {error.strerror}") from None
    read = {name: _said(utterance) for name, utterance in utterances.items()}
    wrong = [said for said in read.values() if isinstance(said, UserError)]
    if 2 * len(wrong) >= len(read) > 0:
        raise wrong[0]
    return read


def _said(utterance: _Utterance) -> Said | UserError:
    if utterance.alternative and not utterance.wrong:
        utterance.wrong.append(f"{utterance.gathered.where}: {utterance.name}: an <ALT_BEGIN> has no <ALT_END>")
    if utterance.wrong:
        return UserError(utterance.wrong[0])
    try:
        return utterance.gathered.said()
    except UserError as error:
        return error


def _take(utterance: _Utterance, fields: Sequence[str], where: str) -> None:
    """Read a line into its utterance.

    Raises:
        UserError: it is no line of this form.
    """
    if len(fields) >= 5 and fields[4].lower() in _ALTERNATIVES:
        if (fields[4].lower() == "<alt_begin>") is bool(utterance.alternative):
            raise UserError(f"{where}: {fields[4]} is out of place; expected <ALT_BEGIN> ... <ALT> ... <ALT_END>")
        utterance.alternative = _ALTERNATIVES[fields[4].lower()]
        return
    kind = fields[6].lower() if len(fields) > 6 else "lex"
    if not 5 <= len(fields) <= 8 or kind not in _TYPES:
        known = f" of type {fields[6]!r}" if 7 <= len(fields) <= 8 else ""
        raise UserError(f"{where}: {len(fields)} fields{known}; {_EXPECTED}")
    confidence = None
    try:
        start_s, length_s = float(fields[2]), float(fields[3])
        if len(fields) > 5 and fields[5].upper() != "NA":
            confidence = float(fields[5])
    except ValueError:
        raise UserError(f"{where}: a time or confidence is no number; {_EXPECTED}") from None
    counted = utterance.gathered.counted
    if utterance.alternative > 1:
        counted[OTHERS] += 1
    elif kind not in _WORDS or is_mark(fields[4]) or (utterance.alternative and fields[4] == "@"):
        counted[MARKS] += 1
    else:
        end_s = round(start_s + length_s, 6) if math.isfinite(length_s) else length_s  # .28 + .51 is not .79000000001
        utterance.gathered.add(fields[4], start_s, end_s, confidence, where)
