"""Heads trained by minibatches, the whole grid of all problems at once.

Every head sees its problem's rows in the same order, from the same start; the heads share no number, so that each is
what it would be alone. The optimizers are torch's AdamW and SGD, with a learning rate and a weight decay of each head.

Legend: P problems, K settings, n training rows, N those of the largest problem and one of padding, B rows of a batch, C
outputs, E targets of a row (1 for classes).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from linear_probe.heads.base import Fitted, Problem, Solved, Standard, chunk_size, rows_of
from linear_probe.heads.config import Linear, Mlp
from linear_probe.heads.layers import Parameters, TrainedHeads, forward, initial
from linear_probe.heads.losses import loss_name, mean_loss, targets_of
from linear_probe.heads.optimizer import Optimizer

DROP = 0.9
"""Of the schedule `step`: Franceschini et al. 2022, section III-D."""


@dataclass(frozen=True)
class _Own:
    """One problem, before any training."""

    rows: Tensor
    """[n] of x."""
    seed: int
    standard: Standard
    targets: Tensor
    """[n, C]"""
    weights: Tensor
    """[n, E]"""
    start: Parameters
    """Of one head, on the CPU."""


@dataclass(frozen=True)
class _Chunk:
    """What is trained at a time: problems with equally many batches an epoch, and settings."""

    problems: list[int]
    settings: slice


def fit(settings: Linear, x: Tensor, y: Tensor, problems: Sequence[Problem], kind: str, num_outputs: int) -> Fitted:
    """See `linear_probe.heads.config.Linear.fit`."""
    loss = loss_name(kind, settings.loss, settings.balanced)
    hidden = settings.hidden if isinstance(settings, Mlp) else None
    grid = list(product(settings.lr, settings.weight_decay))
    owns: list[_Own] = []
    for problem in problems:
        rows = rows_of(problem, x)
        targets, weights = targets_of(y[rows], kind, num_outputs, settings.balanced)
        start = initial(problem.seed, tuple(x.shape[1:]), hidden, num_outputs)
        owns.append(_Own(rows, problem.seed, Standard.of(x, rows), targets, weights, start))
    parts: list[list[Parameters]] = [[] for _ in problems]
    chunks = list(_chunks(settings, x, owns, len(grid)))
    with Progress(disable=not Console().is_terminal) as progress:
        for chunk in progress.track(chunks, description="training heads"):
            chosen = [owns[index] for index in chunk.problems]
            trained = _train(settings, loss, grid[chunk.settings], x, chosen)
            for place, index in enumerate(chunk.problems):
                parts[index].append({name: part[place] for name, part in trained.items()})
    solved: list[Solved] = [
        TrainedHeads(own.standard, {name: torch.cat([part[name] for part in found]) for name in own.start})
        for own, found in zip(owns, parts, strict=True)
    ]
    return Fitted(tuple(f"lr {lr:g}, wd {decay:g}" for lr, decay in grid), solved)


def order(seed: int, epoch: int, num: int) -> list[int]:
    """In which order an epoch shows `num` training rows: a pure function of the problem's seed and the epoch."""
    found: list[int] = np.random.default_rng((seed, epoch)).permutation(num).tolist()
    return found


def _chunks(settings: Linear, x: Tensor, owns: Sequence[_Own], num_settings: int) -> Iterator[_Chunk]:
    groups: dict[int, list[int]] = {}
    for index, own in enumerate(owns):
        groups.setdefault(math.ceil(len(own.rows) / settings.batch_size), []).append(index)
    for group in groups.values():
        start = owns[group[0]].start
        num_parameters = sum(part.numel() for part in start.values())
        num_outputs = sum(len(part) for name, part in start.items() if name.endswith("bias"))
        mixed = x.shape[2] if x.ndim == 3 else 0
        # Of a head: parameters, gradients, two moments and what a step makes of them; activations and their gradients.
        per_head = 4 * (7 * num_parameters + 4 * settings.batch_size * (num_outputs + mixed))
        num_heads = chunk_size(num_settings, per_head, x.device)
        batch = 4 * 2 * settings.batch_size * x[0].numel()
        num_problems = (
            chunk_size(len(group), num_heads * per_head + batch, x.device) if num_heads == num_settings else 1
        )
        for first in range(0, len(group), num_problems):
            for setting in range(0, num_settings, num_heads):
                yield _Chunk(group[first : first + num_problems], slice(setting, setting + num_heads))


def _train(
    settings: Linear, loss: str, grid: Sequence[tuple[float, float]], x: Tensor, owns: Sequence[_Own]
) -> Parameters:
    """Train settings of problems from start to end: parameters [P, K, ...]."""
    stacked = {name: torch.stack([own.start[name] for own in owns])[:, None] for name in owns[0].start}
    parameters = {
        name: part.repeat_interleave(len(grid), dim=1).to(x.device).requires_grad_() for name, part in stacked.items()
    }
    optimizer = Optimizer(settings.optimizer, parameters, grid)
    most = max(len(own.rows) for own in owns)
    # One row more than the most weighs nothing: what a short last batch is filled up with.
    rows = torch.stack([_padded(own.rows, most + 1, int(own.rows[0])) for own in owns])
    targets = torch.stack([_padded(own.targets, most + 1) for own in owns])
    weights = torch.stack([_padded(own.weights, most + 1) for own in owns])
    mean = torch.stack([own.standard.mean for own in owns])[:, None].to(x.dtype)
    scale = torch.stack([own.standard.scale for own in owns])[:, None].to(x.dtype)
    problem = torch.arange(len(owns), device=x.device)[:, None]
    num_steps = math.ceil(most / settings.batch_size)
    for epoch in range(settings.epochs):
        shown = [order(own.seed, epoch, len(own.rows)) for own in owns]
        filled = torch.tensor([found + [most] * (most - len(found)) for found in shown], device=x.device)
        for step, picked in enumerate(filled.split(settings.batch_size, dim=1)):  # [P, B]
            batch = x[rows[problem, picked]].sub_(mean).mul_(scale)
            outputs = forward(parameters, batch)
            losses = mean_loss(loss, outputs, targets[problem, picked], weights[problem, picked])
            gradients = torch.autograd.grad(losses.sum(), list(parameters.values()))
            optimizer.step(gradients, _share(settings, epoch, (epoch * num_steps + step) / num_steps))
    return {name: part.detach() for name, part in parameters.items()}


def _padded(values: Tensor, num: int, value: float = 0) -> Tensor:
    """[n, ...] with rows of `value` up to `num`."""
    return torch.cat([values, values.new_full((num - len(values), *values.shape[1:]), value)])


def _share(settings: Linear, epoch: int, epochs_done: float) -> float:
    """What a step's learning rate is of the setting's."""
    if settings.step_epochs is not None:
        return DROP ** (epoch // settings.step_epochs)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epochs_done / settings.epochs))
    return 1.0
