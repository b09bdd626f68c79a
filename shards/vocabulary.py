"""The vocabulary of a shard set: which word has which id. No torch.

`vocabulary.txt` holds one "word count" line a word, most frequent first, counted on the training split only. Word `i`
of the file has id `i + 1`; id 0 is any other word.
"""

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
    def load(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.txt`.

        Raises:
            UserError: the file is missing, a line is not "word count", or a word comes twice.
        """
        return cls(tuple(read_counts(path)))

    def save(self, path: Path, counts: Mapping[str, int]) -> None:
        """Write the words in their order, each with its count; `load` gives an equal vocabulary back."""
        path.write_text("".join(f"{word} {counts[word]}\n" for word in self.words), encoding="utf-8")

    def id(self, word: str) -> int:
        """1 to `len(words)`, or 0 for any other word; case does not matter."""
        return self._ids.get(word.lower(), 0)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words, start=1)}


def read_counts(path: Path) -> dict[str, int]:
    """Word -> count, in the order of `vocabulary.txt`; raises as `Vocabulary.load` does."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: the vocabulary cannot be read ({error}); it is written with the shards: copy it from there"
        ) from None
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word, _, count = line.partition(" ")
        if not word or not count.isdecimal() or word != word.lower():
            raise UserError(f"{path}, line {number}: expected 'word count' in lowercase, got {line[:60]!r}")
        if word in counts:
            raise UserError(f"{path}, line {number}: the word {word!r} comes twice")
        counts[word] = int(count)
    return counts
