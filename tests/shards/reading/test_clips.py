"""Damaged and overlong clips on their way from the shards to the trainer."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.media.decode import DecodeError
from shards.reading.clips import DamagedClip
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader, StreamConfig, TrainLoader
from triptych.batch import UNLABELLED, Batch

SOUND = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4)))
BAD = ("train-speaker1/clip06", "train-speaker2/clip14")


def damage(folder: Path, key: str, extension: str) -> int:
    """Flip a bit in the middle of a member; returns its offset."""
    split = ShardSet(folder).split("train")
    content = split.read(split.keys.index(key))[extension]
    shard = folder / f"train-{int(key[13]):06d}.tar"
    tar = bytearray(shard.read_bytes())
    offset = tar.index(content)
    tar[offset + len(content) // 2] ^= 1
    shard.write_bytes(tar)
    return offset


@pytest.fixture
def damaged_shards(tiny_shards: Callable[..., Path]) -> tuple[Path, list[int]]:
    """The tiny set with two damaged clips of 23, and their offsets."""
    folder = tiny_shards()
    return folder, [damage(folder, BAD[0], "lfbe.npy"), damage(folder, BAD[1], "json")]


def loader(folder: Path, *, rank: int = 0, world: int = 1, **changes: Any) -> TrainLoader:
    settings = {"global_batch": 6, "micro_batch": 2, "max_damaged_share": 0.1, "features": SOUND, **changes}
    shard_set = ShardSet(folder)
    return TrainLoader(
        shard_set,
        StreamConfig(shards=str(folder), **settings),
        vocabulary=shard_set.vocabulary(),
        seed=1,
        rank=rank,
        world=world,
        labels={"emotion": ("happy", "sad")},
    )


def damaged_of(batches: list[Batch]) -> list[tuple[int, str]]:
    return sorted(pair for batch in batches for pair in batch.damaged)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2), (3, 0)])
def test_damaged_clips_are_left_out_and_told_with_shard_member_and_offset(
    damaged_shards: tuple[Path, list[int]], world: int, workers: int
) -> None:
    folder, offsets = damaged_shards
    ranks = [loader(folder, rank=rank, world=world, workers=workers).steps(0) for rank in range(world)]
    batches = [batch for rank in ranks for step in islice(rank, 23) for batch in step]  # six epochs of 23 clips
    assert sum(map(len, batches)) == 6 * 23
    told = damaged_of(batches)
    assert len({sample_id for sample_id, _ in told}) == 2
    assert len(told) == 6 * 2
    for (_, message), key, extension, offset in zip(sorted(set(told)), BAD, ("lfbe.npy", "json"), offsets, strict=True):
        assert f"train-{int(key[13]):06d}.tar: {key}.{extension} at byte {offset}: damaged, CRC-32 differs" in message


def test_a_damaged_clip_stays_as_a_row_without_anything(damaged_shards: tuple[Path, list[int]]) -> None:
    folder, _ = damaged_shards
    for batch in (batch for step in islice(loader(folder, micro_batch=1).steps(0), 4) for batch in step):
        assert len(batch) == 1
        present = torch.stack([track.present for track in batch.tracks.values()])
        assert bool(present.any()) != bool(batch.damaged)
        if batch.damaged:
            assert batch.labels["emotion"].tolist() == [UNLABELLED]


def test_whole_clips_are_the_same_with_and_without_damage_to_others(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    before = [batch for step in islice(loader(folder).steps(0), 4) for batch in step]
    damage(folder, BAD[0], "lfbe.npy")
    after = [batch for step in islice(loader(folder).steps(0), 4) for batch in step]
    assert len(damaged_of(after)) == 1
    for whole, rest in zip(before, after, strict=True):
        assert whole.epochs == rest.epochs
        for row, (key, other) in enumerate(zip(whole.keys, rest.keys, strict=True)):
            assert (key == other) is (key != BAD[0])
            sound, heard = (batch.tracks["audio"].values[row] for batch in (whole, rest))
            if key == other:
                length = min(len(sound), len(heard))
                assert torch.equal(sound[:length], heard[:length])


def test_media_that_cannot_be_decoded_count_too(tiny_shards: Callable[..., Path]) -> None:
    class Broken:
        spec = build(SOUND)["audio"].spec

        def compute(self, members: Any) -> None:
            raise DecodeError("the audio stream is empty")

    folder = tiny_shards(features=[])

    def evaluation(share: float) -> list[Batch]:
        features = {"audio": Broken()}
        opened = EvalLoader(
            ShardSet(folder), features, vocabulary=None, batch_size=2, rank=0, world=1, max_damaged_share=share
        )
        return list(opened.batches())

    with pytest.raises(
        DamagedClip, match=r"valid-000000\.tar: clip valid-speaker0/clip00: lfbe cannot be computed: the"
    ):
        evaluation(0.0)
    assert [sample_id for sample_id, _ in damaged_of(evaluation(1.0))] == list(range(7))


def test_clips_that_are_cut_are_counted(tiny_shards: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_shards(features=[])
    feature = build(SOUND)["audio"]
    feature.spec = replace(feature.spec, max_length=22)  # 20 steps a second; clips have 1.0 to 1.2 s
    opened = EvalLoader(ShardSet(folder), {"audio": feature}, vocabulary=None, batch_size=4, rank=0, world=1)
    batches = list(opened.batches())
    assert "is cut to 22" in caplog.text
    lengths = [length for batch in batches for length in batch.tracks["audio"].mask.sum(dim=1).tolist()]
    assert max(lengths) == 22
    assert 0 < sum(batch.num_cut for batch in batches) < lengths.count(22) + 1 < 7


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"max_damaged_share: .*expected a share from 0 to 1"):
        StreamConfig(shards="", features=SOUND, global_batch=1, micro_batch=1, max_damaged_share=share)
