"""The stream of real loaders: the same for every number of ranks and workers, resumed or not."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest

from shards.features.config import FeaturesConfig
from shards.reading import plan
from shards.reading.index import ShardSet
from shards.reading.read import StreamConfig, TrainLoader

WORLDS, WORKERS, POOLS = (1, 2, 3, 4, 8), (0, 1, 2, 3), (0, 3)
STEPS = 12
SIZE = 8
"""Of a global batch; 96 clips are four epochs of 23 and a rest."""


def order_hash(folder: Path, worlds: Sequence[int], workers: int, length_pool: int) -> str:
    """SHA-256 of (key, epoch) of STEPS global batches in the stream's order; each world takes its part of the steps,
    as if the run was stopped and started again with so many ranks."""
    shard_set = ShardSet(folder)
    split = shard_set.split("train")
    stream = StreamConfig(
        shards="",
        features=FeaturesConfig(),
        global_batch=SIZE,
        micro_batch=2,
        length_pool=length_pool,
        workers=workers,
    )
    order, digest = plan.Order(split.shard_sizes, 1, SIZE, split.durations, length_pool), hashlib.sha256()
    for part, world in enumerate(worlds):
        first, last = plan.rank_share(STEPS, len(worlds), part)
        batches = [[("", -1)] * SIZE for _ in range(first, last)]
        for rank in range(world):
            loader = TrainLoader(shard_set, stream, vocabulary=shard_set.vocabulary(), seed=1, rank=rank, world=world)
            steps = loader.steps(first)
            for step, micro_batches in enumerate(islice(steps, last - first)):
                ids, _ = order.step(first + step)
                places = plan.deal(split.durations[ids], loader.num_micro_batches, world)[rank]
                for batch, where in zip(micro_batches, places, strict=True):
                    for place, key, epoch in zip(where, batch.keys, batch.epochs, strict=True):
                        batches[step][place] = key, epoch
            steps.close()
        digest.update(repr(batches).encode()[1:-1] + b", ")
    return digest.hexdigest()


def hashes(
    folder: Path, combinations: Iterable[tuple[int, int, bool]], length_pool: int, record: Callable[[str, str], None]
) -> set[str]:
    """Of the stream for each (world, workers, resumed), and for one whose number of ranks changes on the way. Ranks are
    run one after the other: nothing in the loader knows of the others."""
    found = {
        (world, workers, resumed): order_hash(folder, (world, world) if resumed else (world,), workers, length_pool)
        for world, workers, resumed in combinations
    }
    found[2, 2, "4, then 1"] = order_hash(folder, (2, 4, 1), 2, length_pool)
    different = set(found.values())
    record("measured", f"order hashes of {len(found)} combinations, pool {length_pool}: {different}")
    return different


@pytest.mark.slow
def test_any_ranks_workers_and_resuming_read_one_stream(
    tiny_shards: Callable[..., Path], record_property: Callable[[str, str], None]
) -> None:
    """Every pair of a number of ranks and one of workers, half of them with each pool and half of those resumed: a
    Latin square, in which each pool meets every number of ranks resumed and not, and every number of workers too."""
    folder = tiny_shards()
    square = {
        (world, workers): (row + column) % 4
        for (row, world), (column, workers) in itertools.product(enumerate(WORLDS), enumerate(WORKERS))
    }
    for parity, length_pool in enumerate(POOLS):
        chosen = [(*pair, place < 2) for pair, place in square.items() if place % 2 == parity]
        assert len(chosen) == 10
        assert len(hashes(folder, chosen, length_pool, record_property)) == 1


@pytest.mark.soak
@pytest.mark.parametrize("length_pool", POOLS)
def test_forty_combinations_of_ranks_workers_and_resuming_read_one_stream(
    tiny_shards: Callable[..., Path], length_pool: int, record_property: Callable[[str, str], None]
) -> None:
    combinations = itertools.product(WORLDS, WORKERS, (False, True))
    assert len(hashes(tiny_shards(), combinations, length_pool, record_property)) == 1
