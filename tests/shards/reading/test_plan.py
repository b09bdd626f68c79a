"""The stream as arithmetic, over grids of ranks, batches and shard layouts."""

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from shards.reading import plan
from triptych.config import UserError

LAYOUTS = [(10,), (7, 5, 9), (3,) * 40, (1, 100, 2, 50)]


def order_of(
    sizes: tuple[int, ...] = (7, 5, 9), *, global_batch: int = 4, length_pool: int = 0, seed: int = 5
) -> plan.Order:
    return plan.Order(sizes, seed, global_batch, seconds(sum(sizes)), length_pool)


def seconds(count: int) -> np.ndarray:
    """Durations like VoxCeleb2's: at least 4 s, 7.8 s in the mean, a long tail."""
    return (4 + np.random.default_rng(0).exponential(3.8, count)).astype(np.float32)


@pytest.mark.parametrize("sizes", LAYOUTS)
@pytest.mark.parametrize("epoch", [0, 1, 7])
@pytest.mark.parametrize("length_pool", [0, 1, 3, 1000])
def test_an_epoch_holds_every_sample_once(sizes: tuple[int, ...], epoch: int, length_pool: int) -> None:
    order = order_of(sizes, length_pool=length_pool).epoch(epoch)
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
@pytest.mark.parametrize("length_pool", [0, 2])
def test_steps_walk_through_epoch_after_epoch(sizes: tuple[int, ...], global_batch: int, length_pool: int) -> None:
    total, num_epochs = sum(sizes), 3
    order = order_of(sizes, global_batch=global_batch, length_pool=length_pool)
    steps = [order.step(step) for step in range(num_epochs * total // global_batch + 1)]
    ids, epochs = (np.concatenate(column)[: num_epochs * total] for column in zip(*steps))
    for epoch in range(num_epochs):
        part = slice(epoch * total, (epoch + 1) * total)
        assert set(epochs[part].tolist()) == {epoch}
        assert ids[part].tolist() == order.epoch(epoch).tolist()


@pytest.mark.parametrize("length_pool", [0, 1])
def test_without_a_pool_batches_are_the_shuffled_order(length_pool: int) -> None:
    sizes = (7, 5, 9)
    assert order_of(sizes, length_pool=length_pool).epoch(2).tolist() == plan.epoch_order(sizes, 5, 2).tolist()


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_pool_is_sorted_by_length_and_its_batches_come_in_random_order(epoch: int) -> None:
    """100 clips in batches of 8: an epoch shares its first batch with the one before unless it begins with one."""
    size, total, pool = 8, 100, 3
    order = order_of((total,), global_batch=size, length_pool=pool)
    drawn, plain, durations = order.epoch(epoch), plan.epoch_order((total,), 5, epoch), seconds(total)
    shared = -epoch * total % size
    num_batches = (total - shared) // size
    end = shared + num_batches * size
    assert drawn[:shared].tolist() == plain[:shared].tolist()
    assert drawn[end:].tolist() == plain[end:].tolist()
    mixed = []
    for first, last in plan.split_share(num_batches, 4):
        assert last - first in (2, 3)
        place = slice(shared + first * size, shared + last * size)
        assert set(drawn[place].tolist()) == set(plain[place].tolist())
        batches = durations[drawn[place]].reshape(-1, size)
        starts = batches[:, 0].argsort()
        assert (np.diff(batches[starts].reshape(-1)) >= 0).all()
        mixed.append(starts.tolist() != sorted(starts.tolist()))
    assert any(mixed)


def test_clips_of_one_length_change_batches_from_epoch_to_epoch() -> None:
    order = plan.Order((64,), 0, 8, np.full(64, 3.0, dtype=np.float32), 4)
    batches = [{frozenset(batch.tolist()) for batch in order.epoch(epoch).reshape(-1, 8)} for epoch in (0, 1)]
    assert not batches[0] & batches[1]


def useful_share(order: plan.Order, durations: np.ndarray, num_steps: int, num_micro_batches: int = 1) -> float:
    """Seconds of clips as a share of those that padding to the longest of each micro-batch takes."""
    real = padded = 0.0
    for step in range(num_steps):
        ids, _ = order.step(step)
        for places in plan.deal(durations[ids], num_micro_batches, world=1)[0]:
            lengths = durations[ids[places]]
            real, padded = real + lengths.sum(), padded + lengths.max() * len(lengths)
    return real / padded


def test_a_pool_of_2048_clips_leaves_4_percent_of_padding(record_property: Callable[[str, str], None]) -> None:
    durations = seconds(20_480)
    shares = [
        useful_share(plan.Order((1024,) * 20, 0, size, durations, pool), durations, 64, num)
        for size, pool, num in ((32, 0, 1), (32, 64, 1), (512, 0, 16))
    ]
    record_property(
        "measured", f"useful share, random / pool of 2048 / 16 micro-batches dealt by length: {np.round(shares, 3)}"
    )
    assert shares[0] < 0.45
    assert shares[1] >= 0.96
    assert shares[2] > 2 * shares[0]


def test_resuming_at_sample_one_million_draws_one_epoch(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, str], None]
) -> None:
    sizes, size = (500,) * 800, 64
    durations, drawn = seconds(400_000), []
    epoch_order = plan.epoch_order
    monkeypatch.setattr(
        plan, "epoch_order", lambda sizes, seed, epoch: drawn.append(epoch) or epoch_order(sizes, seed, epoch)
    )
    began = time.perf_counter()
    ids, epochs = plan.Order(sizes, 0, size, durations, length_pool=64).step(1_000_000 // size)
    record_property("measured", f"first step at sample one million: {time.perf_counter() - began:.2f} s")
    assert drawn == [2] == np.unique(epochs).tolist()
    assert len(ids) == size


GRID = [(8, 2), (8, 3), (11, 4), (16, 64), (37, 2), (37, 3), (64, 16)]
"""Global batch and micro-batch."""


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize(("global_batch", "micro_batch"), GRID)
def test_ranks_and_micro_batches_cut_the_same_global_batch(world: int, global_batch: int, micro_batch: int) -> None:
    num = plan.num_micro_batches(global_batch, micro_batch, world)
    dealt = plan.deal(seconds(global_batch), num, world)
    assert [len(rank) for rank in dealt] == [num] * world
    assert all(1 <= len(places) <= micro_batch for rank in dealt for places in rank)
    shares = [sum(map(len, rank)) for rank in dealt]
    assert shares == [np.diff(plan.rank_share(global_batch, world, rank))[0] for rank in range(world)]
    assert sorted(place for rank in dealt for places in rank for place in places) == list(range(global_batch))
    assert all((np.diff(places) > 0).all() for rank in dealt for places in rank)


def test_ranks_get_like_amounts_of_work() -> None:
    """Contiguous shares of a sorted batch would give the last rank twice as much as the first."""
    lengths = seconds(256)
    totals = [sum(lengths[places].sum() for places in rank) for rank in plan.deal(lengths, 4, world=4)]
    contiguous = np.sort(lengths).reshape(4, 64).sum(axis=1)
    assert max(contiguous) > 2 * min(contiguous)
    assert max(totals) < 1.25 * min(totals)


def test_micro_batches_of_one_round_are_of_like_length() -> None:
    lengths = seconds(64)
    dealt = plan.deal(lengths, num_micro_batches=4, world=4)
    for earlier, later in itertools.pairwise(zip(*dealt)):
        assert min(lengths[places].min() for places in earlier) >= max(lengths[places].max() for places in later)


def stream_hash(num_samples: int, length_pool: int, worlds: Sequence[int]) -> str:
    """Of (id, epoch) in the stream's order, put together again from what the ranks get; the world size changes on the
    way, each time in a new process."""
    sizes, size, digest = (30, 41, 22, 60), 24, hashlib.sha256()
    durations = seconds(sum(sizes))
    for start, world in enumerate(worlds):
        order = plan.Order(sizes, 3, size, durations, length_pool)
        for step in range(*plan.rank_share(num_samples // size, len(worlds), start)):
            ids, epochs = order.step(step)
            stream = np.full((size, 2), -1)
            for rank in range(world):
                for places in plan.deal(durations[ids], plan.num_micro_batches(size, 3, world), world)[rank]:
                    stream[places] = np.stack([ids[places], epochs[places]], axis=1)
            digest.update(stream.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("length_pool", [0, 3])
def test_the_stream_is_the_same_for_all_worlds_and_resumes(length_pool: int) -> None:
    """Workers do not appear here: they read what the plan of their rank says."""
    layouts = [(1,), (2,), (3,), (4,), (8,), (2, 4, 1), (1, 1), (8, 3, 2, 1)]
    assert len({stream_hash(24 * 24, length_pool, worlds) for worlds in layouts}) == 1


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
