"""The command: a corpus gets its words, once, whatever stops it and however it is shared out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shards import transcribe as command
from shards.corpora.config import CorpusConfig
from shards.corpora.ravdess import RavdessConfig
from shards.divisions.split import SplitConfig
from shards.features.config import FeaturesConfig
from shards.reading.index import ShardSet
from shards.transcribe import TranscribeConfig, transcribe
from shards.transcripts import kaldi_ctm, recognised
from shards.write import WriteConfig, write
from triptych.config import UserError

SAID = {
    "03-01-01-01-01-01-01": ([("AB", 0.3), ("CDA", 0.9)], 1.5),
    "03-01-01-01-01-01-02": ([("D", 0.2)], 0.6),
    "03-01-01-01-01-01-03": ([], 0.8),
    "03-01-01-01-01-01-04": ([("BCD", 0.25), ("A", 0.9), ("DB", 1.4)], 2.0),
    "03-01-01-01-01-01-05": ([("CA", 0.3), ("BD", 1.0), ("AC", 1.9), ("DA", 2.6)], 3.2),
}
"""Key -> words with their start, and the clip's length. The third one is silent."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, spoken, write_wav) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for number, (key, (words, seconds)) in enumerate(SAID.items()):
        sound = spoken(words, seconds, 70 + number) if words else np.zeros(round(seconds * 16000), dtype=np.float32)
        write_wav(root / f"{key}.wav", sound)
    return root


def config(corpus: Path, model: Path, out: Path, **others) -> TranscribeConfig:
    return TranscribeConfig(
        corpus=CorpusConfig(ravdess=RavdessConfig(root=str(corpus), modality="all")),
        model=str(model),
        out=str(out),
        workers=1,
        **{"clips_per_chunk": 2, "device": "cpu", **others},
    )


