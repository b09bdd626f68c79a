"""A vocabulary: which word has which id, or which pieces a text has. No torch.

`vocabulary.txt` of a shard set holds one "word count" line a word, most frequent first, counted on the training split
only; `python -m shards vocabulary` makes such a file of several sets. Word `i`
of the file has id `i + 1`; id 0 is any other word. A published encoder may bring its tokenizer instead.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from shards.features.words import PIECES, WORDS
from shards.record import Word
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.text_files import decode_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Times = list[tuple[float, float]]
"""Start and end in seconds, of each step."""


@dataclass(frozen=True)
class Vocabulary:
    """Lowercase words, most frequent first."""

    words: tuple[str, ...]
    spec: ClassVar[FeatureSpec] = WORDS

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
        """1 to `len(words)`, or 0 for any other word; case does not matter.

        One that is not there as it is written is its spoken form, if that is there.
        """
        return self._ids.get(word.lower()) or self._ids.get(spoken_form(word), 0)

    def steps(self, words: Sequence[Word]) -> tuple[list[int], Times]:
        """Id and times of each word."""
        return [self.id(word.text) for word in words], [(word.start_s, word.end_s) for word in words]

    @property
    def sha256(self) -> str:
        """Of the words, in their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words, start=1)}


@dataclass(frozen=True)
class PieceVocabulary:
    """A published tokenizer, which cuts a clip's words, as they are written, into the pieces of its model."""

    tokenizer: str
    """Content of tokenizer.json."""
    spec: ClassVar[FeatureSpec] = PIECES

    def steps(self, words: Sequence[Word]) -> tuple[list[int], Times]:
        """Id and times of each piece of the words with a space between them; a word's pieces share its time by their
        letters, of which each counts as having one at least.

        No text is one of the model's special tokens, whatever it looks like.
        """
        starts = [0, *accumulate(len(word.text) + 1 for word in words)][: len(words)]
        encoded = self._cut.encode(" ".join(word.text for word in words), add_special_tokens=False)
        numbers = [bisect_right(starts, end) - 1 for _, end in encoded.offsets]  # the space before a word is the word's
        letters = [
            max(1, end - max(begin, starts[number]))
            for number, (begin, end) in zip(numbers, encoded.offsets, strict=True)
        ]
        times: Times = []
        for number, group in groupby(zip(numbers, letters, strict=True), key=itemgetter(0)):
            word, edges = words[number], [0, *accumulate(size for _, size in group)]
            edges_s = [word.start_s + (word.end_s - word.start_s) * edge / edges[-1] for edge in edges]
            times += pairwise(edges_s)
        return encoded.ids, times

    @property
    def sha256(self) -> str:
        """Of the tokenizer."""
        return hashlib.sha256(self.tokenizer.encode()).hexdigest()

    @cached_property
    def _cut(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer


AnyVocabulary = Vocabulary | PieceVocabulary


def spoken_form(word: str) -> str:
    """In lower case, from its first letter or digit to its last one; empty where it has none.

    Given transcripts are often written language ("Well, fine.") and recognised ones are not ("well fine").
    """
    letters = [place for place, letter in enumerate(word) if letter.isalnum()]
    return word[letters[0] : letters[-1] + 1].lower() if letters else ""


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
    lines = decode_text(content, where).splitlines()
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word, _, count = line.partition(" ")
        if not word or not count.isdecimal() or word != word.lower():
            raise UserError(f"{where}, line {number}: expected 'word count' in lowercase, got {line[:60]!r}")
        if word in counts:
            raise UserError(f"{where}, line {number}: the word {word!r} comes twice")
        counts[word] = int(count)
    return counts
