"""Normalisation of convolutional towers, instead of torch's batch normalisation over one rank's micro-batch.

That would make a clip's vector tell of the clips beside it, which contrastive learning can exploit, and results would
change with the world size. What takes its place, by the setting `norm`:

- frozen: the statistics and the affine map of pretrained weights, as constants.
- synchronised: statistics over the clips of all ranks' current micro-batches. They, and so all results, depend on how a
  global batch is cut into micro-batches: keep `stream.micro_batch` times the world size when a run moves.
- group: groups of channels of a single clip; no statistics over the batch. For towers that train from scratch.

Legend: B clips, C channels, T steps, * nodes or pixels of a step.
"""

from math import prod
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["frozen", "synchronised", "group"]

EPS = 1e-5
MOMENTUM = 0.1
"""Share of the newest statistics in the running averages, as in torch."""
MAX_GROUPS = 32
"""Wu and He 2018, section 4.1."""


class FrozenNorm(nn.Module):
    """Batch normalisation by constants, which are buffers with the names of torch's batch normalisation: nothing of it
    trains, and neither mode nor batch matters. (torchvision's FrozenBatchNorm2d takes pictures only.)"""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, C, ...] -> the same shape; the mask is not needed."""
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class SynchronisedNorm(nn.Module):
    """Batch normalisation over all ranks, on CPU and GPU (torch's SyncBatchNorm refuses the CPU).

    Every rank calls it at the same time, also with no clip at all. Gradients flow through the statistics of all ranks.
    The running averages, which evaluation uses, take up a micro-batch only where gradients are recorded: gradient
    caching runs each micro-batch twice, first without.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: [B, C, T, *] with any number of trailing axes, or [B, C].
            mask: [B, T]; steps that are False are left out of the statistics. None: all count, which for the maps of a
                video network (3-D) is right where clips have as many frames each, and absent ones are not in x.

        Returns:
            The shape and type of x. Statistics are computed in float32 or better.
        """
        if not self.training:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        shape = (1, -1, *[1] * (x.dim() - 2))
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        weights, count = _weights(precise, mask)
        summed = _over_ranks(torch.cat([_channel_sums(precise * weights), count[None]]))
        count = summed[-1].detach()
        mean = summed[:-1] / count.clamp(min=1)
        # a second round, about the mean: sums of squares would lose the digits of a small variance
        centred = precise - mean.view(shape)
        variance = _over_ranks(_channel_sums(centred.square() * weights)) / count.clamp(min=1)
        if torch.is_grad_enabled():
            self._remember(mean.detach(), variance.detach(), count)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        share = MOMENTUM * (count > 0)  # a tensor: asking for its value would wait for the GPU
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))


class ClipGroupNorm(nn.GroupNorm):
    """Group normalisation that leaves padded steps out of a clip's statistics."""

    def __init__(self, channels: int, eps: float = EPS) -> None:
        """As many groups as divide the channels, 32 at most."""
        groups = next(groups for groups in range(min(MAX_GROUPS, channels), 0, -1) if channels % groups == 0)
        super().__init__(groups, channels, eps=eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise; see SynchronisedNorm.forward. A clip without a real step gets finite numbers that mean nothing."""
        if mask is None:
            return super().forward(x)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        precise = precise.unflatten(1, (self.num_groups, -1))  # [B, G, C/G, T, *]
        weights = _as_steps(mask, x)[:, None].to(precise.dtype)
        axes = tuple(range(2, precise.dim()))
        values_a_step = x.shape[1] // self.num_groups * prod(x.shape[3:])
        count = (weights.sum(dim=axes, keepdim=True) * values_a_step).clamp(min=1)
        centred = precise - (precise * weights).sum(dim=axes, keepdim=True) / count
        variance = (centred.square() * weights).sum(dim=axes, keepdim=True) / count
        normalised = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return (normalised * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


NORMS: dict[str, type[FrozenNorm] | type[SynchronisedNorm] | type[ClipGroupNorm]] = {
    "frozen": FrozenNorm,
    "synchronised": SynchronisedNorm,
    "group": ClipGroupNorm,
}


def convert(module: nn.Module, norm: Norm) -> None:
    """Replace every batch normalisation inside a module, in place.

    Names in the state dict stay (less what the new kind has not), so that weights published for the network still fit.
    Values are carried over, except that group normalisation has no statistics.

    Raises:
        ValueError: one has no affine map or no running statistics, as none of a published video network.
    """
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            convert(child, norm)
            continue
        if not (child.affine and child.track_running_stats):
            raise ValueError(f"{name}: batch normalisation without an affine map or running statistics")
        new = NORMS[norm](child.num_features, eps=child.eps)
        new.load_state_dict({kept: value for kept, value in child.state_dict().items() if kept in new.state_dict()})
        setattr(module, name, new)


def _as_steps(mask: Tensor, x: Tensor) -> Tensor:
    """[B, T] -> [B, 1, T, 1...] beside x [B, C, T, ...]."""
    return mask.view(mask.shape[0], 1, mask.shape[1], *[1] * (x.dim() - 3))


def _weights(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """1 where something counts and 0 elsewhere, next to x; and how many values a channel has."""
    if mask is None:
        return x.new_ones(()), x.new_tensor(x.numel() / x.shape[1])
    weights = _as_steps(mask, x).to(x.dtype)
    return weights, weights.sum() * prod(x.shape[3:])


def _channel_sums(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1).sum(dim=1)


def _over_ranks(values: Tensor) -> Tensor:
    """The ranks' values added up; so are the gradients on the way back."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    summed: Tensor = all_reduce(values)
    return summed
