"""Which samples a rank sees when: pure functions of a few integers, the same on every machine. NumPy only.

A sample id counts the samples of a split in the order of its shards. Position `p` of the training stream is sample
`Order.epoch(p // N)[p % N]`; optimizer step `s` takes positions `s * G` to `(s + 1) * G - 1`, whatever the ranks and
workers. The step is therefore the only state, and resuming reads nothing twice.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from triptych.config import UserError

SHARDS_PER_BLOCK = 16
"""Samples are shuffled across this many shards at a time, so that reads stay within a few files. The writer has mixed
the clips of all speakers: two clips of a batch are then of one speaker as often as in a uniform shuffle (8.3e-4 of
pairs in both, measured on 220 shards of 1,200 speakers). Without that mixing: 13 times."""


class Order:
    """The endless training stream of a split, the same for every world size.

    Where every batch takes what comes next, a batch is as long as its longest clip and more than half of it may be
    padding. With `length_pool` K, each K consecutive global batches of an epoch are sorted by length together, cut
    into batches again, and these come in random order: batches of like length, every clip still once an epoch. A pool
    is bounded, as one over the whole epoch would put the same neighbours in length together in every epoch, and each
    batch would read from all shards. Even so the clips of a batch are no random sample: contrastive negatives are of
    like length, so that length tells nothing about a pair (and a clip of 4 s never meets one of 20 s); to a loss that
    looks at batch statistics, batches differ more from each other than they did.

    Args:
        shard_sizes: number of samples of each shard, in the manifest's order.
        seed: of the run.
        global_batch: clips of an optimizer step.
        durations: [N] seconds, read only where there is a pool.
        length_pool: global batches of a pool; 0 and 1 leave the shuffled order as it is.
    """

    def __init__(
        self, shard_sizes: Sequence[int], seed: int, global_batch: int, durations: np.ndarray, length_pool: int = 0
    ) -> None:
        self._sizes = tuple(shard_sizes)
        self._seed = seed
        self._batch = global_batch
        self._durations = durations
        self._pool = length_pool
        # A step straddles at most two epochs; an order of a million clips takes a quarter of a second.
        self._epochs = lru_cache(maxsize=2)(self._draw)

    def epoch(self, epoch: int) -> np.ndarray:
        """[N] int64, read-only: all sample ids, each exactly once."""
        return self._epochs(epoch)

    def step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample ids of an optimizer step and their epochs, both [global_batch] int64."""
        total = sum(self._sizes)
        positions = np.arange(step * self._batch, (step + 1) * self._batch, dtype=np.int64)
        epochs = positions // total
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            ids[now] = self.epoch(epoch)[positions[now] % total]
        return ids, epochs

    def _draw(self, epoch: int) -> np.ndarray:
        order = epoch_order(self._sizes, self._seed, epoch)
        if self._pool > 1:
            order = self._by_length(order, epoch)
        order.setflags(write=False)
        return order

    def _by_length(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """Pool the global batches that lie in this epoch; one that it shares with a neighbouring epoch stays as it is,
        since its other clips are of another order."""
        shared = -epoch * len(order) % self._batch  # first clips of this epoch, in a batch that the last one began
        num_batches = (len(order) - shared) // self._batch
        # A part of the generator's sequence that `epoch_order` never reaches.
        ranks = _random(self._seed, epoch, stream=1).random_raw(num_batches)
        order = order.copy()
        for first, last in split_share(num_batches, -(-num_batches // self._pool)):
            place = slice(shared + first * self._batch, shared + last * self._batch)
            ids = order[place]
            batches = ids[np.argsort(self._durations[ids], kind="stable")].reshape(-1, self._batch)
            order[place] = batches[np.argsort(ranks[first:last], kind="stable")].reshape(-1)
        return order


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """The shuffled order of all sample ids in one epoch, each exactly once.

    Shards are permuted, grouped into near-equal blocks of at most SHARDS_PER_BLOCK, and samples are permuted within a
    block. Ranks by raw Philox output, whose bits NumPy guarantees; it promises no such thing for `permutation`.

    Args:
        shard_sizes: number of samples of each shard, in the manifest's order.
        seed: of the run.
        epoch: from 0.

    Returns:
        [N] int64.
    """
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    random = _random(seed, epoch)
    shards = np.argsort(random.random_raw(len(sizes)), kind="stable")
    ranks = random.random_raw(int(sizes.sum()))
    parts = []
    for first, last in split_share(len(sizes), -(-len(sizes) // SHARDS_PER_BLOCK)):
        # Block by block takes a third of the time of sorting all samples by (block, rank).
        members = [np.arange(starts[shard], starts[shard] + sizes[shard]) for shard in np.sort(shards[first:last])]
        ids = np.concatenate(members)
        parts.append(ids[np.argsort(ranks[ids], kind="stable")])
    return np.concatenate(parts)


def _random(seed: int, epoch: int, stream: int = 0) -> np.random.Philox:
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    return np.random.Philox(key=np.array([seed % 2**64, epoch], dtype=np.uint64), counter=counter)


def deal(durations: np.ndarray, num_micro_batches: int, world: int) -> list[list[np.ndarray]]:
    """Share a global batch out: clips of like length into a micro-batch, and like amounts of work to each rank.

    Clips go from the longest to the shortest into the ranks' first micro-batches, then into their second ones in the
    opposite order of ranks, and so on: what ranks do at the same time is of like length, and who had the longest clips
    of one round gets the shortest of the next. Losses are sums over the global batch, so that it changes no result
    which rank computes what. Inside a micro-batch clips stand in the order of the stream.

    Args:
        durations: [G] of the clips of a global batch.
        num_micro_batches: of each rank, see `num_micro_batches`.
        world: number of ranks.

    Returns:
        Rank -> micro-batch -> ascending positions in the global batch. The ranks' numbers of clips differ by at most
        one (`rank_share`), and so do those of a rank's micro-batches.
    """
    longest_first = np.argsort(-durations, kind="stable")
    shares = [rank_share(len(durations), world, rank) for rank in range(world)]
    sizes = [[last - first for first, last in split_share(stop - start, num_micro_batches)] for start, stop in shares]
    dealt: list[list[np.ndarray]] = [[] for _ in range(world)]
    taken = 0
    for turn in range(num_micro_batches):
        for rank in range(world) if turn % 2 == 0 else reversed(range(world)):
            size = sizes[rank][turn]
            dealt[rank].append(np.sort(longest_first[taken : taken + size]))
            taken += size
    return dealt


def rank_share(total: int, world: int, rank: int) -> tuple[int, int]:
    """Start and stop of a rank's contiguous share of `total` items; shares differ by at most one item."""
    return rank * total // world, (rank + 1) * total // world


def split_share(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut `count` items into contiguous near-equal (start, stop) pieces; none is empty if `count >= parts`."""
    return [rank_share(count, parts, part) for part in range(parts)]


def num_micro_batches(global_batch: int, micro_batch: int, world: int) -> int:
    """Micro-batches of one optimizer step, the same on every rank.

    Raises:
        UserError: a rank, or a micro-batch of a rank, would get no clip.
    """
    if global_batch < 1 or micro_batch < 1:
        raise UserError(f"global_batch {global_batch} and micro_batch {micro_batch} must both be at least 1")
    if global_batch < world:
        raise UserError(
            f"global_batch {global_batch} is less than the number of ranks ({world}), so that some rank would get "
            f"nothing: raise global_batch to at least {world} or start fewer ranks"
        )
    smallest, largest = global_batch // world, -(-global_batch // world)
    num = -(-largest // micro_batch)
    if num > smallest:  # only micro_batch 1 with unequal shares
        raise UserError(
            f"global_batch {global_batch} over {world} ranks gives shares of {smallest} and {largest} clips; with "
            f"micro_batch {micro_batch} that is {num} micro-batches, and the smaller share would leave one empty: "
            f"raise micro_batch to 2 or make global_batch a multiple of {world}"
        )
    return num


def check_fits(num_samples: int, global_batch: int, split: str) -> None:
    """Refuse a global batch that would hold a clip twice.

    Raises:
        UserError: the split has fewer clips than a global batch.
    """
    if num_samples < global_batch:
        raise UserError(
            f"the split {split!r} has {num_samples} clips and global_batch is {global_batch}, so that one step would "
            f"hold a clip twice: lower global_batch to at most {num_samples} or write more clips"
        )


def evaluation_batches(num_samples: int, batch_size: int, world: int, rank: int) -> list[tuple[int, int]]:
    """A rank's batches of a split as (start, stop) sample ids: over all ranks every sample exactly once.

    Every rank gets the same number of batches, none empty. Where a batch size of 1 meets unequal shares, some batches
    hold two clips.

    Raises:
        UserError: fewer samples than ranks.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    if num_samples < world:
        raise UserError(
            f"{num_samples} clips to evaluate are less than the number of ranks ({world}), so that some rank would get "
            f"nothing: start at most {num_samples} ranks or write more clips into this split"
        )
    smallest, largest = num_samples // world, -(-num_samples // world)
    start, stop = rank_share(num_samples, world, rank)
    parts = split_share(stop - start, min(-(-largest // batch_size), smallest))
    return [(start + first, start + last) for first, last in parts]
