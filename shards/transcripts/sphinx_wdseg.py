"""Word times of CMU Sphinx's aligner: a file an utterance, in frames of 10 ms.

    SFrm  EFrm    SegAScr Word
        0    40    -66239 <s>
       41    72   -175300 WHAT(2)
     Total score:   -241539

The last frame of a word belongs to it. Pauses are in angle brackets, noises between plus signs (++LAUGHTER++), and a
number in brackets tells which pronunciation was heard.
"""

import re
from pathlib import Path

from shards.record import Word
from triptych.config import UserError
from triptych.text_files import read_text

FRAME_S = 0.01
_LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+(-?\d+)\s+(\S+)\s*")
_VARIANT = re.compile(r"\(\d+\)$")


def read(path: Path) -> tuple[Word, ...]:
    """The words in lower case, without pauses and noises; times in seconds from the utterance's start.

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise UserError(f"{path}: the alignment cannot be read: {error}") from None
    words = []
    for number, line in enumerate(lines, start=1):
        if number == 1 or not line.strip() or line.split()[0] == "Total":
            continue
        match = _LINE.fullmatch(line)
        if match is None or int(match[2]) < int(match[1]):
            raise UserError(f"{path}, line {number}: {line.strip()!r}; expected first frame, last frame, score, word")
        first, last, _, text = match.groups()
        if not text.startswith(("<", "++")):
            start_s, end_s = round(int(first) * FRAME_S, 2), round((int(last) + 1) * FRAME_S, 2)
            words.append(Word(_VARIANT.sub("", text).lower(), start_s, end_s))
    return tuple(words)
