"""Blocks of the transformers: positions, attention, layers.

Legend: B clips, T steps of the query stream, S steps of the key stream, D width, H heads.
Masks are True where something real is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from triptych.batch import Track

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
        steps = track.times.mean(dim=-1) * POSITIONS_PER_S
    else:
        steps = torch.arange(track.mask.shape[1], device=track.mask.device)[None].expand(track.mask.shape)
    return sinusoid(steps, width)


class Attention(nn.Module):
    """Multi-head attention; a clip without a single real key gets zeros, not NaN."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def start_keys_as_queries(self) -> None:
        """Give the key projection the query's weights: equal positions then attend to each other from the start."""
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)
            self.key.bias.copy_(self.query.bias)

    def forward(
        self,
        queries_BTD: Tensor,
        keys_BSD: Tensor,
        mask_BS: Tensor,
        positions: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            queries_BTD: the query stream.
            keys_BSD: the stream of keys and values.
            mask_BS: which keys are real.
            positions: [B, T, D] and [B, S, D] added to what queries and keys are projected from (not to the values).

        Returns:
            [B, T, D].
        """
        at_queries, at_keys = positions if positions is not None else (0.0, 0.0)
        q = self._split(self.query(queries_BTD + at_queries))
        k = self._split(self.key(keys_BSD + at_keys))
        v = self._split(self.value(keys_BSD))
        real = mask_BS.any(dim=1)[:, None, None]  # [B, 1, 1]
        mask = (mask_BS | ~real[:, 0])[:, None, None, :]  # an empty row may not be all False: its softmax would be NaN
        attended = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        attended = attended.transpose(1, 2).flatten(2)
        return self.output(attended) * real

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """`O = LN(x + Attention)`, `S = LN(O + FF(O))`: Khare et al. 2021, Eq. 3.

    The equation prints the residual on V; in a cross-modal layer V has the source's length, so the residual is on the
    query stream, which in a self-attention layer is the same thing.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.dropout)
        self.attention_norm = nn.LayerNorm(config.width)
        self.feedforward = nn.Sequential(
            nn.Linear(config.width, config.feedforward), nn.ReLU(), nn.Linear(config.feedforward, config.width)
        )
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTD: Tensor, source_BSD: Tensor, mask_BS: Tensor, positions: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """[B, T, D] from the query stream and the source (itself in a self-attention layer); see Attention."""
        attended = self.attention(x_BTD, source_BSD, mask_BS, positions)
        x_BTD = self.attention_norm(x_BTD + self.dropout(attended))
        return self.feedforward_norm(x_BTD + self.dropout(self.feedforward(x_BTD)))


class TransformerStack(nn.ModuleList):
    """Layers one after the other."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(TransformerLayer(config) for _ in range(config.layers))
        self.activation_checkpointing = False

    def forward(
        self,
        x_BTD: Tensor,
        mask_BS: Tensor,
        source_BSD: Tensor | None = None,
        positions: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[B, T, D]; without a source the stream attends to itself. For the rest see Attention."""
        for layer in self:
            source = x_BTD if source_BSD is None else source_BSD
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, source, mask_BS, positions, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, source, mask_BS, positions)
        return x_BTD


def mean_pool(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, D] mean over real steps; zeros for a clip without any."""
    weights = mask_BT.to(x_BTD.dtype)[..., None]
    return (x_BTD * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


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
