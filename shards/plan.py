"""Which samples a rank sees when: pure functions of a few integers, the same on every machine. NumPy only.

A sample id counts the samples of a split in the order of its shards. Position `p` of the training stream is sample
`epoch_order(epoch)[p % N]` of epoch `p // N`; optimizer step `s` takes positions `s * G` to `(s + 1) * G - 1`, whatever
the ranks and workers. The step is therefore the only state, and resuming reads nothing twice.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from triptych.config import UserError

SHARDS_PER_BLOCK = 16
"""Samples are shuffled across this many shards: neighbours come from different shards (a corpus is written speaker by
speaker), while reads stay within a few files at a time."""


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """The order of all sample ids in one epoch, each exactly once.

    Shards are permuted, grouped into near-equal blocks of at most SHARDS_PER_BLOCK, and samples are permuted within a
    block. Ranks by raw Philox output, whose bits NumPy guarantees; it promises no such thing for `permutation`.

    Args:
        shard_sizes: number of samples of each shard, in the manifest's order.
        seed: of the run.
        epoch: from 0.

    Returns:
        [N] int64, read-only.
    """
    return _epoch_order(tuple(shard_sizes), seed, epoch)


@lru_cache(maxsize=2)  # a step straddles at most two epochs; an order of a million clips takes a good tenth of a second
def _epoch_order(shard_sizes: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    random = np.random.Philox(key=np.array([seed % 2**64, epoch], dtype=np.uint64))
    shards = np.argsort(random.random_raw(len(sizes)), kind="stable")
    num_blocks = -(-len(sizes) // SHARDS_PER_BLOCK)
    block_of_shard = np.empty(len(sizes), dtype=np.int64)
    for block, (start, stop) in enumerate(split_share(len(sizes), num_blocks)):
        block_of_shard[shards[start:stop]] = block
    block_of_sample = np.repeat(block_of_shard, sizes)
    order = np.lexsort((random.random_raw(len(block_of_sample)), block_of_sample)).astype(np.int64)
    order.setflags(write=False)
    return order


def step_samples(shard_sizes: Sequence[int], seed: int, global_batch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The global batch of one optimizer step.

    Returns:
        Sample ids and their epochs, both [global_batch] int64.
    """
    total = sum(shard_sizes)
    positions = np.arange(step * global_batch, (step + 1) * global_batch, dtype=np.int64)
    epochs = positions // total
    ids = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        now = epochs == epoch
        ids[now] = epoch_order(shard_sizes, seed, epoch)[positions[now] % total]
    return ids, epochs


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
