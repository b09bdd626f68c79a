"""Word errors between two transcripts of the same clips."""

import pytest

from shards.reading.other_words import OtherWords, compare, known_share, num_word_errors, spoken
from shards.record import Word
from shards.words.words import Vocabulary


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(part, place, place + 1) for place, part in enumerate(text.split()))


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("", "", 0),
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a c", "a b c", 1),
        ("a b c d", "b c d e", 2),  # one deleted, one inserted, and not four others
        ("the cat sat on the mat", "the cat sit on mat now", 3),
        ("x a", "a b c x a", 3),
    ],
)
def test_word_errors_are_those_of_the_best_alignment(reference: str, heard: str, errors: int) -> None:
    assert num_word_errors(reference.split(), heard.split()) == errors
    assert num_word_errors(heard.split(), reference.split()) == errors


def test_written_and_spoken_language_are_the_same_words() -> None:
    assert spoken(words("Well, I'm FINE. -- (really)")) == spoken(words("well i'm fine really"))
    assert spoken(None) == []


def test_the_rate_is_over_all_words_and_not_a_mean_of_clips() -> None:
    said = OtherWords({"a": words("one two three four"), "b": words("five"), "c": None})
    heard = OtherWords({"a": words("one two three four"), "b": None, "c": words("oh")})
    found = compare(said, heard, ["a", "b", "c", "a"])
    assert found.errors == {"a": 0, "b": 1, "c": 1}
    assert found.rate == 2 / 5
    assert found.num_silent == 1
    assert compare(said, heard, ["c"]).rate is None


def test_known_words_are_counted_as_often_as_they_are_said() -> None:
    said = OtherWords({"a": words("one one Two"), "b": words("never heard")})
    assert known_share(said, Vocabulary(("one", "two")), ["a", "b"]) == 3 / 5
    assert known_share(said, Vocabulary(("one",)), []) is None


def test_the_hash_tells_other_words_times_and_silence_apart() -> None:
    said = [{"a": words("one")}, {"a": words("two")}, {"a": (Word("one", 0, 2),)}, {"a": ()}, {"a": None}]
    assert len({OtherWords(one).sha256 for one in said}) == len(said)
