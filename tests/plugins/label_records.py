"""Fixtures: a shard set of records alone, labels without media."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shards.reading.index import ShardSet
    from shards.record import ClipRecord

PER_SHARD = 20


@pytest.fixture
def record() -> "Callable[..., ClipRecord]":
    """`record(key, speaker, split="train", labels={}, **source)`."""
    from shards.record import ClipRecord

    def make(key: str, speaker: str, split: str = "train", labels: Any = None, **source: str) -> "ClipRecord":
        return ClipRecord(
            key=key,
            speaker=speaker,
            split=split,
            duration_s=1.0,
            has_audio=False,
            has_video=False,
            words=None,
            source=source,
            labels=labels or {},
        )

    return make


@pytest.fixture
def ravdess(record: "Callable[..., ClipRecord]") -> "Callable[..., list[ClipRecord]]":
    """`ravdess(actors)`: eight takes each, one an emotion; all of the training split."""

    def make(actors: Sequence[int]) -> "list[ClipRecord]":
        emotions = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
        return [
            record(
                f"03-01-{code:02d}-01-01-01-{actor:02d}",
                f"actor-{actor:02d}",
                labels={"emotion": emotion},
                take=f"01-{code:02d}-01-01-01-{actor:02d}",
            )
            for actor in actors
            for code, emotion in enumerate(emotions, start=1)
        ]

    return make


@pytest.fixture
def written(tmp_path: Path) -> "Callable[..., ShardSet]":
    """`written(records, split={"by": "speaker"})`: as a shard set, each record in the split that it names."""
    from shards.reading.index import ShardSet
    from shards.record import SPLITS, Manifest
    from shards.writing.tar import ShardWriter

    def write(records: "Sequence[ClipRecord]", split: dict[str, Any] | None = None) -> "ShardSet":
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        infos = []
        for name, found in ((name, [one for one in records if one.split == name]) for name in SPLITS):
            for number, start in enumerate(range(0, len(found), PER_SHARD)):
                shard = ShardWriter(folder, f"{name}-{number:06d}", name)
                for one in found[start : start + PER_SHARD]:
                    shard.add(one.key, {"json": json.dumps(one.to_json()).encode()})
                infos.append(shard.finish())
        manifest = Manifest(
            corpus="made up",
            created_by="test",
            split={"by": "speaker"} if split is None else split,
            found=len(records),
            written=len(records),
            filtered={},
            quarantined={},
            shards=[info for info in infos if info is not None],
            features=[],
            labels={},
            counts={},
            vocabulary_sha256=hashlib.sha256(b"").hexdigest(),
            durations_sha256=dict.fromkeys(SPLITS, hashlib.sha256(b"").hexdigest()),
        )
        (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
        return ShardSet(folder)

    return write


@pytest.fixture
def by_actor() -> "Callable[..., list[ClipRecord]]":
    """`by_actor(records, valid=actors, test=actors)`: the records in splits by the actor in their key."""

    def move(records: "Sequence[ClipRecord]", valid: Sequence[int], test: Sequence[int]) -> "list[ClipRecord]":
        def split(one: "ClipRecord") -> str:
            actor = int(one.key[-2:])
            return "test" if actor in test else "valid" if actor in valid else "train"

        return [replace(one, split=split(one)) for one in records]

    return move
