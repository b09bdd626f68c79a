"""Dropout at the speed that a CPU has.

torch draws a Bernoulli number for each element there, 0.2 billion a second (a core of a Zen 5). Here an element takes
16 bits of a random number, 1.2 billion a second. The rate is rounded to a multiple of 2^-16, and what is kept is scaled
by that very rate: the mean stays where it was.
"""

import torch
from torch import Generator, Tensor, nn

LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, by `kept` on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """[...], of the same shape."""
        return dropped(x, self.p) if self.training else x


def dropped(x: Tensor, rate: float) -> Tensor:
    """x with elements put to 0, and the others scaled up for them."""
    if not rate:
        return x
    if x.device.type != "cpu":
        return nn.functional.dropout(x, rate)
    return x * kept(x.shape, rate, x.dtype).mul_(scale_of(rate))


def kept(shape: torch.Size, rate: float, dtype: torch.dtype, generator: Generator | None = None) -> Tensor:
    """1 where an element of a CPU's tensor is kept, and 0 elsewhere."""
    numbers = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
    parts = numbers.view(torch.int16)[: shape.numel()].view(shape)
    # Into numbers at once: by way of booleans it takes six times as long.
    return torch.ge(parts, _dropped_levels(rate) - LEVELS // 2, out=torch.empty(shape, dtype=dtype))


def scale_of(rate: float) -> float:
    """What the elements that are kept are multiplied by."""
    return LEVELS / (LEVELS - _dropped_levels(rate))


def _dropped_levels(rate: float) -> int:
    return min(round(rate * LEVELS), LEVELS - 1)
