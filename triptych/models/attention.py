"""Multi-head attention over packed steps: the real ones of all clips, one after the other, and no padding.

    head h of query t:  a_h = sum over s of softmax_s(q_h . k_h,s / sqrt(E)) v_h,s,   q = W_q x + b_q and so on
    output:             sum over h of W_o,h a_h + b_o

Where one side has few steps (words, beside frames of sound or picture), the projections of the other side can be left
out: matrix products may be taken in any order. With few queries, W_k and W_v move to their side:

    q_h . k_h,s = (W_k,h^T q_h) . x_s + const,     a_h = W_v,h (sum over s of p_h,s x_s) + b_v,h sum over s of p_h,s

and with few keys, W_q and W_o to theirs, in the same way. It is the same function. Of the D^2 multiplications of a
projection, HT a number of the long side are left where the short side has T steps.

Legend: B clips, T steps of queries, S of keys, N real ones of queries, M of keys, D width, H heads, E = D / H.
Masks are True where something real is.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.models.linear import Linear
from triptych.models.long_attention import attend_by_tiles, tiles_pay

Short = Literal["queries", "keys"]
"""Which side of an attention has few steps."""

SCORES_OF_A_CALL = 2048
"""Scores that take as long as what a CPU spends around one more call, forward and backward."""


class Packing:
    """Where the real steps of a batch are."""

    def __init__(self, mask_BT: Tensor) -> None:
        self.mask = mask_BT
        self.lengths: list[int] = mask_BT.sum(dim=1).tolist()
        self.is_full = sum(self.lengths) == mask_BT.numel()
        self._places = torch.empty(0) if self.is_full else mask_BT.flatten().nonzero()[:, 0]

    def pack(self, x_BTD: Tensor) -> Tensor:
        """[N, ...] of [B, T, ...]: clip after clip."""
        x = x_BTD.flatten(0, 1)
        return x if self.is_full else x.index_select(0, self._places)

    def pad(self, x_ND: Tensor) -> Tensor:
        """[B, T, ...] of [N, ...], with zeros where nothing is."""
        if not self.is_full:
            space = x_ND.new_zeros(self.mask.numel(), *x_ND.shape[1:])
            x_ND = space.index_copy(0, self._places, x_ND)
        return x_ND.unflatten(0, self.mask.shape)


class Pairs:
    """Which packed steps attend to which: those of a clip to those of the same clip."""

    def __init__(self, queries: Sequence[int], keys: Sequence[int], device: torch.device) -> None:
        """Group the clips.

        Args:
            queries: steps of each clip; none of one that is left out.
            keys: likewise, with the same clips left out.
            device: of the steps; a GPU gets all clips at once, a CPU as few scores of padding as pays.
        """
        lengths = [(t, s) for t, s in zip(queries, keys, strict=True) if t]
        spare = SCORES_OF_A_CALL if device.type == "cpu" else float("inf")
        sides = [tuple(zip(*clips, strict=True)) for clips in group(lengths, spare)]
        self.groups = [(_packing(ts, device), _packing(ss, device)) for ts, ss in sides]
        self._sizes = [sum(ts) for ts, _ in sides], [sum(ss) for _, ss in sides]
        self._clips = [number for number, t in enumerate(queries) if t]

    def clips(self) -> list[int | None]:
        """Clip after clip of the groups, its number in the batch; None of one whose result means nothing."""
        return [*self._clips]

    def split(self, *sides: Tensor) -> list[tuple[Tensor, ...]]:
        """Group -> [b, t or s, ...] of the queries' tensor and the keys' tensors, padded."""
        parts = [x.split(self._sizes[min(number, 1)]) for number, x in enumerate(sides)]
        return [
            (rows.pad(of_queries), *(columns.pad(x) for x in of_keys))
            for (rows, columns), of_queries, *of_keys in zip(self.groups, *parts, strict=True)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """[N, ...] of the groups' [b, t, ...]; there must be a group."""
        return torch.cat([rows.pack(part) for (rows, _), part in zip(self.groups, parts, strict=True)])


