"""AVEC 2017 and 2019: windows, labels, turns, words, and the look-alikes the whole way to a batch."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards import look_alike
from shards.corpora.avec import Avec2017Config, Avec2019Config
from shards.corpora.config import CorpusConfig
from shards.divisions.split import SplitConfig
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import Cut, Manifest, RawClip
from shards.write import WriteConfig, write
from triptych.batch import Batch
from triptych.config import UserError
from triptych.labels import Series

MakeCorpus = Callable[..., Path]
SERIES = {name: Series(rate_hz=10.0) for name in ("arousal", "valence", "liking", "speaking")}


@pytest.fixture(scope="session")
def avec2017(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look_alike") / "avec2017"
    look_alike.make("avec2017", folder)
    return folder


@pytest.fixture(scope="session")
def avec2019(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look_alike") / "avec2019"
    look_alike.make("avec2019", folder)
    return folder


def labels(times_s: list[float], name: str = "Train_01") -> str:
    return "".join(f"{name};{time_s:.6f};{time_s / 100:.6f};-0.500000;0.000001\n" for time_s in times_s)


@pytest.fixture
def make(tmp_path: Path) -> MakeCorpus:
    """`make(labels=..., turns=..., transcriptions=...)`: the files of recording Train_01."""

    def make(**contents: str) -> Path:
        for kind, content in contents.items():
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / "Train_01.csv").write_text(content, encoding="utf-8")
        return tmp_path

    return make


def clips(root: Path, **settings: Any) -> list[RawClip]:
    return list(Avec2017Config(root=str(root), **{"media": False, **settings}).clips())


def test_windows_hold_the_values_of_the_file(make: MakeCorpus) -> None:
    found = clips(make(labels=labels([step / 10 for step in range(236)])))

    assert [clip.key for clip in found] == ["Train_01/0000", "Train_01/0001", "Train_01/0002"]
    assert [clip.duration_s for clip in found] == [10.0, 10.0, 3.6]
    assert found[1].labels["arousal"]["rate_hz"] == 10.0
    assert found[1].labels["arousal"]["values"] == [float(f"{step / 1000:.6f}") for step in range(100, 200)]
    assert found[2].labels["liking"]["values"] == [0.000001] * 36
    assert found[0].source == {"split": "train", "video": "Train_01", "window": "0000", "language": "DE"}
    assert found[0].words is None
    assert "speaking" not in found[0].labels


def test_words_and_turns_come_with_their_window(make: MakeCorpus) -> None:
    root = make(
        labels=labels([step / 10 for step in range(120)]),
        turns="0.5;1.0\n9.9;10.15\n",
        transcriptions='0.5;1.0;ja genau\n9.9;10.15;schön; so\n10.2;10.3;"gut"\n30;31;danke\n',
    )

    first, second = clips(root)

    assert [word.text for word in first.words or ()] == ["ja", "genau", "schön;"]
    assert [word.text for word in second.words or ()] == ["so", '"gut"']
    assert [(word.start_s, word.end_s) for word in first.words or ()][-1] == (9.9, 10.0)
    assert (second.words or ())[1].start_s == 0.2
    assert [step for step, value in enumerate(first.labels["speaking"]["values"]) if value] == [5, 6, 7, 8, 9, 99]
    assert second.labels["speaking"]["values"] == [1.0, 1.0, *[0.0] * 18]


def test_no_window_reaches_over_a_gap(make: MakeCorpus, caplog: pytest.LogCaptureFixture) -> None:
    found = clips(make(labels=labels([0.0, 0.1, 0.2, 5.0, 5.1])), window_s=0.2)
    assert [len(clip.labels["arousal"]["values"]) for clip in found] == [2, 1, 2]
    assert found[2].labels["arousal"]["values"] == [0.05, 0.051]
    assert "1 recordings have gaps in the labels' times, and no window over them: Train_01" in caplog.text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"labels": labels([0.0, 0.1, 0.15])}, r"Train_01.csv, line 3: 0.15 s after 0.1 s; expected steps of 0.1 s"),
        ({"labels": labels([0.0, 0.1, 0.0])}, "line 3: 0 s after 0.1 s"),
        ({"labels": labels([0.0], name="Train_02")}, "line 1: 'Train_02.*expected Train_01;time;arousal"),
        ({"labels": "Train_01;0.0;x;0;0\n"}, "line 1: 'x' is not a number"),
        ({"labels": "Train_01;0.0;nan;0;0\n"}, "line 1: 'nan' is not a number"),
        ({"labels": labels([0.0]), "turns": "2.0;1.0\n"}, "line 1: ends at 1 s, before its start at 2 s"),
        ({"labels": labels([0.0]), "transcriptions": "2.0;3.0\n"}, "line 1: .*expected start;end;text"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused(make: MakeCorpus, contents: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clips(make(**contents))


def test_the_two_challenges_are_not_taken_for_each_other(avec2017: Path, avec2019: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recording of avec2017 is named so.*corpus\.avec2019\.root"):
        clips(avec2019)
    with pytest.raises(UserError, match=r"no recording of avec2019 is named so.*corpus\.avec2017\.root"):
        list(Avec2019Config(root=str(avec2017)).clips())
    with pytest.raises(UserError, match="no recording; looked for"):
        clips(tmp_path)


@pytest.mark.parametrize("window_s", [0.0, -1.0, 0.05, 1.25])
def test_a_window_is_whole_steps(window_s: float) -> None:
    with pytest.raises(ValueError, match="window_s"):
        Avec2017Config(root="", window_s=window_s)


def test_the_known_faults_are_told(avec2017: Path, avec2019: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = {clip.key: clip for clip in clips(avec2017, media=True)}
    for told in (
        "avec2017 DE Train: 2 recordings (published: 34)",
        "2 recordings have no labels: Test_01, Test_02",
        "1 recordings have no transcript: Devel_01",
        "1 recordings have no file of the picture: Train_02",
        "1 recordings have gaps in the labels' times, and no window over them: Train_02",
    ):
        assert told in caplog.text
    assert found["Train_02/0001"].cut == Cut(start_s=3.5, end_s=8.6)
    assert found["Test_01/0000"].labels.keys() == {"speaking"}

    unusable = [clip.key for clip in Avec2019Config(root=str(avec2019)).clips() if clip.unusable]
    assert unusable == ["Train_HU_01/0000", "Train_HU_01/0001"]


def test_a_recording_of_unknown_length_is_unusable_and_told(
    avec2017: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(avec2017, tmp_path / "corpus")
    (root / "audio" / "Test_01.wav").unlink()  # turns and transcript still tell
    for kind in ("audio/Test_02.wav", "turns/Test_02.csv", "transcriptions/Test_02.csv"):
        (root / kind).unlink()
    found = {clip.key: clip.unusable for clip in clips(root, media=True)}
    assert found["Test_01/0000"] is None
    assert [reason for key, reason in found.items() if key.startswith("Test_02")] == ["Test_02: its length is unknown"]
    assert "1 recordings have neither labels nor a known length: Test_02" in caplog.text


def written(corpus: CorpusConfig, out: Path, split: SplitConfig | None = None, **settings: Any) -> Manifest:
    """Every clip goes to train, unless a split is given."""
    split = split or SplitConfig(by="video", train=1, valid=0, test=0)
    return write(WriteConfig(corpus=corpus, out=str(out), split=split, workers=1, **settings))


def batch_of(folder: Path) -> Batch:
    shard_set = ShardSet(folder)
    settings: dict[str, Any] = {"batch_size": 50, "rank": 0, "world": 1, "labels": SERIES}
    return next(EvalLoader(shard_set, {}, vocabulary=shard_set.vocabulary(), split="train", **settings).batches())


def test_avec2017_goes_the_whole_way(avec2017: Path, tmp_path: Path) -> None:
    config = CorpusConfig(avec2017=Avec2017Config(root=str(avec2017)))

    manifest = written(config, tmp_path)

    assert (manifest.found, manifest.written, manifest.quarantined) == (9, 9, {})
    assert (manifest.counts["without_audio"], manifest.counts["without_video"]) == (0, 2)
    raw = {clip.key: clip for clip in clips(avec2017)}
    batch = batch_of(tmp_path)
    assert set(batch.keys) == raw.keys()
    durations = dict(zip(batch.keys, ShardSet(tmp_path).split("train").durations.tolist(), strict=True))
    assert durations == {key: pytest.approx(clip.duration_s, abs=0.05) for key, clip in raw.items()}
    for row, key in enumerate(batch.keys):
        for name in SERIES:
            values = torch.tensor(raw[key].labels[name]["values"] if name in raw[key].labels else [])
            assert torch.equal(batch.labels[name][row][: len(values)], values)
            assert batch.labels[name][row][len(values) :].isnan().all()


def test_avec2019_goes_the_whole_way(avec2019: Path, tmp_path: Path) -> None:
    config = CorpusConfig(avec2019=Avec2019Config(root=str(avec2019)))

    split = SplitConfig(by="source")
    manifest = written(config, tmp_path, split, max_quarantined_share=0.5, keep={"language": ["DE", "HU"]})

    assert (manifest.found, manifest.written, len(manifest.quarantined)) == (7, 3, 2)
    assert manifest.filtered == {"language=CN": 2}


@pytest.mark.real
def test_a_real_file_of_avec2019(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "raw" / "labels").mkdir(parents=True)
    shutil.copy(real_data / "avec" / "Devel_DE_01.csv", tmp_path / "raw" / "labels")
    config = CorpusConfig(avec2019=Avec2019Config(root=str(tmp_path / "raw"), media=False))

    written(config, tmp_path / "shards")

    batch = batch_of(tmp_path / "shards")
    assert sorted(batch.keys) == [f"Devel_DE_01/{window:04d}" for window in range(18)]
    arousal = {key: batch.labels["arousal"][row] for row, key in enumerate(batch.keys)}
    steps = {key: int((~values.isnan()).sum()) for key, values in arousal.items()}
    assert list(steps.values()).count(100) == 17
    assert steps["Devel_DE_01/0017"] == 68
    assert arousal["Devel_DE_01/0001"][:2].tolist() == pytest.approx([0.280036, 0.308213])
    assert arousal["Devel_DE_01/0008"][50].item() == pytest.approx(0.295266)
    assert arousal["Devel_DE_01/0017"][67].item() == pytest.approx(-0.022750)
