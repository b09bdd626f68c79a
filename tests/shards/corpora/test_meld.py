"""MELD: the rows, what is wrong with them and the clips, and the look-alike the whole way to a batch."""

import csv
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards import look_alike
from shards.corpora.config import CorpusConfig
from shards.corpora.look_alikes.meld import HEADER
from shards.corpora.meld import EMOTIONS, SENTIMENTS, MeldConfig
from shards.divisions.split import SplitConfig
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import Manifest, RawClip
from shards.write import WriteConfig, write
from triptych.config import UserError

Write = Callable[..., Path]
ROW = {
    **dict(zip(HEADER, ("1", "What?", "Ann", "surprise", "negative", "0", "0", "8", "21"), strict=False)),
    "StartTime": "00:00:01,000",
    "EndTime": "00:00:02,500",
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look_alike") / "meld"
    look_alike.make("meld", folder)
    return folder


@pytest.fixture
def csvs(tmp_path: Path) -> Write:
    """`csvs(field=value)`: three csv files of one row; the train row has these fields."""

    def make(**changes: str | None) -> Path:
        for split in ("train", "dev", "test"):
            row = {**ROW, **(changes if split == "train" else {})}
            columns = [name for name in HEADER if row[name] is not None]
            with (tmp_path / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
                lines = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\r\n")
                lines.writeheader()
                lines.writerow(row)
        return tmp_path

    return make


def first(folder: Path) -> RawClip:
    return next(MeldConfig(root=str(folder), media=False).clips())


def test_a_row(csvs: Write) -> None:
    clip = first(csvs(Utterance="You’re “here”.", Speaker=" Guest  #1 "))

    assert (clip.key, clip.speaker, clip.duration_s, clip.video) == ("train/dia0_utt0", "Guest #1", 1.5, None)
    assert clip.labels == {"emotion": "surprise", "sentiment": "negative"}
    assert [word.text for word in clip.words or ()] == ["You’re", "“here”."]
    assert [(word.start_s, word.end_s) for word in clip.words or ()] == [(0.0, 0.692308), (0.692308, 1.5)]
    assert clip.source == {
        "split": "train",
        "dialogue": "train/dia0",
        "video": "s08e21",
        "season": "8",
        "episode": "21",
        "word_times": "spread",
    }


def test_ids_restart_in_each_split_and_keys_do_not(csvs: Write) -> None:
    clips = list(MeldConfig(root=str(csvs()), media=False).clips())
    assert [clip.key for clip in clips] == ["train/dia0_utt0", "dev/dia0_utt0", "test/dia0_utt0"]
    assert [clip.source["split"] for clip in clips] == ["train", "valid", "test"]
    assert len({clip.source["dialogue"] for clip in clips}) == 3


def test_hours_have_one_digit_or_two(csvs: Write) -> None:
    assert first(csvs(StartTime="0:59:59,900", EndTime="01:00:00,150")).duration_s == 0.25


@pytest.mark.parametrize("end", ["00:00:01,000", "00:00:00,999"])
def test_the_length_is_reckoned_where_the_end_is_not_after_the_start(
    csvs: Write, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    clip = first(csvs(EndTime=end, Utterance="0123456789"))
    assert clip.duration_s == 0.76
    assert clip.source["times"] == "reckoned"
    assert "times of train/dia0_utt0 are wrong" in caplog.text


def test_mojibake_is_put_right_and_counted(csvs: Write, caplog: pytest.LogCaptureFixture) -> None:
    clip = first(csvs(Utterance="Youâ€™re Oâ€™s", Speaker="Richardâ€™s Date"))
    assert [word.text for word in clip.words or ()] == ["You’re", "O’s"]
    assert clip.speaker == "Richard’s Date"
    assert "mojibake was put right in 1 rows" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Emotion": "joyful"}, r"line 2: no class 'joyful'.*joy"),
        ({"StartTime": "1.5"}, r"line 2: the time is '1.5'; expected hh:mm:ss,ms"),
        ({"Dialogue_ID": "../x"}, r"line 2: dialogue, utterance, season and episode are \.\./x"),
        ({"Speaker": " "}, "line 2: nobody speaks"),
        ({"Sentiment": None}, "no column Sentiment"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused(csvs: Write, changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(MeldConfig(root=str(csvs(**changes)), media=False).clips())


def test_a_missing_file_and_a_folder_without_clips_are_refused(csvs: Write) -> None:
    root = csvs()
    with pytest.raises(UserError, match=r"no clip; looked for train_splits.*media=false"):
        list(MeldConfig(root=str(root)).clips())
    (root / "dev_sent_emo.csv").unlink()
    with pytest.raises(UserError, match=r"no dev_sent_emo\.csv anywhere below it"):
        list(MeldConfig(root=str(root)).clips())


def test_a_table_found_twice_is_refused(csvs: Write) -> None:
    root = csvs()
    (root / "copy").mkdir()
    (root / "copy" / "dev_sent_emo.csv").write_bytes((root / "dev_sent_emo.csv").read_bytes())
    with pytest.raises(UserError, match="keep one of them"):
        list(MeldConfig(root=str(root), media=False).clips())


def test_what_is_known_to_be_bad_is_unusable_and_told(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        unusable = {clip.key: clip.unusable for clip in MeldConfig(root=str(corpus)).clips() if clip.unusable}

    assert set(unusable) == {
        *("train/dia125_utt3", "train/dia309_utt0", "dev/dia110_utt7", "test/dia38_utt4", "test/dia220_utt0")
    }
    assert "missing, as it is known to be" in str(unusable["dev/dia110_utt7"])
    assert "1 rows have no clip, first: dev/dia110_utt7" in caplog.text
    assert "1 clips have no row and were left out, first: train/dia7_utt0" in caplog.text
    assert "1 rows have two files; of 0 the one named final_videos_test... is taken" in caplog.text
    assert "meld train: 12 utterances in 4 dialogues (published: 9989 in 1038)" in caplog.text

    kept = [clip.key for clip in MeldConfig(root=str(corpus), keep_known_bad=True).clips() if clip.unusable]
    assert kept == ["dev/dia110_utt7"]
    assert not any(clip.unusable for clip in MeldConfig(root=str(corpus), media=False).clips())


@pytest.mark.parametrize(
    ("plain_s", "final_s", "taken"),
    [(4.0, 1.6, "final"), (1.4, 1.6, "plain"), (1.5, 9.0, "plain"), (None, 1.0, "final")],
)
def test_of_two_files_that_of_the_nearer_length_is_taken(
    csvs: Write, make_clip: Callable[..., Path], plain_s: float | None, final_s: float, taken: str
) -> None:
    root = csvs()
    folder = root / "output_repeated_splits_test"
    folder.mkdir()
    plain, final = folder / "dia0_utt0.mp4", folder / "final_videos_testdia0_utt0.mp4"
    if plain_s is None:
        plain.write_bytes(b"damaged")
    else:
        make_clip(plain, seconds=plain_s)
    make_clip(final, seconds=final_s)

    (clip,) = [clip for clip in MeldConfig(root=str(root)).clips() if clip.key == "test/dia0_utt0"]

    assert clip.video == (final if taken == "final" else plain)


def test_the_look_alike_goes_the_whole_way(corpus: Path, tmp_path: Path) -> None:
    manifest = write_all(MeldConfig(root=str(corpus)), tmp_path, max_quarantined_share=0.3)

    assert (manifest.found, manifest.written, len(manifest.quarantined)) == (22, 17, 5)
    assert manifest.counts["without_audio"] == 1
    assert manifest.counts["without_video"] == manifest.counts["without_words"] == 0
    emotions = streamed(tmp_path)
    assert Counter(key.partition("/")[0] for key in emotions) == {"train": 10, "dev": 2, "test": 5}
    assert emotions["train/dia0_utt1"] == "joy"
    assert Counter(emotions.values()) == manifest.labels["emotion"]


def test_text_alone_goes_the_whole_way(corpus: Path, tmp_path: Path) -> None:
    assert write_all(MeldConfig(root=str(corpus), media=False), tmp_path).quarantined == {}
    assert Counter(key.partition("/")[0] for key in streamed(tmp_path)) == {"train": 12, "dev": 3, "test": 7}


def write_all(corpus: MeldConfig, out: Path, **settings: Any) -> Manifest:
    """In the corpus' own split; some episodes have dialogues on two sides."""
    split = SplitConfig(by="source", allow=["video"])
    return write(WriteConfig(corpus=CorpusConfig(meld=corpus), out=str(out), split=split, workers=1, **settings))


def streamed(folder: Path) -> dict[str, str]:
    """Key -> emotion of every clip, as batches carry it; words and sentiment must be there too."""
    shard_set = ShardSet(folder)
    emotions: dict[str, str] = {}
    asked: dict[str, tuple[str, ...]] = {"emotion": EMOTIONS, "sentiment": SENTIMENTS}
    settings: dict[str, Any] = {"batch_size": 500, "rank": 0, "world": 1, "labels": asked}
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        for batch in EvalLoader(shard_set, {}, vocabulary=shard_set.vocabulary(), split=split, **settings).batches():
            assert batch.tracks["text"].mask.any(dim=1).all()
            assert (batch.labels["sentiment"] >= 0).all()
            assert {key.partition("/")[0] for key in batch.keys} == {name}
            named = [EMOTIONS[index] for index in batch.labels["emotion"].tolist()]
            emotions |= dict(zip(batch.keys, named, strict=True))
    return emotions


@pytest.mark.real
@pytest.mark.slow
def test_the_official_files(real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = {clip.key: clip for clip in MeldConfig(root=str(real_data / "meld"), media=False).clips()}
    manifest = write_all(MeldConfig(root=str(real_data / "meld"), media=False), tmp_path)
    emotions = streamed(tmp_path)

    assert Counter(clip.source["split"] for clip in clips.values()) == {"train": 9989, "valid": 1109, "test": 2610}
    dialogues = Counter(dialogue.partition("/")[0] for dialogue in {clip.source["dialogue"] for clip in clips.values()})
    assert dialogues == {"train": 1038, "dev": 114, "test": 280}
    counted = {
        split: Counter(emotion for key, emotion in emotions.items() if key.startswith(f"{split}/"))
        for split in ("train", "dev", "test")
    }
    assert counted == {
        "train": dict(zip(EMOTIONS, (1109, 271, 268, 1743, 4710, 683, 1205), strict=True)),
        "dev": dict(zip(EMOTIONS, (153, 22, 40, 163, 470, 111, 150), strict=True)),
        "test": dict(zip(EMOTIONS, (345, 68, 50, 402, 1256, 208, 281), strict=True)),
    }
    assert manifest.labels["sentiment"] == {"negative": 4184, "neutral": 6436, "positive": 3088}
    assert [word.text for word in clips["train/dia0_utt1"].words or ()] == [
        "You",
        "must’ve",
        "had",
        "your",
        "hands",
        "full.",
    ]
    assert clips["train/dia0_utt1"].duration_s == 1.502
    assert (clips["test/dia0_utt1"].words or ())[-1].text == "27?!’"
    assert clips["test/dia0_utt1"].duration_s == 6.756
    assert clips["test/dia1_utt0"].duration_s == 1.377
    reckoned = {key for key, clip in clips.items() if clip.source.get("times") == "reckoned"}
    assert reckoned == {"train/dia309_utt0", "test/dia38_utt4", "test/dia220_utt0", "test/dia155_utt3"}
    assert "mojibake" not in caplog.text