class SingleQueries(Pairs):
    """One query of each clip, and its keys where they lie: [B, D] and [B, S, D], padding included, without any copy.

    A clip without a key attends to its padding, evenly or not: it gets finite numbers that mean nothing.
    """

    def __init__(self, mask_BS: Tensor) -> None:
        """Take the mask of the keys."""
        rows = Packing(mask_BS.new_ones(len(mask_BS), 1))
        self._has_keys = mask_BS.any(dim=1)
        self.groups = [(rows, Packing(mask_BS | ~self._has_keys[:, None]))]

    def clips(self) -> list[int | None]:
        """See Pairs."""
        return [number if has else None for number, has in enumerate(self._has_keys.tolist())]

    def split(self, *sides: Tensor) -> list[tuple[Tensor, ...]]:
        """See Pairs; queries [B, ...], keys and values [B, S, ...]."""
        queries, *keys = sides
        return [(queries[:, None], *keys)]


def group(lengths: Sequence[tuple[int, int]], spare: float) -> list[list[tuple[int, int]]]:
    """Put neighbouring clips together where a call less saves more than the padding costs.

    Args:
        lengths: of the queries and keys of each clip.
        spare: scores that a call is worth.

    Returns:
        The clips' lengths, group by group, in the same order.
    """
    groups: list[list[tuple[int, int]]] = []
    for clip in lengths:
        joined = [*groups[-1], clip] if groups else [clip]
        real = sum(t * s for t, s in joined)
        padded = len(joined) * max(t for t, _ in joined) * max(s for _, s in joined)
        if groups and padded - real <= spare * (len(joined) - 1):
            groups[-1] = joined
        else:
            groups.append([clip])
    return groups


def _packing(lengths: Sequence[int], device: torch.device) -> Packing:
    steps = torch.arange(max(lengths))
    return Packing((steps < torch.tensor(lengths)[:, None]).to(device))


