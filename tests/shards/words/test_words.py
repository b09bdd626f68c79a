import hashlib
import pickle
from pathlib import Path

import pytest

from shards.words.words import Vocabulary
from triptych.config import UserError


def test_ids_start_at_one_and_zero_is_any_other_word() -> None:
    vocabulary = Vocabulary(("the", "cat"))
    assert [vocabulary.id(word) for word in ("the", "cat", "dog", "")] == [1, 2, 0, 0]
    assert vocabulary.id("CAT") == 2


def test_punctuation_at_the_ends_makes_no_word_unknown() -> None:
    """Unless the word is there with it."""
    vocabulary = Vocabulary(("well", "well,", "don't", "3.5"))
    written = ("Well", "Well,", "“Well!”", "...don't?!", "(3.5)", "...", "we-ll")
    assert [vocabulary.id(word) for word in written] == [1, 2, 1, 3, 4, 0, 0]


def test_most_frequent_first_and_ties_in_alphabetical_order() -> None:
    assert Vocabulary.from_counts({"b": 1, "a": 1, "z": 9}).words == ("z", "a", "b")


def listed(path: Path, content: bytes) -> str:
    """Write a vocabulary.txt; its hash."""
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_written_vocabulary_comes_back_equal(tmp_path: Path) -> None:
    counts = {"naïve": 3, "don't": 2, "a": 7}
    vocabulary = Vocabulary.from_counts(counts)
    content = vocabulary.to_bytes(counts)
    assert content.decode().splitlines()[0] == "a 7"
    assert Vocabulary.load(tmp_path / "words", listed(tmp_path / "words", content)) == vocabulary


def test_the_vocabulary_of_other_shards_is_refused(tmp_path: Path) -> None:
    """Its ids mean other words: a run would train, and be wrong."""
    sha256 = listed(tmp_path / "words", b"the 3\ncat 2\n")
    (tmp_path / "words").write_bytes(b"cat 3\nthe 2\n")
    with pytest.raises(UserError, match="not the vocabulary of these shards"):
        Vocabulary.load(tmp_path / "words", sha256)


def test_it_travels_to_a_loader_worker() -> None:
    vocabulary = Vocabulary(("the", "cat"))
    vocabulary.id("the")
    assert pickle.loads(pickle.dumps(vocabulary)).id("cat") == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 3\ncat\n", "line 2: expected 'word count'"),
        ("The 3\n", "line 1: expected 'word count' in lowercase"),
        ("a 3\nb 2\na 1\n", "line 3: the word 'a' comes twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    sha256 = listed(tmp_path / "words", content.encode())
    with pytest.raises(UserError, match=message):
        Vocabulary.load(tmp_path / "words", sha256)


def test_a_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="written with the shards"):
        Vocabulary.load(tmp_path / "vocabulary.txt", "")