@pytest.fixture(scope="module")
def done(corpus: Path, tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "words"
    transcribe(config(corpus, tone_model, out))
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_clip_gets_its_words_and_their_times(done: Path) -> None:
    found = recognised.read(done)
    words = {key: said for path in found.ctm for key, said in kaldi_ctm.read(path).items()}
    assert list(words) == list(SAID)
    for key, (spoken_words, seconds) in SAID.items():
        assert [word.text for word in words[key].words] == [text.lower() for text, _ in spoken_words]
        for word, (text, start_s) in zip(words[key].words, spoken_words):
            assert (word.start_s, word.end_s) == (
                pytest.approx(start_s, abs=0.03),
                pytest.approx(start_s + 0.12 * len(text), abs=0.03),
            )
        assert found.clips[key].seconds == seconds
        assert found.clips[key].words == len(spoken_words)
        assert (found.clips[key].confidence is None) == (not spoken_words)
        assert found.clips[key].language is None


def test_the_writer_takes_them_as_the_words_of_the_corpus(done: Path, corpus: Path, tmp_path: Path) -> None:
    raw = CorpusConfig(ravdess=RavdessConfig(root=str(corpus), transcripts=[str(done)]))
    split = SplitConfig(train=1.0, valid=0.0, test=0.0)
    write(WriteConfig(corpus=raw, out=str(tmp_path / "shards"), split=split, features=FeaturesConfig(), workers=1))
    vocabulary = (tmp_path / "shards" / "vocabulary.txt").read_text().split()[::2]
    assert sorted(vocabulary) == sorted({text.lower() for words, _ in SAID.values() for text, _ in words})
    assert ShardSet(tmp_path / "shards").manifest.counts["words"] == sum(len(words) for words, _ in SAID.values())


def test_batches_parts_and_chunk_borders_do_not_change_a_byte(
    done: Path, corpus: Path, tone_model: Path, tmp_path: Path
) -> None:
    for part in ("2/2", "1/2"):
        transcribe(config(corpus, tone_model, tmp_path, part=part, batch_seconds=0.1))
    assert files(tmp_path) == files(done)


def test_after_a_kill_only_what_is_missing_is_done(
    done: Path, corpus: Path, tone_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = command.write_chunk

    def dies(folder: Path, number: int, *others) -> None:
        if number == 1:
            (folder / "000001.ctm").write_text("half a")
            raise KeyboardInterrupt
        save(folder, number, *others)

    with monkeypatch.context() as patched:
        patched.setattr(command, "write_chunk", dies)
        with pytest.raises(KeyboardInterrupt):
            transcribe(config(corpus, tone_model, tmp_path))
    with pytest.raises(UserError, match="2 of 3 chunks are not transcribed yet, first: 000001"):
        list(RavdessConfig(root=str(corpus), transcripts=[str(tmp_path)]).clips())
    counts = transcribe(config(corpus, tone_model, tmp_path))
    assert (counts.chunks_before, counts.clips) == (1, 3)
    assert files(tmp_path) == files(done)


def test_a_finished_folder_is_left_as_it_is(done: Path, corpus: Path, tone_model: Path) -> None:
    before = files(done)
    assert transcribe(config(corpus, tone_model, done)).clips == 0
    assert files(done) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [({"window_s": 1.5}, "another window_s \\(30.0, not 1.5\\)"), ({"clips_per_chunk": 3}, "chunks \\(3, not 2\\)")],
)
def test_other_settings_do_not_go_into_the_same_folder(
    done: Path, corpus: Path, tone_model: Path, change: dict, told: str
) -> None:
    before = files(done)
    with pytest.raises(UserError, match=told):
        transcribe(config(corpus, tone_model, done, **change))
    assert files(done) == before


def test_nor_do_those_of_another_model(done: Path, corpus: Path, group_model: Path) -> None:
    with pytest.raises(UserError, match="made with another weights"):
        transcribe(config(corpus, group_model, done))


def test_a_group_norm_model_gives_the_same_in_any_batch(corpus: Path, group_model: Path, tmp_path: Path) -> None:
    for name, batch_seconds in (("large", 100.0), ("small", 0.1)):
        transcribe(config(corpus, group_model, tmp_path / name, batch_seconds=batch_seconds))
    assert files(tmp_path / "large") == files(tmp_path / "small")


def test_a_long_clip_is_cut_in_its_pauses(done: Path, corpus: Path, tone_model: Path, tmp_path: Path) -> None:
    transcribe(config(corpus, tone_model, tmp_path, window_s=1.8))
    whole, pieces = (
        kaldi_ctm.read(recognised.read(folder).ctm[2])["03-01-01-01-01-01-05"].words for folder in (done, tmp_path)
    )
    assert [word.text for word in pieces] == [word.text for word in whole]
    for piece, word in zip(pieces, whole):
        assert piece.start_s == pytest.approx(word.start_s, abs=0.03)


def test_a_clip_that_cannot_be_heard_is_named_with_its_reason(
    corpus: Path, tone_model: Path, tmp_path: Path, make_clip, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    for path in corpus.iterdir():
        (root / path.name).symlink_to(path)
    (root / "03-01-02-01-01-01-01.wav").write_bytes(b"no wav at all")
    make_clip(root / "02-01-02-01-01-01-01.mp4", audio=False)
    with pytest.raises(UserError, match=r"1 clips cannot be decoded so far.*raise max_failed_share"):
        transcribe(config(root, tone_model, tmp_path / "out"))
    assert recognised.settings_of_chunks(tmp_path / "out").keys() == {0, 1, 2}  # what was done before stays
    counts = transcribe(config(root, tone_model, tmp_path / "again", max_failed_share=0.2))
    assert (counts.clips, counts.silent, counts.failed.total(), counts.undecodable) == (7, 1, 2, 1)
    found = recognised.read(tmp_path / "again")
    assert {key for key, clip in found.clips.items() if clip.failed is None} == set(SAID)
    assert found.clips["02-01-02-01-01-01-01"].failed == "no sound"
    assert "cannot be decoded" in str(found.clips["03-01-02-01-01-01-01"].failed)
    words = {key for path in found.ctm for key in kaldi_ctm.read(path)}
    assert words == set(SAID)  # for a reader of the CTM the others have no transcript
    said = capsys.readouterr().out
    assert "7 clips" in said
    assert "no sound" in said


def test_whisper_tells_the_language_of_each_clip(
    whisper_model: Path, lessons, tmp_path: Path, write_wav, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"03-01-01-01-01-01-{number:02d}" for number in range(1, 5)]
    for key, (*_, sound) in zip(keys, lessons, strict=True):
        write_wav(tmp_path / "corpus" / f"{key}.wav", sound)
    transcribe(config(tmp_path / "corpus", whisper_model, tmp_path / "out"))
    clips = recognised.read(tmp_path / "out").clips
    assert [clips[key].language for key in keys[:3]] == ["en", "de", "zh"]
    assert [clips[key].words for key in keys] == [2, 2, 2, 0]
    assert all((clips[key].language_probability or 0) > 0.9 for key in keys[:3])
    assert all((clips[key].log_likelihood or -9) > -0.5 for key in keys[:3])
    assert "languages:" in capsys.readouterr().out
    raw = RavdessConfig(root=str(tmp_path / "corpus"), transcripts=[str(tmp_path / "out")])
    assert [clip.source.get("language") for clip in raw.clips()][:3] == ["en", "de", "zh"]


def test_two_processes_do_not_do_the_same_part(corpus: Path, tone_model: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("out").mkdir()
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    lock = [sys.executable, "-c", code, str(tmp_path / "out" / ".part-1-of-1.lock")]
    with subprocess.Popen(lock, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process does this part"):
            transcribe(config(corpus, tone_model, tmp_path / "out"))
        other.communicate("")


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/2", "-1/2", "1/0"])
def test_a_part_that_is_none(part: str) -> None:
    with pytest.raises(ValueError, match="expected i/n with i from 1 to n"):
        config(Path(), Path(), Path(), part=part)


def test_help_does_not_load_torch() -> None:
    code = "import sys, shards.transcribe; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
