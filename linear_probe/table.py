"""Frozen features of a whole shard set."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linear_probe.blocks import Block


@dataclass(frozen=True, kw_only=True)
class Table:
    """Features of all N clips of a shard set, over all splits: of train, valid and test, each in the order of its
    shards. Clip `i` has the rows `offsets[i]` to `offsets[i + 1]` of every block."""

    keys: tuple[str, ...]
    """N."""
    offsets: NDArray[np.int64]
    """[N + 1]; 0, 1, ..., N where a row is a clip."""
    blocks: Mapping[Block, NDArray[np.float32]]
    """Block, as it was asked for -> [R, D], or [R, L, D] of a stack; zeros where the clip lacks the modality. Blocks
    that mean the same share one array."""
    present: Mapping[str, NDArray[np.bool_]]
    """Modality that some block reads -> [N], which clips have it."""
