"""Word vectors in GloVe's text format: a word and its numbers a line, as in "the 0.046 0.213 ..."; no torch.

Also takes the text format of word2vec and fastText, whose first line says "words dimensions". A word may hold blanks,
as some of glove.840B do, so that a line is split from its right. The file is read once, and only the words that are
asked for are kept: 88,000 words of 300 dimensions take 106 MB, whatever the file's size.
"""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from shards.words.words import spoken_form
from triptych.config import UserError, nearest

MAX_DIMENSIONS = 10_000
MAX_LINE = 1 << 20
"""Bytes of a line: enough for these. A longer one is of no text file, and would fill the memory."""


@dataclass(frozen=True)
class GloVe:
    """Vectors of a vocabulary's words."""

    words: tuple[str, ...]
    """The word of row `i + 1`, as in `shards.words.words.Vocabulary`."""
    matrix: np.ndarray
    """[1 + words, dimensions] float32; row 0 is any other word. Rows without a vector are zeros: how to fill them is
    for the model to decide."""
    found: np.ndarray
    """[1 + words] bool: whether the row has a vector; False for row 0."""

    def told(self, counts: Mapping[str, int]) -> str:
        """How many words have no vector, and how much of what is said that is.

        Args:
            counts: word -> how often it is said; words outside of `words` count as without a vector.
        """
        known = {word for word, found in zip(self.words, self.found[1:], strict=True) if found}
        running, number = sum(counts.values()), len(self.words) - len(known)
        without = sum(count for word, count in counts.items() if word not in known)
        return (
            f"{self.matrix.shape[1]} dimensions; {number:,} of {len(self.words):,} words have no vector "
            f"({100 * number / max(1, len(self.words)):.2f} %), and {without:,} of {running:,} running words "
            f"({100 * without / max(1, running):.2f} %)"
        )


def load(path: Path, words: Sequence[str]) -> GloVe:
    """Read the vectors of some words.

    Args:
        path: a text file, a .gz of one, or a .zip of one; of several by ARCHIVE.zip/MEMBER.
        words: without repetition, none with blanks; written as the file has them. GloVe 6B is in lowercase, as our
            vocabularies are; in 840B the lowercase entry is taken. One that the file has not as it is written
            ("okay!") has the vector of its spoken form.

    Raises:
        UserError: the file cannot be read or is cut short; a line has fewer numbers than the first one; a word that is
            asked for comes twice, or with more numbers or such that are not finite. The message names the line.
    """
    asked = list(dict.fromkeys([*words, *filter(None, map(spoken_form, words))]))
    rows = {word.encode(): row for row, word in enumerate(asked, start=1)}
    lines: dict[int, int] = {}  # row -> the line that it is from
    matrix = np.zeros((0, 0), dtype=np.float32)
    dimensions, promised, number = 0, None, 0
    with _open(path) as file:
        for number, line in _numbered(path, file):
            if number == 1:
                dimensions, promised = _dimensions(path, line)
                matrix = np.zeros((len(asked) + 1, dimensions), dtype=np.float32)
                if promised is not None:
                    continue
            row = rows.get(line[: line.find(b" ")])
            blanks = line.count(b" ")
            if blanks < dimensions:
                raise UserError(f"{path}, line {number}: {blanks} numbers where the first line has {dimensions}")
            if row is None or (blanks > dimensions and _is_other_word(path, number, line, dimensions)):
                continue
            if row in lines:
                raise UserError(f"{path}, line {number}: {asked[row - 1]!r} is on line {lines[row]} too; keep one")
            matrix[row] = _values(path, number, line)
            lines[row] = number
    if not dimensions:
        raise UserError(f"{path}: the file is empty")
    if promised is not None and number - 1 != promised:
        raise UserError(f"{path}: {number - 1} words where its first line says {promised}; it is cut short or too long")
    spoken = [rows.get(spoken_form(word).encode(), 0) for word in words]
    own = [0, *(row if row in lines else other for row, other in enumerate(spoken, start=1))]
    return GloVe(tuple(words), matrix[own], np.isin(own, list(lines)))


def _dimensions(path: Path, line: bytes) -> tuple[int, int | None]:
    """Numbers of a line by the first one, and where that is a header, how many words it promises."""
    fields = line.split(b" ")
    is_header = len(fields) == 2 and all(field.isdigit() and len(field) < 10 for field in fields)
    dimensions = int(fields[1]) if is_header else len(fields) - 1
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise UserError(
            f"{path}, line 1: {line[:60]!r}; expected a word and its numbers (at most {MAX_DIMENSIONS}), with blanks "
            "between them"
        )
    return dimensions, int(fields[0]) if is_header else None


def _is_other_word(path: Path, number: int, line: bytes, dimensions: int) -> bool:
    """A line with more fields than the others: of a word with blanks that begins like one of ours, or too long?"""
    _, *more = line.rsplit(b" ", dimensions)[0].split(b" ")
    try:
        [float(field) for field in more]
    except ValueError:
        return True
    raise UserError(f"{path}, line {number}: {dimensions + len(more)} numbers where the first line has {dimensions}")


def _values(path: Path, number: int, line: bytes) -> np.ndarray:
    word, *fields = line.split(b" ")
    try:
        values = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}") from None
    if not np.isfinite(values).all():
        raise UserError(f"{path}, line {number}: the vector of {word.decode()!r} has numbers that are not finite")
    return values


def _numbered(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines from 1 on, without blanks at their ends (fastText leaves one)."""
    number = 0
    try:
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE:
                raise UserError(f"{path}, line {number}: longer than {MAX_LINE} bytes; this is no file of word vectors")
            yield number, (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b" \r\n")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read after line {number} ({error}); copy it again") from None


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The text, unpacked while it is read, with a bar of the packed bytes on a terminal."""
    archive = next((folder for folder in (path, *path.parents) if folder.suffix.lower() == ".zip"), None)
    packed = archive if archive is not None and archive.is_file() else path
    console = Console(stderr=True)
    with ExitStack() as stack:
        try:
            progress = stack.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
            text: Any = stack.enter_context(progress.open(packed, "rb", description=packed.name))
            if packed == archive:
                inside = stack.enter_context(zipfile.ZipFile(text))
                text = stack.enter_context(inside.open(_member(path, packed, inside)))
            elif path.suffix.lower() == ".gz":
                text = stack.enter_context(gzip.GzipFile(fileobj=text))
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # RuntimeError: an encrypted archive
            raise UserError(f"{packed}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        yield io.BufferedReader(text, 1 << 20)


def _member(path: Path, archive: Path, inside: zipfile.ZipFile) -> str:
    names = [info.filename for info in inside.infolist() if not info.is_dir()]
    if path == archive and len(names) == 1:
        return names[0]
    wanted = "" if path == archive else path.relative_to(archive).as_posix()
    if wanted not in names:
        raise UserError(f"{archive}: name the file inside, as {archive}/MEMBER.{nearest(wanted, names)}")
    return wanted
