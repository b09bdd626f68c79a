"""Word errors put into transcripts: what a recogniser's mistakes cost, asked by making more of them. No torch.

Khare et al. (2021) pretrain on recognised words and leave open what their errors cost. A run with `stream.word_errors`
trains on transcripts that differ from the shards' by a word error rate of its choice; held-out clips stay as they are,
so that runs with several rates are measured on the same words. The errors of a clip are a function of (seed, key) and
not of the epoch, as a recogniser errs the same way each time.

The word error rate is (substitutions + deletions + insertions) / words of the true transcript, over a corpus and by the
alignment with the fewest errors. Each word meets at most one error, with probability `rate`, so that errors are counted
as they are drawn; only what an alignment would read otherwise is ruled out: a deleted word that no kept word separates
from an inserted one before it becomes a substituted one. What is left is chance, such as a substitute that happens to
be the next word: on 92,000 words with the frequencies of Zipf's law, rates of 0.15, 0.30 and 0.50 come out as 0.149,
0.296 and 0.496.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shards.record import Word
from triptych.config import UserError


@dataclass(frozen=True, kw_only=True)
class WordErrorsConfig:
    """How many word errors, of which kinds."""

    rate: float
    """Word error rate over the training clips, against the shards' transcripts; 0 changes nothing."""
    substitutions: float = 0.6
    """Share of the errors: a word is heard as another one, drawn as often as the training split says it."""
    deletions: float = 0.25
    """Share of the errors: a word is missing, and its time belongs to none."""
    insertions: float = 0.15
    """Share of the errors: a word that nobody said takes the second half of the time of the word before it. The three
    defaults are a choice, not a measurement: give those of the recogniser in question."""
    seed: int = 0
    """Of the errors alone: a run's own seed leaves them as they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"word_errors.rate: {self.rate}; expected a share from 0 to below 1, as in 0.15")
        shares = (self.substitutions, self.deletions, self.insertions)
        if min(shares) < 0 or not math.isclose(sum(shares), 1):
            raise ValueError(
                f"word_errors: substitutions, deletions and insertions are shares of the errors and add up to 1, and "
                f"{' + '.join(map(str, shares))} = {sum(shares):g}"
            )


class WordErrors:
    """Puts errors into one clip's words at a time; goes to loader processes.

    Args:
        config: how many, of which kinds.
        counts: word -> how often the training split says it, in lowercase.

    Raises:
        UserError: fewer than two different words, so that none can be mistaken for another.
    """

    def __init__(self, config: WordErrorsConfig, counts: Mapping[str, int]) -> None:
        said = {word: count for word, count in counts.items() if count > 0}
        if len(said) < 2:
            raise UserError(
                f"stream.word_errors: the training split has {len(said)} different words, and errors take two at "
                "least; write the shards with transcripts, or leave word_errors out"
            )
        self._config = config
        self._words = tuple(said)
        self._numbers = {word: number for number, word in enumerate(self._words)}
        self._ends = np.cumsum([said[word] for word in self._words])

    def __call__(self, words: Sequence[Word], key: str) -> tuple[Word, ...]:
        """The words of a clip as recognised; their times stay in order. May be empty.

        Args:
            words: of the transcript.
            key: the clip's.
        """
        config, heard = self._config, list[Word]()
        digest = hashlib.blake2b(f"word errors/{config.seed}/{key}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))
        shares = (config.substitutions, config.deletions, config.insertions)
        substituted, deleted, inserting = np.cumsum(shares) * config.rate
        inserted = False  # since the last word that was kept
        for word, (kind, choice) in zip(words, generator.random((len(words), 2)).tolist(), strict=True):
            if kind < substituted or (kind < deleted and inserted):
                heard.append(replace(word, text=self._other(word.text, choice), confidence=None))
            elif deleted <= kind:
                heard.append(word)
                inserted = kind < inserting
                if inserted:
                    middle_s = (word.start_s + word.end_s) / 2
                    heard[-1] = replace(word, end_s=middle_s)
                    text = self._other(word.text, choice)
                    heard.append(Word(text=text, start_s=middle_s, end_s=word.end_s))
        return tuple(heard)

    def _other(self, text: str, choice: float) -> str:
        """A word of the training split, but not this one; `choice` is uniform in [0, 1)."""
        own = self._numbers.get(text.lower())
        start, end = (0, 0) if own is None else (int(self._ends[own - 1]) if own else 0, int(self._ends[own]))
        place = choice * (int(self._ends[-1]) - (end - start))
        if place >= start:  # the word's own span is passed over
            place += end - start
        return self._words[int(np.searchsorted(self._ends, place, side="right"))]
