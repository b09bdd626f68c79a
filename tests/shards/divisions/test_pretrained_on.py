import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shards.divisions.pretrained_on import compare
from shards.reading.index import ShardSet
from shards.record import ClipRecord

MakeSet = Callable[[str, dict[str, list[str]]], Path]


@pytest.fixture
def set_of_videos(tmp_path: Path, shard_set_of: Callable[..., Path]) -> MakeSet:
    """A shard set of the corpus NAME, one clip a video of each split."""

    def make(corpus: str, videos: dict[str, list[str]]) -> Path:
        record = ClipRecord(
            key="",
            speaker="s",
            split="",
            duration_s=1.0,
            has_audio=False,
            has_video=False,
            words=None,
            source={},
            labels={},
        )
        clips = [
            replace(record, key=f"{corpus}-{video}", split=split, source={"video": video})
            for split, names in videos.items()
            for video in names
        ]
        contents = [(clip, {"json": json.dumps(clip.to_json()).encode()}) for clip in clips]
        return shard_set_of(contents, corpus=corpus).rename(tmp_path / corpus)

    return make


def run_of(folder: Path, trained: Path) -> Path:
    """The encoder of a run over a shard set."""
    (folder / "encoder").mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(ShardSet(trained).identity))
    (folder / "config.yaml").write_text(json.dumps({"stream": {"shards": str(trained)}}))
    return folder / "encoder"


def test_videos_of_pretraining_that_are_scored_are_found(tmp_path: Path, set_of_videos: MakeSet) -> None:
    trained = set_of_videos("vox", {"train": ["ViyQVpGW05w", "aaaaaaaaaaa"], "valid": ["bbbbbbbbbbb"]})
    scored = set_of_videos("mosei", {"train": ["aaaaaaaaaaa"], "test": ["ViyQVpGW05w", "bbbbbbbbbbb", "ccccccccccc"]})
    found = compare(run_of(tmp_path / "run", trained), ShardSet(scored))
    assert found.known
    assert found.shared == ("ViyQVpGW05w",)  # weights come from the training split, scores from valid and test
    assert found.told == "vox: 1 of 3 videos or clips that are scored, as ViyQVpGW05w"


def test_the_other_splits_of_the_set_itself_are_unseen(tmp_path: Path, set_of_videos: MakeSet) -> None:
    both = set_of_videos("vox", {"train": ["a"], "test": ["b"]})
    found = compare(run_of(tmp_path / "run", both), ShardSet(both))
    assert (found.known, found.shared) == (True, ())
    assert "this shard set" in found.told


def test_what_cannot_be_known_is_not_claimed(tmp_path: Path, set_of_videos: MakeSet) -> None:
    scored = ShardSet(set_of_videos("ravdess", {"train": ["a"], "test": ["b"]}))
    bare = tmp_path / "bare" / "deep" / "deeper" / "encoder"
    bare.mkdir(parents=True)
    assert not compare(bare, scored).known

    other = set_of_videos("grid", {"train": ["b"], "test": ["c"]})
    encoder = run_of(tmp_path / "run", other)
    assert "no YouTube id" in compare(encoder, scored).told
    other.rename(tmp_path / "elsewhere")
    found = compare(encoder, scored)
    assert not found.known
    assert "is not where" in found.told
