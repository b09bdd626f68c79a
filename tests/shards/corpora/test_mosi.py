from collections import Counter
from pathlib import Path

import pytest

from shards.corpora.config import CorpusConfig
from shards.corpora.look_alikes.mosi import MOODS
from shards.corpora.mosi import MosiConfig
from shards.corpora.synthetic_script import script
from shards.divisions.split import SplitConfig
from shards.look_alike import make
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import RawClip
from shards.write import WriteConfig, write
from triptych.config import UserError
from triptych.labels import Number


@pytest.fixture(scope="session")
def mosi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look_alike") / "mosi"
    make("mosi", folder)
    return folder


def clips_of(root: Path, **settings: object) -> list[RawClip]:
    given = {"folds": "cmu_mosi_std_folds.py"} | settings
    return list(MosiConfig(root=str(root), **given).clips())  # type: ignore[arg-type]


def test_an_interval_with_two_labels_is_two_clips(mosi: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = clips_of(mosi, words="CMU_MOSI_TimestampedWords.csd")
    assert len({clip.key for clip in clips}) == len(clips) == 22

    twins = [clip for clip in clips if clip.key.startswith("lookAlike-1/0002720_")]

    assert [clip.labels["sentiment"] for clip in twins] == [-1.0, 0.0]
    assert twins[1].key == f"{twins[0].key}_2"
    times = [[(word.start_s, word.end_s) for word in clip.words or ()] for clip in twins]
    assert times[0] == times[1]
    assert "1 intervals have several labels, all are kept" in caplog.text


def test_transcripts_lines_are_found_through_the_times_of_their_numbers(mosi: Path) -> None:
    clips = clips_of(mosi)

    for video in ("lookAlike03", "lookAlike05"):
        there = sorted(
            (clip for clip in clips if clip.speaker == video), key=lambda clip: float(clip.source["start_s"])
        )
        for number, (clip, mood) in enumerate(zip(there, MOODS[video], strict=True)):
            drawn = script(0, f"{video}/{number}", "labelled", mood)
            assert [word.text.lower().rstrip(".") for word in clip.words or ()] == [word.text for word in drawn.words]
    twins = [clip for clip in clips if clip.key.startswith("lookAlike-1/0002720_")]
    assert "Once" in {clip.words[0].text for clip in twins if clip.words}  # each has a line of its own


def test_transcripts_without_their_table_are_refused_unless_other_words_are_there(
    mosi: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("CMU_MOSI_Opinion_Labels.csd", "cmu_mosi_std_folds.py", "CMU_MOSI_TimestampedWords.csd"):
        (tmp_path / name).symlink_to(mosi / name)
    (tmp_path / "Raw").mkdir()
    (tmp_path / "Raw" / "Transcript").symlink_to(mosi / "Raw" / "Transcript")

    with pytest.raises(UserError, match=r"OpinionLevelSentiment\.csv: cannot be read"):
        clips_of(tmp_path, media=False)
    clips = clips_of(tmp_path, media=False, words="CMU_MOSI_TimestampedWords.csd")
    texts = [word.text for clip in clips for word in clip.words or ()]
    assert texts == [text.lower() for text in texts] != []
    assert "the words of CMU_MOSI_TimestampedWords.csd stay as they are spelled there" in caplog.text


def test_a_segment_of_no_length_cannot_be_cut(mosi: Path) -> None:
    empty = [clip for clip in clips_of(mosi) if clip.unusable]
    assert [clip.unusable for clip in empty] == ["the segment is empty: 5.16 to 5.16 s"]

    (clip,) = (clip for clip in clips_of(mosi, media=False) if clip.key == empty[0].key)
    assert clip.unusable is None
    assert clip.duration_s == 0.001


@pytest.mark.real
def test_the_real_labels_have_the_published_counts(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = clips_of(real_data / "mosi", folds="standard_folds.json", media=False)

    assert len({clip.key for clip in clips}) == len(clips) == 2199
    assert len({clip.source["video"] for clip in clips}) == 93
    assert Counter(clip.source["split"] for clip in clips) == {"train": 1284, "valid": 229, "test": 686}
    sentiments = [clip.labels["sentiment"] for clip in clips]
    assert min(sentiments) == -3.0
    assert max(sentiments) == 3.0
    assert "published" not in caplog.text
    assert "2 intervals have several labels" in caplog.text
    (first,) = (clip for clip in clips if clip.key == "c5xsKMxpXnc/0001868_0005081")
    assert first.labels == {"sentiment": -0.75}


def test_clips_are_cut_and_their_sentiment_reaches_the_batches(mosi: Path, tmp_path: Path) -> None:
    corpus = MosiConfig(root=str(mosi), folds="cmu_mosi_std_folds.py")
    given = {clip.key: clip for clip in corpus.clips()}
    config = WriteConfig(
        corpus=CorpusConfig(mosi=corpus),
        out=str(tmp_path),
        split=SplitConfig(by="source"),
        workers=1,
        max_quarantined_share=0.05,
    )

    manifest = write(config)

    assert (manifest.found, manifest.written) == (22, 21)
    assert list(manifest.quarantined.values()) == ["the segment is empty: 5.16 to 5.16 s"]
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    shard_set, seen = ShardSet(tmp_path), {}
    for split in ("train", "valid", "test"):
        loader = EvalLoader(
            shard_set,
            {},
            vocabulary=shard_set.vocabulary(),
            labels={"sentiment": Number()},
            batch_size=8,
            rank=0,
            world=1,
            split=split,
        )
        for batch in loader.batches():
            seen |= dict(zip(batch.keys, batch.labels["sentiment"].tolist(), strict=True))
            assert {given[key].source["split"] for key in batch.keys} == {split}
    assert seen == {key: pytest.approx(given[key].labels["sentiment"]) for key in given.keys() - manifest.quarantined}
