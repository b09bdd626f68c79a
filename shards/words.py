"""A vocabulary: which word has which id. No torch.

`vocabulary.txt` of a shard set holds one "word count" line a word, most frequent first, counted on the training split
only; `python -m shards vocabulary` makes such a file of several sets. Word `i`
of the file has id `i + 1`; id 0 is any other word.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from triptych.config import UserError


@dataclass(frozen=True)
class Vocabulary:
    """Lowercase words, most frequent first."""

    words: tuple[str, ...]

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> "Vocabulary":
        """Words by falling count; equal counts in alphabetical order, so that the ids do not depend on who counted."""
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    @classmethod
    def load(cls, path: Path, sha256: str | None = None) -> "Vocabulary":
        """Read a vocabulary.

        Args:
            path: the file.
            sha256: that it must have, as the manifest tells it of the one in a shard set; None takes any.

        Raises:
            UserError: the file is missing or another one, a line is not "word count", or a word comes twice.
        """
        return cls(tuple(read_counts(path, sha256)))

    def to_bytes(self, counts: Mapping[str, int]) -> bytes:
        """Content of `vocabulary.txt`: the words in their order, each with its count."""
        return "".join(f"{word} {counts[word]}\n" for word in self.words).encode()

    def id(self, word: str) -> int:
        """1 to `len(words)`, or 0 for any other word; case does not matter."""
        return self._ids.get(word.lower(), 0)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words, start=1)}


def read_counts(path: Path, sha256: str | None = None) -> dict[str, int]:
    """Word -> count, in the order of the file; arguments and errors as of `Vocabulary.load`."""
    way_out = "it is written with the shards: copy it from there"
    if sha256 is None:
        way_out = "`python -m shards vocabulary SHARDS out=FILE` makes one"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the vocabulary cannot be read ({error}); {way_out}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: not the vocabulary of these shards (SHA-256 differs); {way_out}")
    return parse_counts(content, str(path))


def parse_counts(content: bytes, where: str) -> dict[str, int]:
    """Word -> count, in the order of a `vocabulary.txt`.

    Args:
        content: its bytes.
        where: it lies, for the message.

    Raises:
        UserError: not text, a line is not "word count", or a word comes twice.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: the vocabulary cannot be read ({error}); make it again") from None
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word, _, count = line.partition(" ")
        if not word or not count.isdecimal() or word != word.lower():
            raise UserError(f"{where}, line {number}: expected 'word count' in lowercase, got {line[:60]!r}")
        if word in counts:
            raise UserError(f"{where}, line {number}: the word {word!r} comes twice")
        counts[word] = int(count)
    return counts
