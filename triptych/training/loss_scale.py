"""Loss scaling of fp16, which holds no number below 6e-8: a loss times a large number keeps small gradients."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.config import UserError

GROW_AFTER = 2000
"""Steps without an overflow, then the scale doubles."""


@dataclass
class LossScale:
    """The factor, by the rule and with the numbers of torch.amp.GradScaler, which is not used itself as it looks for
    gradients where ZeRO has none; a plain number serves every engine and device."""

    value: float = 2.0**16
    good_steps: int = 0
    """Since the scale was changed."""
    skipped_steps: int = 0
    """Of the whole run, which an overflow left out."""

    def update(self, grad_norm: float, step: int) -> None:
        """Take note of a step, which was left out where the norm of its gradient is not finite.

        Raises:
            UserError: it is not finite though nothing was scaled, after 17 such steps in a row at the start.
        """
        if math.isfinite(grad_norm):
            self.good_steps += 1
            if self.good_steps == GROW_AFTER:
                self.value, self.good_steps = 2 * self.value, 0
            return
        if self.value <= 1:
            raise UserError(
                f"step {step}: the gradient is not finite ({grad_norm}) in fp16, though the loss scale went down to "
                f"{self.value:g} ({self.skipped_steps} steps of the run were left out for it); start again with "
                f"precision bf16 or fp32, or with a lower learning rate"
            )
        self.value, self.good_steps = self.value / 2, 0
        self.skipped_steps += 1

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        numbers = {"value": self.value, "good_steps": self.good_steps, "skipped_steps": self.skipped_steps}
        return {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "LossScale":
        """What `state` gave."""
        return cls(float(state["value"]), int(state["good_steps"]), int(state["skipped_steps"]))
