"""Kaldi's CTM: one word a line with its times, what almost every speech recogniser and aligner can write.

;; comment
<utterance> <channel> <start> <duration> <word> [<confidence>]     times in seconds
"""

from collections import Counter
from pathlib import Path

from shards.record import Word
from shards.transcripts.transcript import MARKS, Said, is_mark, word
from triptych.config import UserError
from triptych.text_files import open_text

_EXPECTED = "expected '<utterance> <channel> <start s> <duration s> <word> [<confidence>]'"


def read(path: Path) -> dict[str, Said]:
    """Read a CTM file.

    Returns:
        Utterance -> what it says; without words where the file knows the utterance and holds only marks of it.

    Raises:
        UserError: the file cannot be read, or a line is no CTM line; the message names file and line.
    """
    utterances: dict[str, list[Word]] = {}
    marks = Counter[str]()
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if not fields or fields[0].startswith(";;"):
                    continue
                said = _word(fields, f"{path}:{number}")
                words = utterances.setdefault(fields[0], [])
                if is_mark(said.text):
                    marks[fields[0]] += 1
                else:
                    words.append(said)
    except OSError as error:
        raise UserError(f"{path}: the transcript cannot be read: {error.strerror}") from None
    return {
        name: Said(
            tuple(sorted(words, key=lambda word: word.start_s)), counted={MARKS: marks[name]} if marks[name] else {}
        )
        for name, words in utterances.items()
    }


def _word(fields: list[str], where: str) -> Word:
    if len(fields) not in (5, 6):
        raise UserError(f"{where}: {len(fields)} fields; {_EXPECTED}")
    try:
        start_s, length_s, *confidence = (float(field) for field in (*fields[2:4], *fields[5:]))
    except ValueError:
        raise UserError(f"{where}: a time or confidence is no number; {_EXPECTED}") from None
    end_s = round(start_s + length_s, 6)  # .28 + .51 is .79, not .7900000000000001
    return word(fields[4], start_s, end_s, confidence[0] if confidence else None, where)
