"""torch's AdamW and SGD for many heads side by side, each with its own learning rate and weight decay.

torch's own take one learning rate a parameter, and one optimizer a head would cost more than the heads.

Legend: P problems, K settings.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from linear_probe.heads.layers import DECAYED, Parameters

BETAS, EPS = (0.9, 0.999), 1e-8
"""Of AdamW: torch's."""
MOMENTUM = 0.9
"""Of SGD: Franceschini et al. 2022, section III-D."""


class Optimizer:
    """Moves parameters [P, K, ...] in place."""

    def __init__(
        self, name: Literal["adamw", "sgd"], parameters: Parameters, grid: Sequence[tuple[float, float]]
    ) -> None:
        """Start with moments of zero.

        Args:
            name: which.
            parameters: on their device.
            grid: K pairs of learning rate and weight decay.
        """
        self._update = self._adamw if name == "adamw" else self._sgd
        self._parameters = parameters
        self._moments = {
            part: [torch.zeros_like(value) for _ in range(2 if name == "adamw" else 1)]
            for part, value in parameters.items()
        }
        device = next(iter(parameters.values())).device
        self._lr, self._decay = torch.tensor(grid, dtype=torch.float64, device=device).unbind(dim=1)
        self._decays = any(decay for _, decay in grid)
        self._num_steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], share: float) -> None:
        """Take one step.

        Args:
            gradients: in the order of the parameters.
            share: of each head's learning rate.
        """
        self._num_steps += 1
        for (part, value), gradient in zip(self._parameters.items(), gradients, strict=True):
            shape = (1, -1, *[1] * (value.ndim - 2))
            decay = self._decay.view(shape) if self._decays and part in DECAYED else None
            self._update(value, gradient, self._moments[part], share * self._lr.view(shape), decay)

    def _adamw(self, value: Tensor, gradient: Tensor, moments: list[Tensor], lr: Tensor, decay: Tensor | None) -> None:
        first, second = moments
        if decay is not None:
            value.mul_((1 - lr * decay).float())
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected = math.sqrt(1 - BETAS[1] ** self._num_steps)
        change = second.sqrt().add_(EPS * corrected)
        torch.div(first, change, out=change)
        rate = lr * corrected / (1 - BETAS[0] ** self._num_steps)
        value.addcmul_(change, rate.float(), value=-1)

    def _sgd(self, value: Tensor, gradient: Tensor, moments: list[Tensor], lr: Tensor, decay: Tensor | None) -> None:
        if decay is not None:
            gradient = torch.addcmul(gradient, value, decay.float())
        moments[0].mul_(MOMENTUM).add_(gradient)
        value.addcmul_(moments[0], lr.float(), value=-1)
