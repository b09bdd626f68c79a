"""The optimizer and the learning rate: AdamW or SGD, and schedules that are pure functions of the step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""What each optimizer keeps of every parameter; AdamW also counts its steps."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves; every schedule but `noam` rises linearly to `lr` over the warm-up."""

    name: Literal["constant", "cosine", "polynomial", "noam", "step"] = "cosine"
    """`noam` is k * width^-0.5 * min(n^-0.5, n * warmup_steps^-1.5) at step n from 1 (Dong et al. 2018,
    Speech-Transformer, section 4), where `lr` is their k: its peak is k / sqrt(width * warmup_steps)."""
    warmup_steps: int = 0
    width: int | None = None
    """Model width of `noam`; the others have none."""
    power: float | None = None
    """Exponent of `polynomial` (1 is linear); the others have none."""
    gamma: float | None = None
    """Factor of `step`, below 1; the others have none."""
    every_steps: int | None = None
    """How often `step` multiplies the rate by its factor, in optimizer steps after the warm-up; for every k epochs
    this is k * clips / stream.global_batch."""

    def __post_init__(self) -> None:
        if self.warmup_steps < (1 if self.name == "noam" else 0):
            raise ValueError(f"schedule.warmup_steps: {self.warmup_steps} is too small for {self.name}")
        owners = {"width": "noam", "power": "polynomial", "gamma": "step", "every_steps": "step"}
        for key, owner in owners.items():
            if (getattr(self, key) is not None) != (self.name == owner):
                raise ValueError(f"schedule.{key}: belongs to {owner} and only to it; the schedule is {self.name}")
        if self.gamma is not None and not 0 < self.gamma < 1:
            raise ValueError(f"schedule.gamma: {self.gamma} must lie between 0 and 1")
        if self.every_steps is not None and self.every_steps < 1:
            raise ValueError(f"schedule.every_steps: {self.every_steps} must be at least 1")


BETAS, EPS = (0.9, 0.98), 1e-8


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019), or SGD with momentum (Franceschini et al. 2022, section III-D)."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    """Peak learning rate; the paper's k where the schedule is `noam`."""
    betas: tuple[float, float] = BETAS
    """Of AdamW only."""
    eps: float = EPS
    """Of AdamW only."""
    momentum: float | None = None
    """Of SGD only, which adds to each gradient this share of what it added the step before."""
    weight_decay: float = 0.01
    """Of matrices and filters; biases, norms and embeddings have none. AdamW's is decoupled: each step takes away
    lr * weight_decay of the weight itself. SGD's is L2: weight_decay * weight joins the gradient after its norm was
    clipped, and through it the momentum. The same number therefore means another strength."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr: {self.lr} must be above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas: {self.betas} must lie in [0, 1)")
        if self.name == "sgd" and (tuple(self.betas), self.eps) != (BETAS, EPS):
            raise ValueError("optimizer.betas and optimizer.eps: belong to adamw and only to it; the optimizer is sgd")
        if (self.momentum is not None) != (self.name == "sgd"):
            raise ValueError(f"optimizer.momentum: belongs to sgd and only to it; the optimizer is {self.name}")
        if self.momentum is not None and not 0 < self.momentum < 1:
            raise ValueError(f"optimizer.momentum: {self.momentum} must lie between 0 and 1")


def lr_at(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Learning rate of an optimizer step.

    Args:
        step: from 0.
        config: peak, schedule and warm-up.
        max_steps: of the run; `cosine` and `polynomial` would reach 0 at this step.
    """
    schedule = config.schedule
    if schedule.name == "noam":
        assert schedule.width is not None
        number = step + 1
        return config.lr * schedule.width**-0.5 * min(number**-0.5, number * schedule.warmup_steps**-1.5)
    if step < schedule.warmup_steps:
        return config.lr * (step + 1) / schedule.warmup_steps
    if schedule.name == "step":
        assert schedule.gamma is not None
        assert schedule.every_steps is not None
        return config.lr * schedule.gamma ** ((step - schedule.warmup_steps) // schedule.every_steps)
    left = max(0.0, 1 - (step - schedule.warmup_steps) / max(1, max_steps - schedule.warmup_steps))
    if schedule.name == "cosine":
        return config.lr * 0.5 * (1 - math.cos(math.pi * left))
    if schedule.name == "polynomial":
        assert schedule.power is not None
        return config.lr * left**schedule.power
    return config.lr


@dataclass(frozen=True)
class Rate:
    """How a parameter's learning rate differs from the schedule's."""

    scale: float = 1.0
    from_step: int = 0
    """Before this optimizer step the parameter stays as it is."""


def parameter_groups(
    module: nn.Module, weight_decay: float, rates: Mapping[int, Rate] | None = None
) -> list[dict[str, Any]]:
    """The trainable parameters as an optimizer's groups: with weight decay, and without (biases, norms, embeddings).

    Args:
        module: with the parameters.
        weight_decay: of matrices and filters.
        rates: `id` of a parameter -> its rate, where some have one of their own; the groups then say theirs as "rate".
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    groups: dict[tuple[bool, Rate], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and id(parameter) not in embeddings
            groups.setdefault((not decays, (rates or {}).get(id(parameter), Rate())), []).append(parameter)
    order = sorted(groups, key=lambda key: (key[0], key[1].scale, key[1].from_step))
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[0] else weight_decay, **({"rate": key[1]} if rates else {})}
        for key in order
    ]


def by_id(module: nn.Module, rates: Mapping[str, Rate]) -> dict[int, Rate]:
    """Rates by the `id` of parameters, given those by their names."""
    return {id(weight): rates[name] for name, weight in module.named_parameters() if name in rates}


def set_rates(optimizer: Any, lr: float, step: int) -> None:
    """Set the learning rate of each group of `build` for an optimizer step, and take the gradients of those that are
    not due: without one there is neither an update nor a moment.

    Args:
        optimizer: torch's, or DeepSpeed's around it.
        lr: of the schedule.
        step: from 0.
    """
    for group in optimizer.param_groups:
        rate = group.get("rate", Rate())
        group["lr"] = lr * rate.scale
        if step < rate.from_step:
            for weight in group["params"]:
                weight.grad = None


def build(module: nn.Module, config: OptimizerConfig, rates: Mapping[int, Rate] | None = None) -> torch.optim.Optimizer:
    """The optimizer over the module's trainable parameters; the engine sets the learning rate of every step."""
    groups = parameter_groups(module, config.weight_decay, rates)
    if config.name == "sgd":
        assert config.momentum is not None
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