class Attention(nn.Module):
    """Multi-head attention of packed steps."""

    def __init__(
        self, width: int, heads: int, dropout: float, short: Short | None = None, source_width: int | None = None
    ) -> None:
        """Build it.

        Args:
            width: D, of the queries and of what comes out.
            heads: of attention; they divide the width.
            dropout: of the attention weights.
            short: the side that has so few steps that the other one's projections are left out.
            source_width: of keys and values, where another one than the queries'.
        """
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.short = short
        self.scale = (width // heads) ** -0.5
        self.query = Linear(width, width)
        self.key = Linear(source_width or width, width)
        self.value = Linear(source_width or width, width)
        self.output = Linear(width, width)

    def start_keys_as_queries(self) -> None:
        """Give the key projection the query's weights: equal positions then attend to each other from the start."""
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)
            self.key.bias.copy_(self.query.bias)

    def forward(self, queries_ND: Tensor, keys_MD: Tensor, values_MD: Tensor, pairs: Pairs) -> Tensor:
        """Attend.

        Args:
            queries_ND: what the queries are projected from.
            keys_MD: what the keys are projected from.
            values_MD: what the values are projected from.
            pairs: which attends to which.

        Returns:
            [N, D].
        """
        if not pairs.groups:  # all weights take part even so, in the same order, as ZeRO stages 2 and 3 want
            maps = [(self.query, queries_ND), (self.key, keys_MD), (self.value, values_MD)]
            if self.short == "keys":
                maps[:2] = maps[1::-1]
            return self.output(queries_ND + sum(part(x).sum() for part, x in maps))
        if self.short == "queries":
            return self._few_queries(queries_ND, keys_MD, values_MD, pairs)
        if self.short == "keys":
            return self._few_keys(queries_ND, keys_MD, values_MD, pairs)
        q, k, v = self.query(queries_ND), self.key(keys_MD), self.value(values_MD)
        attended, rate = [], self.dropout if self.training else 0.0
        for (rows, columns), group in zip(pairs.groups, pairs.split(q, k, v), strict=True):
            q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in group)  # [b, H, t or s, E]
            mask = None if columns.is_full else columns.mask[:, None, None]
            if tiles_pay(q, k):
                mixed = attend_by_tiles(q, k, v, [*zip(rows.lengths, columns.lengths, strict=True)], rate)
            elif rate and q.device.type == "cpu":  # where the fused attention has no dropout
                mixed = self._softmax((q * self.scale) @ k.mT, mask) @ v
            else:
                mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
            attended.append(mixed.transpose(1, 2))
        return self.output(pairs.join(attended).flatten(1))

    def _few_queries(self, queries_ND: Tensor, keys_MD: Tensor, values_MD: Tensor, pairs: Pairs) -> Tensor:
        q_NHE = self.query(queries_ND).unflatten(-1, (self.heads, -1)) * self.scale

        def to_keys(q_NHE: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            # The keys' bias shifts all scores of a query alike, which a softmax does not see: its gradient is 0.
            return _head_by_head(q_NHE, weight.unflatten(0, (self.heads, -1))) + 0 * bias.sum()

        mixed, weighed = [], []
        groups = pairs.split(self.key(q_NHE, to_keys), keys_MD, values_MD)
        for (_, columns), (q_btHD, keys_bsD, values_bsD) in zip(pairs.groups, groups, strict=True):
            scores = q_btHD.flatten(1, 2) @ keys_bsD.mT  # [b, tH, s]
            weights = self._softmax(scores, None if columns.is_full else columns.mask[:, None])
            mixed.append((weights @ values_bsD).unflatten(1, (-1, self.heads)))
            weighed.append(weights.sum(dim=-1).unflatten(1, (-1, self.heads)))  # 1 but for dropout
        weighed_NH = pairs.join(weighed)

        def of_values(mixed_NHD: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            values_NHE = _head_by_head(mixed_NHD, weight.unflatten(0, (self.heads, -1)).mT)
            return values_NHE + weighed_NH[..., None] * bias.unflatten(0, (self.heads, -1))

        return self.output(self.value(pairs.join(mixed), of_values).flatten(1))

    def _few_keys(self, queries_ND: Tensor, keys_MD: Tensor, values_MD: Tensor, pairs: Pairs) -> Tensor:
        def to_queries(k_MHE: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            constant_MH1 = (k_MHE * bias.unflatten(0, (self.heads, -1))).sum(dim=-1, keepdim=True)
            return torch.cat([_head_by_head(k_MHE, weight.unflatten(0, (self.heads, -1))), constant_MH1], dim=-1)

        def to_outputs(v_MHE: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            # A clone, as ZeRO stage 3 takes the weights back after this call.
            return _head_by_head(v_MHE, weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)), bias.clone()

        k_MHE = self.key(keys_MD).unflatten(-1, (self.heads, -1)) * self.scale
        k_MHX = self.query(k_MHE, to_queries)  # X is D, and the constant
        v_MHD, bias = self.output(self.value(values_MD).unflatten(-1, (self.heads, -1)), to_outputs)
        mixed = []
        for (_, columns), (x_btD, k_bsHX, v_bsHD) in zip(
            pairs.groups, pairs.split(queries_ND, k_MHX, v_MHD), strict=True
        ):
            k_bRX = k_bsHX.transpose(1, 2).flatten(1, 2)  # R is H times s, a head after the other
            scores = x_btD @ k_bRX[..., :-1].mT + k_bRX[..., -1][:, None]  # [b, t, R]
            mask = None if columns.is_full else columns.mask[:, None, None]
            weights = self._softmax(scores.unflatten(-1, (self.heads, -1)), mask)
            mixed.append(weights.flatten(2) @ v_bsHD.transpose(1, 2).flatten(1, 2))
        return pairs.join(mixed) + bias

    def _softmax(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return functional.dropout(scores.softmax(dim=-1), self.dropout, self.training)


def _head_by_head(x_NHA: Tensor, weight_HAC: Tensor) -> Tensor:
    """[N, H, C]: every head by its own matrix."""
    return torch.bmm(x_NHA.transpose(0, 1), weight_HAC).transpose(0, 1)
