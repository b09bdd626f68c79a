"""Ridge regression in closed form, all strengths from one decomposition.

scikit-learn's problem exactly: minimise sum_i (y_i - w x_i - b)^2 + alpha * |w|^2 over standardised features. Classes
and emotions are regressed on as targets of +1 and -1, for quick looks.

Legend: n training rows, D features, r of the row space, K settings, C outputs.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from linear_probe.heads.base import Fitted, LinearMaps, Problem, Standard, no_stack, once_each, rows_of
from linear_probe.heads.row_space import row_space
from triptych.config import UserError


def fit(
    alpha: Sequence[float], x: Tensor, y: Tensor, problems: Sequence[Problem], kind: str, num_outputs: int
) -> Fitted:
    """See `linear_probe.heads.config.Ridge.fit`."""
    no_stack(x, "ridge")

    def solved(problem: Problem) -> LinearMaps:
        rows = rows_of(problem, x)
        return _solve(alpha, x, rows, _targets(y[rows], kind, num_outputs))

    return Fitted(tuple(f"alpha {value:g}" for value in alpha), once_each(problems, solved))


def _targets(y: Tensor, kind: str, num_outputs: int) -> Tensor:
    """[n, C] float64, NaN where not labelled."""
    if kind == "classes":
        return 2 * F.one_hot(y, num_outputs).double() - 1
    return 2 * y.double() - 1 if kind == "emotions" else y.double()


def _solve(alpha: Sequence[float], x: Tensor, rows: Tensor, targets: Tensor) -> LinearMaps:
    standard = Standard.of(x, rows)
    standardised = standard(x[rows].double())
    strengths = targets.new_tensor(alpha)
    weight = targets.new_zeros(len(alpha), targets.shape[1], x.shape[1])
    bias = targets.new_zeros(len(alpha), targets.shape[1])
    patterns, pattern_of = (~targets.isnan()).unique(dim=1, return_inverse=True)
    for number, labelled in enumerate(patterns.T):  # usually one: outputs labelled in the same rows
        if not labelled.any():
            raise UserError("the training rows have no labels for one of the outputs: nothing to fit a probe on")
        outputs = (pattern_of == number).nonzero()[:, 0]
        seen, wanted = standardised[labelled], targets[labelled][:, outputs]
        centre, level = seen.mean(dim=0), wanted.mean(dim=0)
        space = row_space(seen - centre)
        shrunk = (space.rows.T @ (wanted - level)) / (space.squares[:, None] + strengths[:, None, None])  # [K, r, C]
        weight[:, outputs] = (space.directions @ shrunk).transpose(1, 2)
        bias[:, outputs] = level - weight[:, outputs] @ centre
    return LinearMaps(standard, weight, bias, (True,) * len(alpha))
