import logging
from pathlib import Path

import pytest

from shards.divisions.split import SplitConfig, divide
from shards.record import RawClip, Word
from shards.writing.assign import check_unique, deal, read_exclude, select
from triptych.config import UserError


def clip(number: int, *confidences: float | None) -> RawClip:
    words = tuple(Word("word", i, i + 1, confidence) for i, confidence in enumerate(confidences))
    source = {"video": f"v{number // 2}", "set": "dev"}
    speaker = f"s{number % 5}"
    return RawClip(key=f"{speaker}/{number}", speaker=speaker, duration_s=1.0, words=words, source=source)


def test_each_clip_is_kept_or_counted_under_its_first_reason() -> None:
    clips = [clip(0, 0.9), clip(1, 0.9), clip(2, 0.2, 0.6), clip(3, 0.6, 0.4), clip(4), clip(5, None, 0.7)]

    kept, filtered = select(clips, keep={"set": ["dev"]}, exclude={"v0"}, min_confidence=0.5)

    assert [clip.key for clip in kept] == ["s3/3", "s0/5"]  # a mean of exactly 0.5 stays
    assert filtered == {"excluded": 2, "confidence < 0.5": 1, "no word confidence": 1}


def test_a_key_can_be_excluded_too() -> None:
    assert select([clip(0), clip(1)], keep={}, exclude={"s0/0"}, min_confidence=None)[1] == {"excluded": 1}


def test_names_that_meet_no_clip_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, filtered = select([clip(0)], keep={}, exclude={"other"}, min_confidence=None)

    assert filtered == {"excluded": 0}
    assert "1 of 1 names are no key or video id here, first: other" in caplog.text


def test_filters_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match="no word of these clips has a confidence"):
        select([clip(0, None)], keep={}, exclude=None, min_confidence=0.5)
    with pytest.raises(UserError, match=r"nothing is left of 1 clips.*excluded \(1\)"):
        select([clip(0)], keep={}, exclude={"v0"}, min_confidence=None)


def test_an_exclude_file_is_names_and_remarks(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# both are of RAVDESS\n-abc_DEF123\n\n  s0/0 \r\n")

    assert read_exclude(tmp_path / "list") == {"-abc_DEF123", "s0/0"}
    with pytest.raises(UserError, match=r"exclude: .*nowhere"):
        read_exclude(tmp_path / "nowhere")


def test_a_key_that_comes_twice_is_refused() -> None:
    with pytest.raises(UserError, match="1 clips have the key of another one, first: s0/0"):
        check_unique([clip(0), clip(1), clip(0)])


def test_every_clip_is_in_one_shard_of_its_split_and_neighbours_are_mixed() -> None:
    clips = [clip(number) for number in range(100)]
    split = SplitConfig(train=0.6, valid=0.2, test=0.2, allow=["video"])

    shards = list(deal(clips, divide(clips, split), seed=0, samples_per_shard=8))

    assert sorted(clip.key for *_, clips in shards for clip in clips) == sorted(clip.key for clip in clips)
    assert [name for name, *_ in shards][:2] == ["train-000000", "train-000001"]
    assert all(name.startswith(f"{split}-") for name, split, _ in shards)
    speakers: dict[str, set[str]] = {}
    for _, of, there in shards:
        speakers.setdefault(of, set()).update(clip.speaker for clip in there)
    assert sorted(speaker for side in speakers.values() for speaker in side) == [f"s{i}" for i in range(5)]
    assert {clip.speaker for clip in shards[0][2]} == speakers["train"]
    again = divide(clips[::-1], split)
    assert list(deal(clips[::-1], again, seed=0, samples_per_shard=8)) == shards  # the order of finding does not matter
