import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.words.glove import load
from triptych.config import UserError

LINES = "the 0.5 -1 2e-1\n. . . 7 7 7\nat name@domain.com 8 8 8\nat 1 2 3\ncafé 4 5 6\n"


def written(folder: Path, content: str | bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def packed(folder: Path, kind: str, content: str) -> Path:
    """The path to give for the content, packed in one of the ways."""
    plain = written(folder, content)
    if kind == "gz":
        return written(folder, gzip.compress(plain.read_bytes()), "vectors.txt.gz")
    if kind == "plain":
        return plain
    archive = folder / "vectors.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(plain, "glove/vectors.3d.txt")
        if kind == "zip of several":
            file.writestr("glove/vectors.1d.txt", "the 1\n")
    return archive / "glove" / "vectors.3d.txt" if kind == "zip of several" else archive


@pytest.mark.parametrize("kind", ["plain", "gz", "zip", "zip of several"])
def test_rows_follow_the_words_and_unknown_ones_are_zeros(tmp_path: Path, kind: str) -> None:
    glove = load(packed(tmp_path, kind, LINES), ("café", "zebra", "at", "the"))

    wanted = [[0, 0, 0], [4, 5, 6], [0, 0, 0], [1, 2, 3], [0.5, -1, 0.2]]
    np.testing.assert_array_equal(glove.matrix, np.array(wanted, dtype=np.float32))
    assert glove.matrix.dtype == np.float32
    assert glove.found.tolist() == [False, True, False, True, True]


def test_a_word_that_is_not_there_as_it_is_written_has_the_vector_of_its_spoken_form(tmp_path: Path) -> None:
    glove = load(written(tmp_path, LINES + "the! 9 9 9\n"), ("the", "the!", "“café...", "at?!", "...", "zebra!"))
    assert glove.matrix[1:].tolist() == [[0.5, -1, np.float32(0.2)], [9, 9, 9], [4, 5, 6], [1, 2, 3], *2 * [[0, 0, 0]]]
    assert glove.found.tolist() == [False, True, True, True, True, False, False]


def test_the_header_and_the_blanks_of_fasttext(tmp_path: Path) -> None:
    glove = load(written(tmp_path, "2 3 \nthe 1 2 3 \nat 4 5 6 \n"), ("at", "2"))
    assert glove.matrix.tolist() == [[0, 0, 0], [4, 5, 6], [0, 0, 0]]


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    """Some words of 840B hold one; str.split would take it for a border."""
    glove = load(written(tmp_path, "the 1 2\nthe\xa0cat 3 4\n"), ("the", "cat"))
    assert glove.matrix.tolist() == [[0, 0], [1, 2], [0, 0]]


def test_words_without_a_vector_are_counted_as_types_and_as_running_words(tmp_path: Path) -> None:
    glove = load(written(tmp_path, LINES), ("the", "zebra"))
    said = glove.told({"the": 6, "zebra": 3, "outside": 1})
    assert "3 dimensions; 1 of 2 words have no vector (50.00 %)" in said
    assert "4 of 10 running words (40.00 %)" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2 3\ncat 1 2\n", "line 2: 2 numbers where the first line has 3"),
        ("the 1 2 3\n\ncat 1 2 3\n", "line 2: 0 numbers"),
        ("cat 1 2 3\nthe 1 2 3 4\n", "line 2: 4 numbers where the first line has 3"),
        ("the 1 2 3\ncat 1 2 3\nthe 1 2 3\n", "line 3: 'the' is on line 1 too"),
        ("the 1 nan 3\n", "line 1: the vector of 'the' has numbers that are not finite"),
        ("the 1 1e99 3\n", "line 1: the vector of 'the' has numbers that are not finite"),
        ("the 1 two 3\n", "line 1: could not convert.*two"),
        ("<html>\n", "line 1: .*expected a word and its numbers"),
        ("3 2\nthe 1 2\ncat 1 2\n", "2 words where its first line says 3; it is cut short"),
        ("3 999999999\nthe 1 2\n", "line 1: .*at most 10000"),
        (b"\0" * (1 << 21), "line 1: longer than"),
        ("", "the file is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"vectors\.txt.*{message}"):
        load(written(tmp_path, content), ("the",))


def test_a_cut_or_false_archive_is_refused(tmp_path: Path) -> None:
    noise = "".join(f"word{number} {hash(str(number))} 1\n" for number in range(5000))
    cut = written(tmp_path, gzip.compress(noise.encode())[:-2000], "cut.gz")
    with pytest.raises(UserError, match=r"cut\.gz: cannot be read after line \d+.*copy it again"):
        load(cut, ("word1",))
    with pytest.raises(UserError, match=r"false\.gz: cannot be read"):
        load(written(tmp_path, "the 1\n", "false.gz"), ("the",))
    with pytest.raises(UserError, match=r"false\.zip: cannot be read"):
        load(written(tmp_path, "the 1\n", "false.zip"), ("the",))
    with pytest.raises(UserError, match=r"none\.txt: cannot be read: No such file"):
        load(tmp_path / "none.txt", ("the",))


@pytest.mark.parametrize("name", ["", "glove/vectors.2d.txt"])
def test_the_file_in_an_archive_of_several_must_be_named(tmp_path: Path, name: str) -> None:
    packed(tmp_path, "zip of several", LINES)
    with pytest.raises(
        UserError, match=r"vectors\.zip: name the file inside.*glove/vectors\.3d\.txt, glove/vectors\.1d"
    ):
        load(tmp_path / "vectors.zip" / name, ("the",))


@pytest.mark.real
def test_glove_itself(real_data: Path) -> None:
    glove = load(real_data / "glove" / "glove.6B.300d.sample.txt.gz", ("the", "zyzzyva", ",", "of"))
    assert glove.matrix.shape == (5, 300)
    assert glove.found.tolist() == [False, True, False, True, True]
    assert glove.matrix[1, :2] == pytest.approx([0.04656, 0.21318])
