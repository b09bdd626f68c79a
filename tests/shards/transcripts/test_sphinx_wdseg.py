"""Word times of Sphinx's aligner: frames to seconds, and what is no word."""

from pathlib import Path

import pytest

from shards.record import Word
from shards.transcripts.sphinx_wdseg import read
from triptych.config import UserError

HEADER = "\t SFrm  EFrm    SegAScr Word\n"


def test_the_last_frame_of_a_word_belongs_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.wdseg"
    path.write_text(
        f"{HEADER}\t   41    72     -17530 WHAT(2)\n\t  133   146    -258661 I'LL\n Total score:  -276191\n"
    )

    assert read(path) == (Word("what", 0.41, 0.73), Word("i'll", 1.33, 1.47))


def test_pauses_and_noises_are_no_words(tmp_path: Path) -> None:
    path = tmp_path / "a.wdseg"
    marks = ("<s>", "<sil>", "++LAUGHTER++", "++BREATHING++", "</s>")
    path.write_text(HEADER + "".join(f"\t{place} {place} -1 {mark}\n" for place, mark in enumerate(marks)))

    assert read(path) == ()


@pytest.mark.parametrize("line", ["10 20 WORD", "20 10 -5 WORD", "ten 20 -5 WORD", "10 20 -5"])
def test_other_lines_are_refused_with_their_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.wdseg"
    path.write_text(f"{HEADER}0 9 -1 <s>\n{line}\n")

    with pytest.raises(UserError, match=r"a\.wdseg, line 3"):
        read(path)
