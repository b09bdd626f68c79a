import re
from pathlib import Path

import pytest

from shards.record import Word
from shards.transcripts.kaldi_ctm import OTHERS, read
from shards.transcripts.transcript import EARLY, IMPOSSIBLE, MARKS, UNSURE, Said
from triptych.config import UserError


def said_of(path: Path) -> dict[str, Said]:
    return {name: said for name, said in read(path).items() if isinstance(said, Said)}


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

    transcript = said_of(path)

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
        ("a 1 0.1 0.2 word sure", "no number"),
        ("a 1 0.1 0.2 two words 0.5", "7 fields of type '0.5'"),
        ("a 1 0.1 0.2 word 0.5 verb", "7 fields of type 'verb'"),
        ("a 1 * * word", "no number"),
        ("a 1 0.1 0.2 word 0.5 lex x y", "9 fields"),
    ],
)
def test_a_bad_line_is_named_and_spoils_its_utterance_alone(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(f"a 1 0.0 0.1 fine\n{line}\nb 1 0.0 0.1 fine\nc 1 0.0 0.1 fine\n")

    transcript = read(path)

    assert re.search(rf"words\.ctm:2: .*{said}", str(transcript["a"]))
    assert all(isinstance(transcript[other], Said) for other in "bc")
    path.write_text(f"a 1 0.0 0.1 fine\n{line}\nb 1 0.0 0.1 fine\n")
    with pytest.raises(UserError, match=rf"words\.ctm:2: .*{said}"):  # half of the file
        read(path)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("a 1 -0.1 0.2 word", IMPOSSIBLE),
        ("a 1 0.1 nan word", IMPOSSIBLE),
        ("a 1 0.1 inf word", IMPOSSIBLE),
        ("a 1 0.1 -0.2 word", IMPOSSIBLE),
    ],
)
def test_an_odd_word_is_left_out_and_counted_and_mostly_odd_ones_are_not_believed(
    tmp_path: Path, line: str, kind: str
) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(f"a 1 0.0 0.1 fine\n{line}\n")
    assert said_of(path) == {"a": Said((Word("fine", 0.0, 0.1),), counted={kind: 1})}

    path.write_text(f"a 1 0.0 0.1 fine\n{line}\n{line}\n")
    with pytest.raises(UserError, match=r"words\.ctm:2: .*times must be 0 or more and rise \(2 such words of 3\)"):
        read(path)


def test_what_has_one_meaning_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "words.ctm"
    path.write_text("a 1 -0.02 0.12 oh inf\na 1 0.2 0.1 20\u202f000 nan\na 1 0.3 0.1 10\u00a0km\n", encoding="utf-8")

    (said,) = said_of(path).values()

    assert said.words == (Word("oh", 0.0, 0.1), Word("20\u202f000", 0.2, 0.3), Word("10\u00a0km", 0.3, 0.4))
    assert said.counted == {UNSURE: 2, EARLY: 1}


def test_eight_columns_of_nemo_and_nist(tmp_path: Path) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(
        "u 1 0.1 0.3 hello NA lex NA\nu 1 0.5 0.3 there 0.9 lex bob\nu 1 0.9 0.1 uh 0.5 fp bob\n"
        "u 1 1.0 0.1 laugh 0.5 NON-LEX\nu 1 1.2 0.1 now NA\nu 1 1.4 0.1 then na NA\n"
    )

    (said,) = said_of(path).values()

    assert [(word.text, word.confidence) for word in said.words] == [
        ("hello", None), ("there", 0.9), ("now", None), ("then", None),
    ]  # fmt: skip
    assert said.counted == {MARKS: 2}


def test_of_alternatives_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(
        "u 1 0.1 0.3 hello 0.9\nu 1 * * <ALT_BEGIN>\nu 1 0.5 0.3 their\nu 1 * * <ALT>\nu 1 0.5 0.1 they\n"
        "u 1 0.6 0.2 are\nu 1 * * <ALT_END>\nu 1 * * <ALT_BEGIN>\nu 1 0.8 0.1 @\nu 1 * * <ALT>\n"
        "u 1 0.8 0.1 so\nu 1 * * <ALT_END>\nu 1 0.9 0.3 now\n"
    )

    (said,) = said_of(path).values()

    assert [word.text for word in said.words] == ["hello", "their", "now"]
    assert said.counted == {OTHERS: 3, MARKS: 1}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"words\.ctm: the transcript cannot be read"):
        read(tmp_path / "words.ctm")


@pytest.mark.parametrize("sign", ["<ALT_BEGIN>", "<ALT>", "<ALT_END>"])
def test_alternatives_without_a_begin_or_an_end_are_refused_by_name(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "words.ctm"
    path.write_text(f"u 1 0.1 0.3 hello\nu 1 * * {sign}\nu 1 0.5 0.3 there\n")
    with pytest.raises(UserError, match="<ALT_BEGIN>"):
        read(path)
