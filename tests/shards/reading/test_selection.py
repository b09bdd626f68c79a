from dataclasses import replace

import numpy as np
import pytest

from shards.reading import plan
from shards.reading.index import ShardSet
from shards.record import SPLITS


def keys_of(shard_set: ShardSet, *splits: str) -> list[str]:
    return [key for split in splits for key in shard_set.split(split).keys]


@pytest.fixture
def whole(written, record) -> ShardSet:
    return written(
        [
            replace(
                record(f"s{n:02d}/clip", f"s{n:02d}", split=("train", "valid", "train", "test")[n % 4]), duration_s=n
            )
            for n in range(30)
        ]
    )


def test_clips_are_drawn_from_all_written_splits_in_the_order_of_the_shards(whole: ShardSet):
    everything = keys_of(whole, *SPLITS)
    wanted = {"train": everything[::3], "test": everything[1::3], "valid": everything[2::3]}
    other = whole.divided({name: tuple(sorted(found)) for name, found in wanted.items()})
    for name, found in wanted.items():
        split = other.split(name)
        assert split.keys == found
        assert [split.record(number).key for number in range(len(split))] == found
        assert sum(split.shard_sizes) == len(split) == len(found)
        assert split.extensions(0) == ["json"]
        assert set(split.read(0)) == {"json"}
    assert keys_of(whole, *SPLITS) == everything
    with pytest.raises(IndexError):
        other.split("test").record(len(wanted["test"]))


def test_a_division_as_it_was_written_trains_in_the_same_order(whole: ShardSet):
    other = whole.divided({name: tuple(whole.split(name).keys) for name in SPLITS})
    sizes = [one.split("train").shard_sizes for one in (whole, other)]
    assert sizes[0] == sizes[1]
    orders = [plan.epoch_order(one, seed=3, epoch=2) for one in sizes]
    assert np.array_equal(*orders)


def test_a_clip_names_the_shard_that_it_lies_in(whole: ShardSet):
    last = whole.split("test").keys[-1]
    other = whole.divided({"train": [last], "valid": [last], "test": [last]})
    shard = [info.name for info in whole.manifest.shards if info.split == "test"][-1]
    assert other.split("train").shard_name(0) == whole.split("test").shard_name(len(whole.split("test")) - 1) == shard
