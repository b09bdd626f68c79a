"""Temporal convolutional network over frames of sound: the separator of Conv-TasNet (Luo & Mesgarani 2019, section
II-C) as a tower, in the sizes of Franceschini et al. 2022.

    x -> norm -> 1x1 -> dropout -> R repeats of X blocks, dilations 1, 2, 4, ... 2^(X-1) -> time mean -> PReLU -> linear
    block:  y = x + dropout(1x1(norm(PReLU(depthwise(norm(PReLU(1x1(x))))))))

Legend: B clips, C channels, T steps.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.inputs import zero_hidden
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace


@dataclass(frozen=True, kw_only=True)
class TcnConfig(TowerConfig):
    """Sizes; the defaults are Franceschini et al. 2022, with the dropout of their code."""

    bottleneck: int = 64
    """Channels between the blocks."""
    hidden: int = 128
    """Channels of the depthwise convolution inside a block."""
    kernel: int = 3
    blocks: int = 5
    """Of a repeat; block `i` has dilation `2^i`, so that kernel 3 and 5 blocks in 2 repeats see 125 steps."""
    repeats: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"tcn.kernel: {self.kernel} must be odd, so that steps keep their times")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"tcn.dropout: {self.dropout} must lie in [0, 1)")

    def build(self, place: TowerPlace) -> "TcnTower":
        """See TowerConfig."""
        return TcnTower(self, place.spec, place.width)


class GlobalLayerNorm(nn.Module):
    """Zero mean and unit variance over the channels and real steps of each clip (gLN of Conv-TasNet), then zeros at the
    others, so that a convolution behind it sees the end of the clip where the clip ends."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCT: Tensor, mask_BT: Tensor) -> Tensor:
        """[B, C, T]"""
        x = x_BCT.float()  # sums over thousands of steps are coarse in bfloat16
        mask = mask_BT[:, None].to(x.dtype)
        count = (mask.sum(dim=(1, 2), keepdim=True) * x.shape[1]).clamp(min=1)
        x = x - (x * mask).sum(dim=(1, 2), keepdim=True) / count
        variance = (x.square() * mask).sum(dim=(1, 2), keepdim=True) / count
        x = x * (variance + 1e-5).rsqrt() * self.gain[:, None] + self.bias[:, None]
        return (x * mask).to(x_BCT.dtype)


class _Block(nn.Module):
    def __init__(self, config: TcnConfig, dilation: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(config.bottleneck, config.hidden, 1)
        self.expand_activation = nn.PReLU()
        self.expand_norm = GlobalLayerNorm(config.hidden)
        self.depthwise = nn.Conv1d(
            config.hidden,
            config.hidden,
            config.kernel,
            padding=dilation * (config.kernel // 2),
            dilation=dilation,
            groups=config.hidden,
        )
        self.depthwise_activation = nn.PReLU()
        self.depthwise_norm = GlobalLayerNorm(config.hidden)
        self.reduce = nn.Conv1d(config.hidden, config.bottleneck, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BCT: Tensor, mask_BT: Tensor) -> Tensor:
        """[B, bottleneck, T]"""
        inner = self.expand_norm(self.expand_activation(self.expand(x_BCT)), mask_BT)
        inner = self.depthwise_norm(self.depthwise_activation(self.depthwise(inner)), mask_BT)
        return x_BCT + self.dropout(self.reduce(inner))


class TcnTower(Tower):
    """The network. With 128 bands and 512 outputs it has 217,813 parameters, as the paper's code has; other than there,
    padding takes part in no norm, convolution or mean."""

    def __init__(self, config: TcnConfig, spec: FeatureSpec, width: int) -> None:
        """Build it.

        Args:
            config: sizes.
            spec: the feature that it takes; its bands are the input channels.
            width: of the pooled output.
        """
        super().__init__()
        self.width, self.sequence_width = width, config.bottleneck
        self.mean, self.std = spec.mean, spec.std
        self.activation_checkpointing = False
        bands = prod(spec.shape)
        self.input_norm = GlobalLayerNorm(bands)
        self.input = nn.Conv1d(bands, config.bottleneck, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config, 2**i) for _ in range(config.repeats) for i in range(config.blocks))
        self.activation = nn.PReLU()
        self.output = nn.Linear(config.bottleneck, width)

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: the sequence is what the last block gives, [B, T, bottleneck]."""
        x = ((track.values.float() - self.mean) / self.std).flatten(2).to(self.input.weight.dtype)
        x = zero_hidden(x, track).transpose(1, 2)
        x = self.dropout(self.input(self.input_norm(x, track.mask)))
        if layers is not None:
            layers.append(Steps.zeroed(x.transpose(1, 2), track.mask))
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, track.mask, use_reentrant=False)
            else:
                x = block(x, track.mask)
            if layers is not None:
                layers.append(Steps.zeroed(x.transpose(1, 2), track.mask))
        x = x.transpose(1, 2) * track.mask[..., None]
        pooled = self.output(self.activation(mean_pool(x, track.mask))) * track.present[:, None]
        return TowerOutput(sequence=x, mask=track.mask, pooled=pooled)
