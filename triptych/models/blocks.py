"""Blocks of the transformers: positions, layers, pools.

Legend: B clips, T steps of the query stream, S steps of the key stream, N and M their real steps in all clips, D width.
Masks are True where something real is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from triptych.batch import Track
from triptych.models.attention import Attention, Packing, Pairs, Short
from triptych.models.linear import Linear
from triptych.models.towers.tower import Steps

Positions = Literal["index", "seconds"]
"""What a step's position is: its number, or the middle of its time span."""

POSITIONS_PER_S = 20.0
"""Positions in seconds count steps of 50 ms, the rate of the stacked LFBE, so that both kinds span a like range."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of every transformer of a system; the defaults are Khare et al. 2021, section 3.1."""

    width: int = 512
    layers: int = 4
    heads: int = 4
    feedforward: int = 200
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width: {self.width} must be a multiple of twice the number of heads ({self.heads})")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: {self.dropout} must lie in [0, 1)")


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5) at any real-valued position.

    Args:
        positions: [...] in steps.
        width: D, even.

    Returns:
        [..., D]: sines in the first half, cosines in the second.
    """
    frequencies = torch.exp(
        torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) * (-math.log(10000.0) / width)
    )
    angles = positions.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def position_vectors(track: Track, kind: Positions, width: int) -> Tensor:
    """[B, T, D] float32 sinusoids of a track's steps."""
    if kind == "seconds":
        return sinusoid(track.times.mean(dim=-1) * POSITIONS_PER_S, width)
    steps = torch.arange(track.mask.shape[1], device=track.mask.device)
    return sinusoid(steps, width).expand(len(track.mask), -1, -1)


class TransformerLayer(nn.Module):
    """`O = LN(x + Attention)`, `S = LN(O + FF(O))`: Khare et al. 2021, Eq. 3.

    The equation prints the residual on V; in a cross-modal layer V has the source's length, so the residual is on the
    query stream, which in a self-attention layer is the same thing.
    """

    def __init__(
        self,
        config: TransformerConfig,
        short: Short | None = None,
        source_width: int | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        """Build it; for `short` and `source_width` see Attention."""
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.dropout, short, source_width)
        self.attention_norm = nn.LayerNorm(config.width)
        self.feedforward = nn.Sequential(
            Linear(config.width, config.feedforward), activation(), Linear(config.feedforward, config.width)
        )
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_ND: Tensor, queries_ND: Tensor, keys_MD: Tensor, values_MD: Tensor, pairs: Pairs) -> Tensor:
        """[N, D] from the query stream; for the rest see Attention."""
        x_ND = self.attention_norm(x_ND + self.dropout(self.attention(queries_ND, keys_MD, values_MD, pairs)))
        return self.feedforward_norm(x_ND + self.dropout(self.feedforward(x_ND)))


@dataclass(frozen=True)
class Source:
    """Another stream, for a cross-modal stack to attend to."""

    sequence: Tensor
    """[B, S, D]"""
    mask: Tensor
    """[B, S] bool."""
    positions: tuple[Tensor, Tensor] | None = None
    """[B, T, D] and [B, S, D], added in every layer to what queries and keys are projected from (not to the values)."""


class TransformerStack(nn.ModuleList):
    """Layers one after the other, over the real steps alone: padding is neither computed nor seen."""

    def __init__(
        self,
        config: TransformerConfig,
        short: Short | None = None,
        source_width: int | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        """Build it; for `short` and `source_width` see Attention."""
        super().__init__(TransformerLayer(config, short, source_width, activation) for _ in range(config.layers))
        self.activation_checkpointing = False

    def forward(
        self, x_BTD: Tensor, mask_BT: Tensor, source: Source | None = None, layers: list[Steps] | None = None
    ) -> Tensor:
        """Attend to the stream itself, or to a source.

        Args:
            x_BTD: the stream.
            mask_BT: its real steps.
            source: of a cross-modal stack.
            layers: see Tower.forward.

        Returns:
            [B, T, D]: zeros at padding, and in clips that lack one of the two streams.
        """
        if source is None:
            own = other = Packing(mask_BT)
        else:
            both_B1 = (mask_BT.any(dim=1) & source.mask.any(dim=1))[:, None]
            own, other = Packing(mask_BT & both_B1), Packing(source.mask & both_B1)
        pairs = Pairs(own.lengths, other.lengths, mask_BT.device)
        x_ND, at_queries, values, keys = own.pack(x_BTD), None, None, None
        if source is not None:
            keys = values = other.pack(source.sequence)
            if source.positions is not None:
                at_queries, keys = own.pack(source.positions[0]), values + other.pack(source.positions[1])
        if layers is not None:
            layers.append(Steps(own.pad(x_ND), own.mask))
        for layer in self:
            queries = x_ND if at_queries is None else x_ND + at_queries
            streams = (x_ND, queries, queries if keys is None else keys, x_ND if values is None else values, pairs)
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_ND = checkpoint(layer, *streams, use_reentrant=False)
            else:
                x_ND = layer(*streams)
            if layers is not None:
                layers.append(Steps(own.pad(x_ND), own.mask))
        return own.pad(x_ND)


def mean_pool(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, D] mean over real steps; zeros for a clip without any."""
    weights = mask_BT.to(x_BTD.dtype)[..., None]
    return (x_BTD * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def span_means(x_BSD: Tensor, mask_BS: Tensor, times_BS2: Tensor, spans_BT2: Tensor) -> Tensor:
    """Mean of the steps that overlap each span of time at all, or, where none does, of the nearest.

    Args:
        x_BSD: the steps.
        mask_BS: which are real.
        times_BS2: start and end of what each was computed from, in seconds.
        spans_BT2: start and end of each span, in seconds.

    Returns:
        [B, T, D]: zeros in a clip without real steps.
    """
    starts_BT1, ends_BT1 = (edge[..., None] for edge in spans_BT2.unbind(-1))
    steps_B1S, stops_B1S = (edge[:, None] for edge in times_BS2.unbind(-1))
    real_B1S = mask_BS[:, None]
    # seconds between a span and a step, negative where they overlap
    gaps_BTS = torch.maximum(steps_B1S - ends_BT1, starts_BT1 - stops_B1S).masked_fill(~real_B1S, torch.inf)
    nearest_BT1 = gaps_BTS.amin(dim=-1, keepdim=True)
    taken_BTS = ((gaps_BTS < 0) | ((nearest_BT1 >= 0) & (gaps_BTS == nearest_BT1))) & real_B1S
    return taken_BTS.to(x_BSD.dtype) @ x_BSD / taken_BTS.sum(dim=-1, keepdim=True).clamp(min=1)


def segment_pool(x_BTD: Tensor, mask_BT: Tensor, segments: int) -> Tensor:
    """Means over equal parts of each clip side by side, so that the order of what happens is kept; one is mean_pool.

    Real step `i` of a clip's `n` belongs to part `floor(i * segments / n)`: the parts follow the clip's own length, not
    the batch's. A clip with fewer steps than segments leaves some parts without any.

    Args:
        x_BTD: the steps.
        mask_BT: which are real.
        segments: number of parts.

    Returns:
        [B, segments * D], the first part first; zeros for a part without a step.
    """
    index = mask_BT.cumsum(dim=1) - 1
    part_BT = index * segments // mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([mean_pool(x_BTD, mask_BT & (part_BT == part)) for part in range(segments)], dim=1)
