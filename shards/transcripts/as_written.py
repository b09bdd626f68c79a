"""The spelling of a transcript for words that an aligner gave times: its case and punctuation."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from shards.record import Word
from shards.words.words import spoken_form


def as_written(timed: Sequence[Word], transcript: Sequence[str]) -> tuple[Word, ...]:
    """The timed words, each spelled as the transcript's word at its place.

    A word that the transcript has not, or has otherwise than in case and punctuation, stays as it is, and one that the
    transcript has in addition is left out: it has no time.

    Args:
        timed: words of an utterance, in their order.
        transcript: its words as they are written.
    """
    written = [word for word in transcript if spoken_form(word)]
    ours, theirs = [spoken_form(word.text) for word in timed], [spoken_form(word) for word in written]
    spelled = list(timed)
    for own, other, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for step in range(size):
            spelled[own + step] = replace(spelled[own + step], text=written[other + step])
    return tuple(spelled)
