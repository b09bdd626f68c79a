"""Attention of long clips on a CPU, tile by tile: some queries of one head of one clip.

    P = softmax(q k^T / sqrt(E)),    out = c (P * keep) v,    keep: 0 where dropout takes a weight, else 1; c: its scale

torch's product of all heads at once is MKL's, which on AMD is half as fast as oneDNN's (triptych.models.linear); its
fused attention has no dropout on a CPU; and the scores of all heads fit into no cache, and take fresh pages from the
system every time. As in FlashAttention (Dao et al. 2022), no weights are kept for the backward pass: they are computed
again, and dropout is drawn again from its seed.

Legend: b clips, H heads, t and s padded steps of queries and keys, T queries of a tile, S a clip's real keys, E width
of a head.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from triptych.models.linear import product

TILE = 1 << 18
"""Scores of a tile, 1 MiB of them: with 936 keys as fast as all queries at once, and without their page faults."""
FEWEST_QUERIES = 64
"""Of a tile, however many the keys are: products of fewer rows are slow."""

LEVELS = 1 << 16
"""Dropout takes 16 bits of a random number for a weight, for torch's Bernoulli numbers, one a weight, are slow on a
CPU. Its rate is rounded to a multiple of 1 / LEVELS, and what is kept is scaled by that very rate."""

LONG = 1 << 16
"""Scores of a clip and head from which on tiles are faster than all heads at once (200 queries and keys: as fast)."""

Lengths = Sequence[tuple[int, int]]
"""Real queries and keys of each clip."""
Index = tuple[int, int, slice]


def tiles_pay(q_bHtE: Tensor, k_bHsE: Tensor) -> bool:
    """Whether this is the fastest form there is."""
    here = q_bHtE.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return here and q_bHtE.shape[2] * k_bHsE.shape[2] >= LONG


def attend_by_tiles(q_bHtE: Tensor, k_bHsE: Tensor, v_bHsE: Tensor, lengths: Lengths, dropout: float) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q_bHtE: queries.
        k_bHsE: keys.
        v_bHsE: values.
        lengths: real steps, in front of the padding.
        dropout: of the weights; 0 where none is to be dropped.

    Returns:
        [b, H, t, E]: zeros behind a clip's real queries.
    """
    out: Tensor = _ByTiles.apply(q_bHtE, k_bHsE, v_bHsE, lengths, dropout)
    return out


class _ByTiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, lengths: Lengths, dropout: float) -> Tensor:
        seed = int(torch.randint(1 << 32, ())) if dropout else 0
        ctx.save_for_backward(q, k, v)
        ctx.given = lengths, dropout, seed  # type: ignore[attr-defined]
        out, generator = torch.zeros_like(q), Generator().manual_seed(seed)
        for keys, tiles in _heads(q, lengths):
            k_SE, v_SE = k[keys].contiguous(), v[keys] * scale_of(dropout)
            for tile in tiles:
                weights_TS = _weights(q[tile], k_SE)
                if dropout:
                    weights_TS.mul_(kept(weights_TS.shape, dropout, q.dtype, generator))
                out[tile] = product(weights_TS, v_SE)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors  # type: ignore[attr-defined]
        lengths, dropout, seed = ctx.given  # type: ignore[attr-defined]
        d_q, d_k, d_v = (torch.zeros_like(x) for x in (q, k, v))
        generator = Generator().manual_seed(seed)
        for keys, tiles in _heads(q, lengths):
            k_SE, v_SE = k[keys].contiguous(), v[keys].contiguous()
            d_k_ES, d_v_ES = (x.new_zeros(x.shape[::-1]) for x in (k_SE, v_SE))
            for tile in tiles:
                weights_TS = left_TS = _weights(q[tile], k_SE)
                d_out_TE = d_out[tile] * scale_of(dropout)
                d_weights_TS = product(d_out_TE, v_SE.T)
                if dropout:
                    keep_TS = kept(weights_TS.shape, dropout, q.dtype, generator)
                    d_weights_TS.mul_(keep_TS)
                    left_TS = keep_TS.mul_(weights_TS)
                # The wide side stays as it lies: oneDNN would turn it around first.
                d_v_ES += product(d_out_TE.T, left_TS)
                d_scores_TS = torch._softmax_backward_data(d_weights_TS, weights_TS, -1, q.dtype) * _scale(q)
                d_k_ES += product(q[tile].T, d_scores_TS)
                d_q[tile] = product(d_scores_TS, k_SE)
            d_k[keys], d_v[keys] = d_k_ES.T, d_v_ES.T
        return d_q, d_k, d_v, None, None


def _heads(q_bHtE: Tensor, lengths: Lengths) -> Iterator[tuple[Index, list[Index]]]:
    """Where the keys and each tile's queries are, head after head."""
    for clip, (t, s) in enumerate(lengths):
        tiles = -(-t // max(FEWEST_QUERIES, TILE // s))
        edges = [t * tile // tiles for tile in range(tiles + 1)]
        for head in range(q_bHtE.shape[1]):
            yield (clip, head, slice(s)), [(clip, head, slice(*ends)) for ends in pairwise(edges)]


def kept(shape: torch.Size, rate: float, dtype: torch.dtype, generator: Generator) -> Tensor:
    """1 where a weight is kept, and 0 elsewhere."""
    numbers = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    parts = numbers.view(torch.int16)[: shape.numel()].view(shape)
    # into numbers at once, which is faster than by way of booleans
    return torch.ge(parts, _dropped_levels(rate) - LEVELS // 2, out=torch.empty(shape, dtype=dtype))


def scale_of(rate: float) -> float:
    """What the weights that are kept are multiplied by."""
    return LEVELS / (LEVELS - _dropped_levels(rate))


def _dropped_levels(rate: float) -> int:
    return min(round(rate * LEVELS), LEVELS - 1)


def _weights(q_TE: Tensor, k_SE: Tensor) -> Tensor:
    return product(q_TE * _scale(q_TE), k_SE.T).softmax(dim=-1)


def _scale(q: Tensor) -> float:
    return float(q.shape[-1] ** -0.5)
