"""Many logistic regressions over the same rows at once: Newton's method with conjugate gradients, both batched.

Each head minimises sum_i loss(logits_i, y_i) + penalty / 2 * |W|^2, its bias unpenalised. In the coordinates of the row
space the Hessian is close to the diagonal h * s_j^2 + penalty, h the mean curvature of the loss; preconditioned by it,
some tens of matrix products reach the optimum where L-BFGS on the features takes hundreds. Steps are sought in float32;
the gradients, and with them the optimum, are of float64.

Legend: n rows, q coordinates (r of the row space, and 1 for the bias), H heads, C outputs of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from linear_probe.heads.row_space import RowSpace

MAX_STEPS = 100
MAX_CG = 200
"""Conjugate gradients within one Newton step."""
MAX_HALVINGS = 40
TOLERANCE = 1e-10
"""Of the squared Newton decrement a row, twice what the mean loss can still fall; probabilities are then right to some
1e-5 (on separable and overlapping classes, C from 1e-4 to 100), those of scikit-learn's own tolerance to some 1e-3."""


class Loss(Protocol):
    """A convex loss of the logits [n, H, C], with its targets inside."""

    def value(self, logits: Tensor) -> Tensor:
        """[H], summed over the rows."""

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """By the logits, and their probabilities, [n, H, C] both."""

    def curvature(self, probabilities: Tensor) -> Tensor:
        """Diagonal of the Hessian [n, H, C]."""

    def bend(self, probabilities: Tensor, change: Tensor) -> Tensor:
        """The Hessian times a change [n, H, C] of the logits, in the arguments' precision."""

    def of(self, heads: Tensor) -> Self:
        """The loss of some heads, given as indices."""


@dataclass(frozen=True)
class _Rows:
    values: Tensor
    """[n, q] float64: the row space, and ones for the bias."""
    single: Tensor
    """The same in float32."""
    squares: Tensor
    """[q, 1, 1] squared lengths of the columns."""


def solve(space: RowSpace, loss: Loss, penalty: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
    """Minimise every head's loss.

    Args:
        space: the training rows.
        loss: of H heads.
        penalty: [H] float64, above 0.
        num_outputs: C.

    Returns:
        Weights in the row space, and in the last row biases, [r + 1, H, C]; which heads converged [H].
    """
    num_rows = len(space.rows)
    values = torch.cat([space.rows, space.rows.new_ones(num_rows, 1)], dim=1)
    squares = torch.cat([space.squares, space.squares.new_tensor([num_rows])])[:, None, None]
    rows = _Rows(values, values.float(), squares)
    ridge = penalty[:, None].expand(len(squares), -1, 1).clone()  # [q, H, 1]
    ridge[-1] = 0
    weights = values.new_zeros(len(squares), len(penalty), num_outputs)
    converged = torch.zeros_like(penalty, dtype=torch.bool)
    left = torch.arange(len(penalty), device=penalty.device)
    for _ in range(MAX_STEPS):  # heads that are done take no further part
        weights[:, left], done = _step(rows, loss.of(left), ridge[:, left], weights[:, left])
        converged[left[done]] = True
        left = left[~done]
        if len(left) == 0:
            break
    return weights, converged


def _step(rows: _Rows, loss: Loss, ridge: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weights after one Newton step, and [H] which heads had converged before it."""
    logits = _product(rows.values, weights)
    slope, probabilities = loss.gradient(logits)
    gradient = _product(rows.values.T, slope) + ridge * weights
    curvature = loss.curvature(probabilities).mean(dim=0).clamp(min=1e-12)
    scaling = 1 / (curvature * rows.squares + ridge)
    decrement = _dot(gradient, scaling * gradient) / len(logits)
    done = decrement <= TOLERANCE
    if done.all():
        return weights, done
    # Inexact far from the optimum, where the next step corrects it; at the end no finer than the tolerance asks for.
    precision = decrement.clamp(1e-6, 0.01).maximum(0.1 * TOLERANCE / decrement)
    size = _dot(gradient, gradient).sqrt().clamp(min=1e-300)[:, None]  # so that float32 holds it
    seen, ridge_single = probabilities.float(), ridge.float()

    def hessian(change: Tensor) -> Tensor:
        bent = loss.bend(seen, _product(rows.single, change))
        return _product(rows.single.T, bent) + ridge_single * change

    sought = _conjugate_gradients(hessian, (-gradient / size).float(), scaling.float(), precision.float())
    direction = sought.double() * size
    length = _line_search(loss, ridge, (weights, logits), (direction, _product(rows.values, direction)), gradient)
    return torch.where(done[:, None], weights, weights + length * direction), done


def _conjugate_gradients(
    hessian: Callable[[Tensor], Tensor], target: Tensor, scaling: Tensor, precision: Tensor
) -> Tensor:
    """Solve hessian(x) = target [q, H, C] for each head until its scaled squared residual fell to `precision` [H]."""
    solution, residual = torch.zeros_like(target), target.clone()
    scaled = scaling * residual
    direction = scaled.clone()
    left = start = _dot(residual, scaled)
    for _ in range(MAX_CG):
        active = left > precision * start
        if not active.any():
            break
        along = hessian(direction)
        length = torch.where(active, left / _dot(direction, along), 0)[:, None]
        solution += length * direction
        residual -= length * along
        scaled = scaling * residual
        now = _dot(residual, scaled)
        direction = scaled + torch.where(active, now / left, 0)[:, None] * direction
        left = torch.where(active, now, left)
    return solution


def _line_search(
    loss: Loss, ridge: Tensor, at: tuple[Tensor, Tensor], along: tuple[Tensor, Tensor], gradient: Tensor
) -> Tensor:
    """Length [H, 1] of a step that lowers the loss as much as its slope promises (Armijo).

    The logits are linear in the length, so that trying one costs no matrix product.
    """
    (weights, logits), (direction, change) = at, along

    def value(length: Tensor) -> Tensor:
        moved = weights + length * direction
        return loss.value(logits + length * change) + 0.5 * _dot(ridge * moved, moved)

    slope = _dot(gradient, direction)
    length = torch.ones_like(slope)[:, None]
    start = value(torch.zeros_like(length))
    for _ in range(MAX_HALVINGS):
        # Near the optimum the gain is below the rounding of the loss itself.
        short = value(length) > start + 1e-4 * length[:, 0] * slope + 1e-12 * start.abs()
        if not short.any():
            break
        length = torch.where(short[:, None], length / 2, length)
    return length


def _product(matrix: Tensor, heads: Tensor) -> Tensor:
    """[a, b] times [b, H, C] as one matrix product for all heads."""
    return (matrix @ heads.reshape(len(heads), -1)).reshape(len(matrix), *heads.shape[1:])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[H] of two [q, H, C]."""
    return (a * b).sum(dim=(0, 2))
