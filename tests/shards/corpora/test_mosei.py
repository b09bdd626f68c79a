import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from shards.corpora.config import CorpusConfig
from shards.corpora.look_alikes.mosei import MOODS
from shards.corpora.look_alikes.segments import write_csd
from shards.corpora.mosei import COLUMNS, MoseiConfig
from shards.corpora.synthetic_script import script
from shards.divisions.split import SplitConfig
from shards.features.config import AudioFeature, FeaturesConfig
from shards.features.lfbe import LfbeConfig
from shards.look_alike import make
from shards.media.decode import audio_of, decode_audio
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import ClipRecord, RawClip
from shards.write import WriteConfig, write
from triptych.config import UserError
from triptych.labels import Number

NAMES = [column.name for column in COLUMNS]


@pytest.fixture(scope="session")
def mosei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look_alike") / "mosei"
    make("mosei", folder)
    return folder


def clips_of(root: Path, **settings: object) -> dict[str, RawClip]:
    given = {"folds": "cmu_mosei_std_folds.py", "words": "CMU_MOSEI_TimestampedWords.csd"} | settings
    clips = list(MoseiConfig(root=str(root), **given).clips())  # type: ignore[arg-type]
    keys = [clip.key for clip in clips]
    assert len(set(keys)) == len(keys)
    return {clip.key: clip for clip in clips}


def by_start(clips: dict[str, RawClip], video: str) -> list[RawClip]:
    there = [clip for clip in clips.values() if clip.source["video"] == video]
    return sorted(there, key=lambda clip: float(clip.source["start_s"]))


def said(video: str, number: int) -> list[str]:
    """The words of a sentence of the look-alike, of its own generator."""
    drawn = script(0, f"{video}/{number}", "labelled", MOODS[video][number])
    return [word.text for word in drawn.words]


def labels_only(folder: Path, rows: dict[str, list[tuple[float, float, float]]], names: list[str] = NAMES) -> Path:
    """A root with a label file of (start, end, sentiment) rows."""
    videos = {}
    for video, there in rows.items():
        features = np.zeros((len(there), len(names)), np.float32)
        features[:, names.index("sentiment") if "sentiment" in names else 0] = [row[2] for row in there]
        videos[video] = features, np.array([row[:2] for row in there], np.float32)
    write_csd(folder / "CMU_MOSEI_Labels.csd", "All Labels", videos, names)
    return folder


def test_labels_words_and_times_belong_together_whatever_the_order_of_rows(mosei: Path) -> None:
    clips = clips_of(mosei)

    assert len(clips) == 29
    for video, moods in MOODS.items():
        if video == "127908":  # has a segment over two others
            continue
        there = by_start(clips, video)
        assert len(there) == 4
        for number, (clip, mood) in enumerate(zip(there, moods, strict=True)):
            expected = {"happy": 7 / 3, "neutral": 0.0, "sad": -1.0, "angry": -8 / 3}[mood]
            assert clip.labels["sentiment"] == pytest.approx(expected)
            assert clip.labels["sad"] == pytest.approx(4 / 3 if mood == "sad" else 0.0)
            assert clip.labels["anger"] == (3.0 if mood == "angry" else 0.0)
            assert [word.text.lower().rstrip(".") for word in clip.words or ()] == said(video, number)
            assert clip.words is not None
            assert (clip.words[0].text[0].isupper(), clip.words[-1].text[-1]) == (True, ".")  # as the transcript has it
            assert clip.speaker == video
            assert clip.source["word_times"] == "aligned"


def test_word_times_count_from_the_clips_start(mosei: Path) -> None:
    first, second = by_start(clips_of(mosei), "-lookAlike1")[:2]
    drawn = script(0, "-lookAlike1/1", "labelled", "sad")

    assert second.words is not None
    for word, expected in zip(second.words, drawn.words, strict=True):
        assert word.start_s == pytest.approx(expected.start_s, abs=1e-3)
    assert first.source["start_s"] == "-0.400"
    assert first.key.startswith("-lookAlike1/-000400_")
    assert first.cut is not None
    assert first.cut.start_s == 0.0
    assert first.words is not None
    expected = script(0, "-lookAlike1/0", "labelled", "happy").words[0].start_s
    assert first.words[0].start_s == pytest.approx(expected, abs=1e-3)


def test_overlapping_segments_share_words_and_the_recording(mosei: Path) -> None:
    first, over, second, *_ = by_start(clips_of(mosei), "127908")

    assert first.cut is not None
    assert over.cut is not None
    assert (first.cut.start_s, first.cut.box) == (0.0, None)
    assert first.cut.end_s == pytest.approx(float(first.source["end_s"]), abs=1e-3)
    assert over.cut.start_s == 1.0
    assert first.video == over.video == second.video
    middle = {word.text for word in over.words or ()}
    assert middle & {word.text for word in first.words or ()}
    assert middle & {word.text for word in second.words or ()}
    assert over.words is not None
    assert all(0 <= word.start_s <= word.end_s <= 3.68 for word in over.words)


