"""A shard set with the words of other transcripts in place of the clips' own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards import add_features, check, merge
from shards.add_features import AddFeaturesConfig
from shards.reading.index import ShardSet
from shards.reading.npy import from_bytes
from shards.reading.other_words import OtherWords
from shards.record import ClipRecord, Word
from shards.words.words import Vocabulary
from shards.writing.rewrite import with_words
from shards.writing.write_planned import Sample
from triptych.config import UserError, load

LFBE = ["features.audio.lfbe.bands=4", "drop=[lfbe.npy]"]


def config(shards: Path, out: Path, asr: Path, *overrides: str) -> AddFeaturesConfig:
    given = {"shards": str(shards), "out": str(out), "transcripts": str(asr), "workers": 1}
    return load(AddFeaturesConfig, given, overrides)


def clips(folder: Path) -> Iterator[tuple[ClipRecord, dict[str, bytes]]]:
    shard_set = ShardSet(folder)
    for split in map(shard_set.split, shard_set.splits):
        for number in range(len(split)):
            yield split.record(number), split.read(number)


def heard(folder: Path, asr: Path) -> Path:
    """What a recogniser makes of the set: the words backwards, oh where there are none, and nothing of every fifth."""
    lines = []
    for place, (record, _) in enumerate(clips(folder)):
        texts = [word.text[::-1] for word in record.words or ()] or ["oh"]
        for number, text in enumerate(["<silence>"] if place % 5 == 0 else texts):
            lines.append(f"{record.key} 1 {0.5 * number:.2f} 0.25 {text}")
    asr.write_text("\n".join(lines))
    return asr


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_words_are_those_of_the_transcripts_and_all_else_is_as_it_was(
    tiny_shards: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_shards()
    asr, before = heard(folder, tmp_path / "asr.ctm"), files(folder)
    manifest = add_features.add_features(config(folder, tmp_path / "out", asr))

    assert files(folder) == before
    assert check.inspect(tmp_path / "out", manifest, quiet=True).problems == []
    train: list[str] = []
    for place, ((own, had), (record, has)) in enumerate(zip(clips(folder), clips(tmp_path / "out"), strict=True)):
        texts = [word.text[::-1] for word in own.words or ()] or ["oh"]
        expected = [] if place % 5 == 0 else [Word(text, 0.5 * n, 0.5 * n + 0.25) for n, text in enumerate(texts)]
        assert list(record.words or ()) == expected
        assert vars_without_words(record) == vars_without_words(own)
        assert {name: data for name, data in has.items() if name != "json"} == {
            name: data for name, data in had.items() if name != "json"
        }
        train += [word.text for word in expected] if record.split == "train" else []
    assert manifest.counts["without_words"] == -(-place // 5)
    counts = {word: train.count(word) for word in train}
    assert ShardSet(tmp_path / "out").vocabulary() == Vocabulary.from_counts(counts)


def vars_without_words(record: ClipRecord) -> dict:
    return {name: value for name, value in record.to_json().items() if name != "words"}


def test_beside_features_in_parts_and_after_a_stop_the_bytes_are_the_same(
    tiny_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_shards()
    asr = heard(folder, tmp_path / "asr.ctm")
    add_features.add_features(config(folder, tmp_path / "whole", asr, *LFBE))
    given = [f"out={tmp_path / 'out'}", "transcripts=asr.ctm", "workers=1", *LFBE]
    monkeypatch.chdir(tmp_path)
    assert add_features.run(str(folder), [*given, "part=2/2"]) == 0
    monkeypatch.chdir("/")
    assert add_features.run(str(tmp_path / "out" / "work" / "config.yaml"), ["part=1/2"]) == 0
    merge.run(str(tmp_path / "out"))

    assert files(tmp_path / "out") == files(tmp_path / "whole")
    sounds = [members["lfbe.npy"] for record, members in clips(tmp_path / "out") if record.has_audio]
    assert {from_bytes(sound).shape[1] for sound in sounds} == {4 * 5}  # five frames a step


def test_other_transcripts_are_another_plan(tiny_shards: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_shards()
    asr = heard(folder, tmp_path / "asr.ctm")
    add_features.add_part(config(folder, tmp_path / "out", asr, "part=1/2"))
    asr.write_text(asr.read_text().replace(" oh", " ah"))
    with pytest.raises(UserError, match=r"out: half written with words '\w{64}' \(now"):
        add_features.add_part(config(folder, tmp_path / "out", asr, "part=2/2"))


def test_transcripts_that_lack_clips_or_come_too_late_are_refused(
    tiny_shards: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_shards()
    asr = heard(folder, tmp_path / "asr.ctm")
    lost = next(record.key for record, _ in clips(folder))
    (tmp_path / "part.ctm").write_text("\n".join(line for line in asr.read_text().splitlines() if lost not in line))
    with pytest.raises(UserError, match=rf"^transcripts: .*part.ctm: lacks 1 of 30 clips, first '{lost}'"):
        add_features.add_features(config(folder, tmp_path / "out", tmp_path / "part.ctm"))
    with pytest.raises(UserError, match=r"^transcripts: .*nowhere"):
        add_features.add_features(config(folder, tmp_path / "out", tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


def test_a_remark_on_the_times_of_the_clips_own_words_does_not_stay(tiny_shards: Callable[..., Path]) -> None:
    record, members = next(clips(tiny_shards()))
    sample = Sample(replace(record, source={"word_times": "spread", "video": "v"}), members)
    assert with_words(sample, None) is sample
    heard = with_words(sample, OtherWords({record.key: None}))
    assert heard.record == replace(record, words=None, source={"video": "v"})
    assert heard.members == {**members, "json": heard.record.to_bytes()}
