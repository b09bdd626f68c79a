"""MulT, Tsai et al. 2019, "Multimodal Transformer for Unaligned Multimodal Language Sequences": the reference model.

    x_m          = positions + sqrt(D) W_m features                         linear, without a bias
    z_n->m       = crossmodal transformer: queries from m, keys and values from n, for every ordered pair
    z_m          = self-attention transformer over the z_n->m side by side, (M - 1) D wide
    h            = the last elements of all z_m side by side
    outputs      = W (h + fc(ReLU(fc(h))))

MulT's layers normalise first (pre-norm), one norm serving a stream and its source, and a transformer normalises once
more at its end; triptych.models.blocks has the post-norm layers of the other systems, so MulT has its own here, over
the same attention. Their sizes are the published code's, and so is the number of weights: 1,073,731 for MOSEI's
features of 300, 74 and 35 numbers.

What is ours. Padding is no step: their code pads in front, with zeros that attend and are attended to. Every step sees
the whole clip: by default their code hides later steps, though the last element is the summary either way. The same
dropout for all modalities' attention: they have it for text only. Sinusoids as in triptych.models.blocks, for all
steps: they leave out those whose first number is 0. The input layer is a convolution of one step, as in their code; the
paper speaks of wider ones.

A clip may lack modalities (theirs never do): where n is absent, no attention takes part in z_n->m, and what is left is
m through the feed-forward layers; an absent m gives zeros. A single modality goes through its self-attention
transformer alone.

Legend: B clips, T steps, N real steps of all clips, S steps of the source, D width, E outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from triptych.models.attention import Attention, Packing, Pairs
from triptych.models.blocks import Source, mean_pool, sinusoid
from triptych.models.linear import Linear

GROWTH = 4
"""Feed-forward width over the width of a stream."""


@dataclass(frozen=True, kw_only=True)
class MultConfig:
    """Sizes; the defaults are those of the published code."""

    width: int = 30
    """Of a modality's stream in the crossmodal transformers."""
    layers: int = 5
    """Of every transformer."""
    heads: int = 5
    dropout: float = 0.1
    """Of attention weights, behind the ReLU, and of what a layer adds."""
    embedding_dropout: float = 0.25
    """Of what enters a transformer."""
    pool: Literal["last", "mean"] = "last"
    """last: a clip's last step, as published. mean: over its steps (ours)."""

    def __post_init__(self) -> None:
        for name in ("layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"mult.{name}: {getattr(self, name)} must be at least 1")
        if self.width < 1 or self.width % 2 or self.width % self.heads:
            raise ValueError(f"mult.width: {self.width} must be even, and a multiple of the heads ({self.heads})")
        for name in ("dropout", "embedding_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"mult.{name}: {getattr(self, name)} must lie in [0, 1)")


class PreNormLayer(nn.Module):
    """`x + Attention(LN x)`, then `x + FF(LN x)`."""

    def __init__(self, width: int, config: MultConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, config.dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            Linear(width, GROWTH * width), nn.ReLU(), nn.Dropout(config.dropout), Linear(GROWTH * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_ND: Tensor, source_MD: Tensor | None, asking: Tensor | None, pairs: Pairs) -> Tensor:
        """[N, D] from the stream.

        Args:
            x_ND: the stream.
            source_MD: what a crossmodal layer attends to.
            asking: places of the steps that have something to attend to; None means all.
            pairs: which of them attends to which.
        """
        queries = self.attention_norm(x_ND)
        keys = queries if source_MD is None else self.attention_norm(source_MD)
        if asking is None:
            attended = self.attention(queries, keys, keys, pairs)
        else:
            part = self.attention(queries[asking], keys, keys, pairs)
            attended = part.new_zeros(queries.shape).index_copy(0, asking, part)
        x_ND = x_ND + self.dropout(attended)
        return x_ND + self.dropout(self.feedforward(self.feedforward_norm(x_ND)))


class PreNormStack(nn.Module):
    """Positions, layers, a last norm; over the real steps alone."""

    def __init__(self, width: int, config: MultConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PreNormLayer(width, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.embedding_dropout)

    def forward(self, stream: Source, source: Source | None = None) -> Tensor:
        """[B, T, D]; zeros at padding. Where a clip lacks the source, its layers go without attention."""
        own = Packing(stream.mask)
        x_ND = own.pack(self._placed(stream.sequence))
        if source is None:
            source_MD = asking = None
            pairs = Pairs(own.lengths, own.lengths, stream.mask.device)
        else:
            both_B1 = (stream.mask.any(dim=1) & source.mask.any(dim=1))[:, None]
            queries, keys = Packing(stream.mask & both_B1), Packing(source.mask & both_B1)
            source_MD = keys.pack(self._placed(source.sequence))
            pairs = Pairs(queries.lengths, keys.lengths, stream.mask.device)
            asking = own.pack(both_B1.expand_as(stream.mask)).nonzero()[:, 0]
        for layer in self.layers:
            x_ND = layer(x_ND, source_MD, asking, pairs)
        return own.pad(self.norm(x_ND))

    def _placed(self, x_BTD: Tensor) -> Tensor:
        steps = torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device)  # from 1, as theirs
        placed: Tensor = self.dropout(math.sqrt(x_BTD.shape[-1]) * x_BTD + sinusoid(steps, x_BTD.shape[-1]).to(x_BTD))
        return placed


class Mult(nn.Module):
    """The whole model, of any number of modalities."""

    def __init__(self, config: MultConfig, widths: Mapping[str, int], num_outputs: int) -> None:
        """Build it.

        Args:
            config: sizes.
            widths: modality -> width of its features, at least one.
            num_outputs: E.
        """
        super().__init__()
        self.config = config
        self.names = tuple(widths)
        self.inputs = nn.ModuleDict({name: Linear(width, config.width, bias=False) for name, width in widths.items()})
        self.crossmodal = nn.ModuleDict(
            {
                f"{name}_from_{other}": PreNormStack(config.width, config)
                for name in widths
                for other in self._others(name)
            }
        )
        wide = max(1, len(self.names) - 1) * config.width
        self.memory = nn.ModuleDict({name: PreNormStack(wide, config) for name in widths})
        together = wide * len(self.names)
        self.residual = nn.Sequential(Linear(together, together), nn.ReLU(), Linear(together, together))
        self.output = Linear(together, num_outputs)

    def forward(self, sources: Mapping[str, Source]) -> Tensor:
        """[B, E].

        Args:
            sources: modality -> its features [B, T, width] and which steps are real; a clip that lacks it has none.
                What lies at padding has no influence.
        """
        streams = {}
        for name in self.names:
            given = sources[name]
            streams[name] = Source(self.inputs[name](given.sequence.masked_fill(~given.mask[..., None], 0)), given.mask)
        summary = torch.cat([self._summary(name, streams) for name in self.names], dim=1)
        outputs: Tensor = self.output(summary + self.residual(summary))
        return outputs

    def _summary(self, name: str, streams: Mapping[str, Source]) -> Tensor:
        """[B, (M - 1) D]; zeros in clips that lack the modality."""
        own = streams[name]
        crossed = [self.crossmodal[f"{name}_from_{other}"](own, streams[other]) for other in self._others(name)]
        x_BTD = torch.cat(crossed, dim=-1) if crossed else own.sequence
        x_BTD = self.memory[name](Source(x_BTD, own.mask))
        if self.config.pool == "mean":
            return mean_pool(x_BTD, own.mask)
        last = own.mask.shape[1] - 1 - own.mask.int().flip(1).argmax(dim=1)  # of a clip without any: zeros anyway
        return x_BTD[torch.arange(len(last), device=last.device), last]

    def _others(self, name: str) -> list[str]:
        return [other for other in self.names if other != name]
