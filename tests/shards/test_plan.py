"""The stream as arithmetic, over grids of ranks, batches and shard layouts."""

import itertools
from collections import Counter

import numpy as np
import pytest

from shards import plan
from triptych.config import UserError

LAYOUTS = [(10,), (7, 5, 9), (3,) * 40, (1, 100, 2, 50)]


@pytest.mark.parametrize("sizes", LAYOUTS)
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_holds_every_sample_once(sizes: tuple[int, ...], epoch: int) -> None:
    order = plan.epoch_order(sizes, seed=3, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return plan.epoch_order((30, 30, 30), seed, epoch).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed, epoch in itertools.product((-1, 0, 1, 2), range(4))}) == 16


def test_the_order_is_this_one_on_every_machine_and_numpy() -> None:
    """A run resumed under another NumPy must not change its order; pinned when the order was first written."""
    assert plan.epoch_order((4, 3, 5), seed=1, epoch=2).tolist() == [1, 8, 10, 3, 2, 7, 6, 5, 9, 11, 4, 0]


def test_neighbours_come_from_different_shards_and_reads_stay_within_a_block() -> None:
    sizes = (50,) * 64
    shards = plan.epoch_order(sizes, seed=0, epoch=0) // 50
    assert np.mean(shards[1:] == shards[:-1]) < 0.1
    for block in np.split(shards, 4):
        assert len(set(block.tolist())) == plan.SHARDS_PER_BLOCK


@pytest.mark.parametrize("num_shards", [17, 33, 47])
def test_no_block_is_a_small_rest(num_shards: int) -> None:
    """A last block of one shard would be one speaker for many steps."""
    shards = plan.epoch_order((20,) * num_shards, seed=0, epoch=0) // 20
    assert len(set(shards[-160:].tolist())) >= 8


@pytest.mark.parametrize("sizes", LAYOUTS)
@pytest.mark.parametrize("global_batch", [1, 4, 7, 10])
def test_steps_walk_through_epoch_after_epoch(sizes: tuple[int, ...], global_batch: int) -> None:
    total, num_epochs = sum(sizes), 3
    steps = [plan.step_samples(sizes, 5, global_batch, step) for step in range(num_epochs * total // global_batch + 1)]
    ids, epochs = (np.concatenate(column)[: num_epochs * total] for column in zip(*steps))
    for epoch in range(num_epochs):
        part = slice(epoch * total, (epoch + 1) * total)
        assert set(epochs[part].tolist()) == {epoch}
        assert ids[part].tolist() == plan.epoch_order(sizes, 5, epoch).tolist()


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("global_batch", [8, 11, 16, 37])
@pytest.mark.parametrize("micro_batch", [2, 3, 64])
def test_ranks_and_micro_batches_cut_the_same_global_batch(world: int, global_batch: int, micro_batch: int) -> None:
    num = plan.num_micro_batches(global_batch, micro_batch, world)
    taken: list[int] = []
    for rank in range(world):
        start, stop = plan.rank_share(global_batch, world, rank)
        parts = plan.split_share(stop - start, num)
        assert len(parts) == num
        assert all(1 <= last - first <= micro_batch for first, last in parts)
        taken += [start + position for first, last in parts for position in range(first, last)]
    assert taken == list(range(global_batch))


@pytest.mark.parametrize("start_step", [0, 1, 5, 13])
def test_resuming_equals_the_tail_of_the_uninterrupted_run(start_step: int) -> None:
    sizes, global_batch = (7, 5, 9), 4
    whole = [plan.step_samples(sizes, 0, global_batch, step)[0].tolist() for step in range(20)]
    plan._epoch_order.cache_clear()  # a new process
    assert [plan.step_samples(sizes, 0, global_batch, step)[0].tolist() for step in range(start_step, 20)] == whole[
        start_step:
    ]


@pytest.mark.parametrize(
    ("global_batch", "micro_batch", "world", "message"),
    [
        (3, 2, 4, "global_batch 3 is less than the number of ranks .4.*raise global_batch to at least 4"),
        (5, 1, 2, "shares of 2 and 3 clips.*raise micro_batch to 2 or make global_batch a multiple of 2"),
        (4, 0, 2, "must both be at least 1"),
    ],
)
def test_a_batch_that_would_be_empty_is_refused(global_batch: int, micro_batch: int, world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan.num_micro_batches(global_batch, micro_batch, world)


def test_a_global_batch_larger_than_the_split_is_refused() -> None:
    plan.check_fits(8, 8, "train")
    with pytest.raises(UserError, match=r"'train' has 7 clips and global_batch is 8.*at most 7"):
        plan.check_fits(7, 8, "train")


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("num_samples", [8, 9, 15, 64, 65])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_evaluation_sees_every_sample_once_in_equally_many_batches(
    world: int, num_samples: int, batch_size: int
) -> None:
    ranks = [plan.evaluation_batches(num_samples, batch_size, world, rank) for rank in range(world)]
    seen = Counter(sample for batches in ranks for start, stop in batches for sample in range(start, stop))
    assert seen == Counter(range(num_samples))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= stop - start <= max(batch_size, 2) for batches in ranks for start, stop in batches)


def test_evaluation_with_fewer_samples_than_ranks_is_refused() -> None:
    with pytest.raises(UserError, match="start at most 3 ranks"):
        plan.evaluation_batches(3, 4, world=4, rank=0)
