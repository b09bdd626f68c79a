from pathlib import Path

import pytest

from shards.record import Word
from shards.transcripts.kaldi_ctm import read
from triptych.config import UserError


def test_words_by_utterance_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(
        ";; made by hand\n"
        "a/b/1 1 0.79 0.24 white 0.5\n"
        "a/b/1 1 0.28 0.51 Lay\n"
        "\n"
        "a/b/1 1 1.10 0.20 <eps>\n"
        "a/b/2 A 0.00 0.50 [noise] 1.0\n"
    )

    transcript = read(path)

    assert {utterance: said.words for utterance, said in transcript.items()} == {
        "a/b/1": (Word("Lay", 0.28, 0.79, None), Word("white", 0.79, 1.03, 0.5)),
        "a/b/2": (),
    }
    assert [sum(said.counted.values()) for said in transcript.values()] == [1, 1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a 1 0.1 0.2", "4 fields"),
        ("a 1 zero 0.2 word", "no number"),
        ("a 1 -0.1 0.2 word", "0 or more"),
        ("a 1 0.1 nan word", "0 or more"),
        ("a 1 0.1 -0.2 word", "must be 0 or more and rise"),
        ("a 1 0.1 0.2 word inf", "confidence inf"),
        ("a 1 0.1 0.2 two words 0.5", "7 fields"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(f"a 1 0.0 0.1 fine\n{line}\n")

    with pytest.raises(UserError, match=rf"words\.ctm:2: .*{said}"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words\.ctm: the transcript cannot be read"):
        read(tmp_path / "words.ctm")
