from collections.abc import Callable
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.reading.index import ShardSet
from shards.vocabulary import VocabularyConfig, build
from shards.words.words import Vocabulary
from triptych.config import UserError


def lines(path: Path, **counts: int) -> str:
    path.write_text("".join(f"{word} {count}\n" for word, count in counts.items()))
    return str(path)


def test_the_words_of_several_sets_are_counted_together(
    tiny_shards: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, more = tiny_shards(), lines(tmp_path / "more.txt", zebra=1000, red=1)

    assert main(["vocabulary", str(folder), more, f"out={tmp_path / 'out' / 'words.txt'}"]) == 0

    own = ShardSet(folder).word_counts()
    wanted = own | {"zebra": 1000, "red": own["red"] + 1}
    content = (tmp_path / "out" / "words.txt").read_text().splitlines()
    assert content[0] == "zebra 1000"
    assert dict(line.split() for line in content) == {word: str(count) for word, count in wanted.items()}
    assert "stream.vocabulary=" in capsys.readouterr().out
    assert Vocabulary.load(tmp_path / "out" / "words.txt").words[0] == "zebra"


def test_rare_words_and_those_beyond_the_size_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = lines(tmp_path / "words.txt", the=50, cat=30, sat=15, on=3, mat=2)

    vocabulary = build(VocabularyConfig(shards=[name], size=2, min_count=3))

    assert vocabulary.words == ("the", "cat")
    told = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    figures = [[field.strip() for field in row[1:]] for row in told]
    assert figures == [["5", "100", "80.00 %"], ["1", "2", ""], ["2", "18", ""]]


def test_it_tells_which_words_have_a_vector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = lines(tmp_path / "words.txt", the=3, cat=1)
    (tmp_path / "vectors.txt").write_text("the 0.5 1\n")
    build(VocabularyConfig(shards=[name], glove=str(tmp_path / "vectors.txt")))
    assert "1 of 2 words have no vector (50.00 %), and 1 of 4 running words" in capsys.readouterr().out


def test_it_writes_over_nothing(tmp_path: Path) -> None:
    name = lines(tmp_path / "words.txt", the=3)
    with pytest.raises(UserError, match=r"words\.txt: is there already"):
        build(VocabularyConfig(shards=[name], out=name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["words.txt", "./words.txt"], r"words\.txt is given twice"),
        (["words.txt", "sise=3"], "sise"),
        (["words.txt", "size=0"], "size: 0; expected 1 or more"),
        (["words.txt", "min_count=9"], "leaves no word; the most frequent one comes 3x"),
        (["none"], "none: is not there"),
        (["empty.txt"], "no word; were these shards written with transcripts"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "words.txt", the=3)
    lines(tmp_path / "empty.txt")
    with pytest.raises(UserError, match=message):
        main(["vocabulary", *arguments])