def test_without_timed_words_the_transcripts_lines_are_found_by_time_and_spread(mosei: Path) -> None:
    clips = clips_of(mosei, words=None)

    for video in ("_ends_in_3_", "lookAlike04"):
        for number, clip in enumerate(by_start(clips, video)):
            texts = [word.text.lower().rstrip(".") for word in clip.words or ()]
            assert texts == said(video, number)
            assert clip.source["word_times"] == "spread"
            assert clip.words is not None
            assert clip.cut is not None
            assert clip.cut.end_s is not None
            assert clip.words[-1].end_s == pytest.approx(clip.cut.end_s - clip.cut.start_s, abs=1e-4)


def test_splits_are_the_folds_and_what_is_missing_is_told(mosei: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = clips_of(mosei)
    splits = [clip.source.get("split") for clip in clips.values()]

    assert [splits.count(split) for split in ("train", "valid", "test", None)] == [17, 4, 4, 4]
    assert all("split" not in clip.source for clip in by_start(clips, "noFold_0006"))
    told = caplog.text
    assert "7 videos with 29 segments; the published file has 3293 with 23259" in told
    assert "1 videos are in no fold (4 segments), first: noFold_0006" in told
    assert "1 videos of the folds have no labels, first: unlabelled0" in told
    assert "1 videos have no recording (4 clips), first: lost-_0007" in told
    lost = by_start(clips, "lost-_0007")
    assert {clip.unusable for clip in lost} == {"Combined/lost-_0007.mp4 is missing"}
    assert sum(clip.unusable is None for clip in clips.values()) == 25


def test_labels_alone_need_no_recordings(mosei: Path, tmp_path: Path) -> None:
    for name in ("CMU_MOSEI_Labels.csd", "CMU_MOSEI_TimestampedWords.csd", "cmu_mosei_std_folds.py"):
        shutil.copy(mosei / name, tmp_path)
    with pytest.raises(UserError, match="Set media: false"):
        clips_of(tmp_path)

    clips = clips_of(tmp_path, media=False)

    assert clips.keys() == clips_of(mosei).keys()
    assert all(clip.unusable is None and clip.video is None for clip in clips.values())
    assert by_start(clips, "-lookAlike1")[0].duration_s == pytest.approx(2.72)


def test_columns_are_found_by_the_names_in_the_metadata(tmp_path: Path) -> None:
    names = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "sentiment"]
    labels_only(tmp_path, {"v": [(0.0, 1.0, -2.0)]}, names)
    with h5py.File(tmp_path / "CMU_MOSEI_Labels.csd", "r+") as file:
        file["All Labels/data/v/features"][0, 3] = 1.5

    (clip,) = MoseiConfig(root=str(tmp_path), media=False).clips()

    assert clip.labels == dict.fromkeys(NAMES, 0.0) | {"sentiment": -2.0, "happy": 1.5}


def test_names_that_are_not_understood_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels_only(tmp_path, {"v": [(0.0, 1.0, 2.0)]}, ["sentiment", "a", "b", "c", "d", "e", "f"])

    (clip,) = MoseiConfig(root=str(tmp_path), media=False).clips()

    assert clip.labels["sentiment"] == 2.0
    assert "not understood; taken as sentiment, happy, sad, anger, surprise, disgust, fear" in caplog.text


def test_labels_out_of_range_make_a_clip_unusable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels_only(tmp_path, {"v": [(0.0, 1.0, 3.0), (1.0, 2.0, 3.3)]})

    good, bad = MoseiConfig(root=str(tmp_path), media=False).clips()

    assert good.unusable is None
    assert bad.unusable == "sentiment 3.3 is not in -3 to 3"
    assert "1 labels are out of their range" in caplog.text


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ({"v": [(0.0, 1.0, float("nan"))]}, NAMES, "v has a label that is no number"),
        ({"v": [(0.0, 1.0, 1.0)]}, ["sentiment"], "v has 1 columns of float64; expected 7 numbers: sentiment, happy"),
        ({"a b": [(0.0, 1.0, 1.0)]}, NAMES, "'a b' is no video id"),
    ],
)
def test_bad_labels_are_refused(
    tmp_path: Path, rows: dict[str, list[tuple[float, float, float]]], names: list[str], message: str
) -> None:
    labels_only(tmp_path, rows, names)
    with pytest.raises(UserError, match=message):
        list(MoseiConfig(root=str(tmp_path), media=False).clips())


