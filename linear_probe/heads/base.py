"""What all heads share: the problem, the fitted grid, and features standardised by a problem's own training rows.

Legend: R rows, n training rows of a problem, L layers, D features, K settings of the grid, C outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.config import UserError

ROWS_AT_ONCE = 4096
"""Rows whose float64 copy is held while their moments are summed."""
CHUNK_BYTES = {"cpu": 16 * 2**20, "cuda": 4 * 2**30}
"""What is worked on at a time, by the type of the device: on a GPU most of a grid at once, on a CPU what its caches
hold. Changes memory and speed, not what is computed."""
CONSTANT = 1e-8
"""A column with a smaller deviation is constant: an absent modality, a feature that never fires."""


@dataclass(frozen=True)
class Problem:
    """One fit of the whole grid: a division (a fold), or a seed of it. A fit reads the rows `train` and no others."""

    train: NDArray[np.int64]
    """[n] rows of x and y."""
    valid: NDArray[np.int64]
    """[m] rows on which the caller selects; no head looks at them."""
    seed: int = 0
    """Of initialisation and order, where a head has them."""


class Solved(Protocol):
    """The heads of one problem, all settings."""

    @property
    def converged(self) -> tuple[bool, ...]:
        """Of each setting."""

    @property
    def layer_weights(self) -> Tensor | None:
        """[K, L], each row sums to 1; None where x was no stack."""

    def outputs(self, x: Tensor) -> Tensor:
        """[K, R, C] float32."""


@dataclass(frozen=True)
class Fitted:
    """A grid, solved for every problem."""

    settings: tuple[str, ...]
    """K, as a table prints them."""
    solved: Sequence[Solved]
    """One a problem."""

    def outputs(self, problem: int, x: Tensor) -> Tensor:
        """What the heads of a problem say of any rows.

        Args:
            problem: index into the problems of the fit.
            x: features [R, D] or [R, L, D], as they were given to the fit, not standardised.

        Returns:
            [K, R, C] float32: logits (-inf where a training row never had that label), or numbers.
        """
        return self.solved[problem].outputs(x)

    def converged(self, problem: int) -> tuple[bool, ...]:
        """Of each setting: whether the solver reached its optimum, or training stayed finite."""
        return self.solved[problem].converged

    def layer_weights(self, problem: int) -> Tensor | None:
        """[K, L] softmax weights of the layers; None where x was no stack."""
        return self.solved[problem].layer_weights


@dataclass(frozen=True)
class Standard:
    """Zero mean and unit deviation over some rows; a column that is constant there becomes zero, in all rows."""

    mean: Tensor
    """[D] or [L, D] float64, like `scale`."""
    scale: Tensor
    """1 / deviation; 0 for a constant column."""

    @classmethod
    def of(cls, x: Tensor, rows: Tensor) -> "Standard":
        """Moments of x [R, ...] over `rows` [n] only.

        Raises:
            UserError: a value among them is not finite.
        """
        total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
        for part in rows.split(ROWS_AT_ONCE):
            total += x[part].sum(dim=0, dtype=torch.float64)
        mean = total / len(rows)
        if not mean.isfinite().all():
            raise UserError("features of the training rows hold NaN or infinity: a probe cannot be fitted on them")
        square = torch.zeros_like(total)
        for part in rows.split(ROWS_AT_ONCE):
            square += (x[part] - mean).square_().sum(dim=0)
        deviation = (square / len(rows)).sqrt()
        return cls(mean, torch.where(deviation < CONSTANT, 0, 1 / deviation))

    def __call__(self, x: Tensor) -> Tensor:
        """X [..., D] standardised, in its own precision or that of float64 x."""
        return (x - self.mean.to(x.dtype)).mul_(self.scale.to(x.dtype))


@dataclass(frozen=True)
class LinearMaps:
    """The heads of one problem where they are linear maps of the standardised features."""

    standard: Standard
    weight: Tensor
    """[K, C, D] float64."""
    bias: Tensor
    """[K, C] float64."""
    converged: tuple[bool, ...]
    layer_weights: None = None

    def outputs(self, x: Tensor) -> Tensor:
        """[K, R, C] float32."""
        num_settings, num_outputs, width = self.weight.shape
        flat = self.standard(x.double()) @ self.weight.reshape(-1, width).T
        outputs = flat.reshape(-1, num_settings, num_outputs) + self.bias
        return outputs.transpose(0, 1).float()


def chunk_size(num: int, bytes_each: int, device: torch.device) -> int:
    """How many of `num` equal pieces of work are done at a time."""
    return max(1, min(num, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // bytes_each))


def once_each(problems: Sequence[Problem], solve: Callable[[Problem], Solved]) -> tuple[Solved, ...]:
    """Solve each set of training rows once, for heads in which a seed changes nothing."""
    found: dict[bytes, Solved] = {}
    for problem in problems:
        rows = problem.train.tobytes()
        if rows not in found:
            found[rows] = solve(problem)
    return tuple(found[problem.train.tobytes()] for problem in problems)


def no_stack(x: Tensor, head: str) -> None:
    """Refuse layers that only a trained head can weigh.

    Raises:
        UserError: x is a stack [R, L, D].
    """
    if x.ndim == 3:
        raise UserError(
            f"heads.{head}: cannot weigh a stack of layers; give it single layers or pooled features, "
            "and stacks to heads.linear or heads.mlp"
        )


def rows_of(problem: Problem, x: Tensor) -> Tensor:
    """The training rows of a problem as an index [n] on x's device.

    Raises:
        UserError: there are none.
    """
    if len(problem.train) == 0:
        raise UserError("a division has no training rows: nothing to fit a probe on")
    return torch.as_tensor(problem.train, dtype=torch.int64, device=x.device)
