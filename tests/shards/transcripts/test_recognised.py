"""What the recogniser writes beside its words: whole, of one kind, and read back as it was."""

from pathlib import Path

import pytest

from shards.record import Word
from shards.transcripts import kaldi_ctm, recognised
from shards.transcripts.recognised import ClipFacts, write_chunk
from triptych.config import UserError

HEARD = ClipFacts(
    key="id1/v/1", seconds=3.0, words=2, confidence=0.9, log_likelihood=-0.2, language="en", language_probability=0.99
)
SILENT = ClipFacts(key="id1/v/2", seconds=1.5, language="de", language_probability=0.4)
FAILED = ClipFacts(key="id1/v/3", failed="truncated")
WORDS = {"id1/v/1": (Word("hello", 0.1234, 0.5, 0.8), Word("there", 0.5, 1.0, 1.0)), "id1/v/2": ()}


def write(folder: Path, number: int, clips: list[ClipFacts], **settings) -> None:
    write_chunk(folder, number, {"chunks": 2, **settings}, clips, WORDS)


def test_facts_come_back_and_the_words_are_a_ctm(tmp_path: Path) -> None:
    write(tmp_path, 0, [HEARD])
    write(tmp_path, 1, [SILENT, FAILED])
    found = recognised.read(tmp_path)
    assert found.clips == {clip.key: clip for clip in (HEARD, SILENT, FAILED)}
    said = [recognised.with_language(path, kaldi_ctm.read(path)) for path in found.ctm]
    assert said[0]["id1/v/1"].words == (Word("hello", 0.123, 0.5, 0.8), Word("there", 0.5, 1.0, 1.0))
    assert said[0]["id1/v/1"].language == "en"
    assert said[1].keys() == {"id1/v/2"}  # heard, and nothing was said; the third one is not known
    assert (said[1]["id1/v/2"].words, said[1]["id1/v/2"].language) == ((), "de")


def test_a_ctm_without_facts_tells_no_language(tmp_path: Path) -> None:
    (tmp_path / "words.ctm").write_text("a 1 0 1 hi\n")
    said = recognised.with_language(tmp_path / "words.ctm", kaldi_ctm.read(tmp_path / "words.ctm"))
    assert said["a"].language is None
    assert recognised.check_complete(tmp_path) == []
    with pytest.raises(UserError, match="nothing that python -m shards transcribe has written"):
        recognised.read(tmp_path)


@pytest.mark.parametrize("lost", ["000001.ctm", "000001.clips.jsonl"])
def test_a_chunk_that_lacks_a_file_is_missing(tmp_path: Path, lost: str) -> None:
    write(tmp_path, 0, [HEARD])
    write(tmp_path, 1, [SILENT])
    (tmp_path / lost).unlink()
    with pytest.raises(UserError, match="1 of 2 chunks are not transcribed yet, first: 000001"):
        recognised.check_complete(tmp_path)


def test_the_same_model_may_have_moved(tmp_path: Path) -> None:
    write(tmp_path, 0, [HEARD], weights="a", made_by={"model": "here"})
    write(tmp_path, 1, [SILENT], weights="a", made_by={"model": "there"})
    assert recognised.check_complete(tmp_path) == [0, 1]


def test_chunks_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, 0, [HEARD], weights="a")
    write(tmp_path, 1, [SILENT], weights="b")
    with pytest.raises(UserError, match=r"000001.clips.jsonl: made with another weights \(b, not a\)"):
        recognised.check_complete(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]\n", '{"chunks": 1}\n{"key": "a", "wo', '{"chunks": 1}\n{"colour": 1}\n'])
def test_damaged_facts_are_told_with_their_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "000000.ctm").touch()
    (tmp_path / "000000.clips.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"000000.clips.jsonl:\d: "):
        recognised.read(tmp_path)