def test_files_of_something_else_are_refused(mosei: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels: .*CMU_MOSEI_Labels\.csd: there is no such file"):
        clips_of(tmp_path)
    with pytest.raises(UserError, match="has no words but float64"):
        clips_of(mosei, words="CMU_MOSEI_Labels.csd")
    (tmp_path / "other.json").write_text(json.dumps({"train": [], "valid": []}))
    with pytest.raises(UserError, match="no list of videos for test"):
        clips_of(mosei, folds=str(tmp_path / "other.json"))
    labels_only(tmp_path, {"stranger": [(0.0, 1.0, 1.0)]})
    with pytest.raises(UserError, match="no words for any segment"):
        clips_of(tmp_path, folds=None, media=False, words=str(mosei / "CMU_MOSEI_TimestampedWords.csd"))


def test_labels_and_words_go_through_shards_into_batches(mosei: Path, tmp_path: Path) -> None:
    corpus = MoseiConfig(
        root=str(mosei), folds="cmu_mosei_std_folds.py", words="CMU_MOSEI_TimestampedWords.csd", media=False
    )
    out = tmp_path / "out"
    split = SplitConfig(by="video", train=0.5, valid=0.25, test=0.25)

    manifest = write(WriteConfig(corpus=CorpusConfig(mosei=corpus), out=str(out), split=split, workers=1))

    assert (manifest.found, manifest.written, manifest.quarantined) == (29, 29, {})
    given = {clip.key: clip for clip in corpus.clips()}
    shard_set, seen = ShardSet(str(out)), []
    asked = {name: Number() for name in NAMES}
    for name in ("train", "valid", "test"):
        shards = shard_set.split(name)
        for sample_id in range(len(shards)):
            record = ClipRecord.from_json(json.loads(shards.read(sample_id, ("json",))["json"]))
            clip = given[record.key]
            assert (record.labels, record.words, record.source) == (clip.labels, clip.words, clip.source)
            assert (record.has_audio, record.has_video) == (False, False)
        vocabulary = shard_set.vocabulary()
        loader = EvalLoader(
            shard_set, {}, vocabulary=vocabulary, labels=asked, batch_size=4, rank=0, world=1, split=name
        )
        for batch in loader.batches():
            seen += batch.keys
            lengths = batch.tracks["text"].mask.sum(1).tolist()
            assert lengths == [len(given[key].words or ()) for key in batch.keys]
            for label, values in batch.labels.items():
                assert values.tolist() == pytest.approx([given[key].labels[label] for key in batch.keys])
    assert sorted(seen) == sorted(given)


@pytest.mark.slow
def test_clips_are_cut_from_their_recordings(mosei: Path, tmp_path: Path) -> None:
    corpus = MoseiConfig(root=str(mosei), words="CMU_MOSEI_TimestampedWords.csd")
    config = WriteConfig(
        corpus=CorpusConfig(mosei=corpus),
        out=str(tmp_path / "out"),
        split=SplitConfig(by="video", train=0.5, valid=0.25, test=0.25),
        features=FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4))),
        workers=1,
    )
    with pytest.raises(UserError, match=r"4 of 29 clips are unusable.*lost-_0007\.mp4 is missing"):
        write(config)

    manifest = write(replace(config, max_quarantined_share=0.15))

    assert (manifest.found, manifest.written, len(manifest.quarantined)) == (29, 25, 4)
    shard_set, records, sounds = ShardSet(str(tmp_path / "out")), {}, {}
    for name in ("train", "valid", "test"):
        shards = shard_set.split(name)
        for sample_id in range(len(shards)):
            members = shards.read(sample_id)
            record = ClipRecord.from_json(json.loads(members["json"]))
            records[record.key] = record
            sounds[record.key] = decode_audio(audio_of(members), 16000)
    for clip in corpus.clips():
        if clip.unusable is None:
            record, (start_s, end_s) = records[clip.key], (float(clip.source[name]) for name in ("start_s", "end_s"))
            over_s = 2.0 if clip.key == by_start(clips_of(mosei), "127908")[-1].key else 0.0
            assert record.duration_s == pytest.approx(end_s - max(0.0, start_s) - over_s, abs=0.05)
            assert (record.has_audio, record.has_video) == (True, True)
            assert (record.labels, record.words) == (clip.labels, clip.words)
    with wave.open(str(mosei / "Raw/Audio/Full/WAV_16000/127908.wav")) as file:
        whole = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    over = next(key for key in records if key.startswith("127908/0001000_"))
    part = whole[16000 : 16000 + len(sounds[over])]
    assert np.corrcoef(part, sounds[over][: len(part)])[0, 1] > 0.95
