"""How far other transcripts of the held-out clips are from the clips' own words, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shards.reading.index import ShardSet
from shards.reading.other_words import Difference, OtherWords, compare, known_share, read_words
from shards.words.words import AnyVocabulary, Vocabulary


@dataclass(frozen=True)
class TranscriptDifferences:
    """How other transcripts of some clips differ from their own words."""

    shard_set: ShardSet
    transcripts: Mapping[str, OtherWords]
    vocabulary: AnyVocabulary | None
    """Of the encoder."""
    keys: Sequence[str]
    """Of the clips that are scored."""

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """Transcript -> how it differs from the clips' own words."""
        return {name: compare(self._own, words, self.keys) for name, words in self.transcripts.items()}

    @cached_property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """Transcript -> its facts, as results.json has them; a share of nothing is None."""
        return {
            name: {
                "word_error_rate": self.differences[name].rate,
                "word_errors": self.differences[name].num_errors,
                "own_words": self.differences[name].num_words,
                "clips_without_words": self.differences[name].num_silent,
                **self._known(words),
                "words_sha256": words.sha256,
            }
            for name, words in self.transcripts.items()
        }

    @property
    def note(self) -> str:
        """The numbers in words."""
        return " ".join(_in_words(name, facts) for name, facts in self.numbers.items())

    def _known(self, words: OtherWords) -> dict[str, float | None]:
        """Nothing of an encoder that reads pieces: there is no word without."""
        if not isinstance(self.vocabulary, Vocabulary):
            return {}
        said = {"known_share": words, "known_share_of_own": self._own}
        return {name: known_share(one, self.vocabulary, self.keys) for name, one in said.items()}

    @cached_property
    def _own(self) -> OtherWords:
        return read_words(self.shard_set, set(self.keys))


def _in_words(name: str, facts: Mapping[str, Any]) -> str:
    rate = _percent(facts["word_error_rate"])
    said = f"{name}: word error rate {rate}, {facts['word_errors']:,} errors in {facts['own_words']:,} words"
    if facts["clips_without_words"]:
        said += f", clips with none left: {facts['clips_without_words']:,}"
    if "known_share" not in facts:
        return f"{said}."
    known = _percent(facts["known_share"]), _percent(facts["known_share_of_own"])
    return f"{said}; the encoder knows {known[0]} of these words and {known[1]} of the clips' own."


def _percent(share: float | None) -> str:
    return "undefined" if share is None else f"{100 * share:.1f} %"
