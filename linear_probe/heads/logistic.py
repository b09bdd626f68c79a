"""Logistic regression with an L2 penalty, all strengths of a problem solved together.

scikit-learn's problem exactly: minimise C * sum_i loss_i + |W|^2 / 2 over standardised features. Classes have a softmax
(of the classes that training rows have; two of them share one weight vector, as scikit-learn has it), emotions a
sigmoid each over the rows that are labelled for it.

Legend: n training rows, D features, r of the row space, K settings, C outputs, U those that training rows tell apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from linear_probe.heads.base import Fitted, LinearMaps, Problem, Standard, chunk_size, no_stack, once_each, rows_of
from linear_probe.heads.newton import Loss, solve
from linear_probe.heads.row_space import row_space
from triptych.config import UserError


@dataclass(frozen=True)
class _Softmax:
    target: Tensor
    """[n, 1, U] one-hot float64."""

    def value(self, logits: Tensor) -> Tensor:
        return (logits.logsumexp(dim=2) - (logits * self.target).sum(dim=2)).sum(dim=0)

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = logits.softmax(dim=2)
        return probabilities - self.target, probabilities

    def curvature(self, probabilities: Tensor) -> Tensor:
        return probabilities * (1 - probabilities)

    def bend(self, probabilities: Tensor, change: Tensor) -> Tensor:
        bent = probabilities * change
        return bent.addcmul_(probabilities, bent.sum(dim=2, keepdim=True), value=-1)

    def of(self, heads: Tensor) -> "_Softmax":
        return self


@dataclass(frozen=True)
class _Sigmoid:
    target: Tensor
    """[n, H, 1] float64, 0 or 1."""
    labelled: Tensor
    """[n, H, 1] float32, 0 or 1."""

    def value(self, logits: Tensor) -> Tensor:
        return (self.labelled * (F.softplus(logits) - logits * self.target)).sum(dim=(0, 2))

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = logits.sigmoid()
        return self.labelled * (probabilities - self.target), probabilities

    def curvature(self, probabilities: Tensor) -> Tensor:
        return self.labelled * probabilities * (1 - probabilities)

    def bend(self, probabilities: Tensor, change: Tensor) -> Tensor:
        return self.curvature(probabilities) * change

    def of(self, heads: Tensor) -> "_Sigmoid":
        return _Sigmoid(self.target[:, heads], self.labelled[:, heads])


def fit(c: Sequence[float], x: Tensor, y: Tensor, problems: Sequence[Problem], kind: str, num_outputs: int) -> Fitted:
    """See `linear_probe.heads.config.Logistic.fit`."""
    no_stack(x, "logistic")
    if kind not in ("classes", "emotions"):
        raise UserError(
            f"heads.logistic: for classes and emotions, these labels are {kind}; use heads.ridge for numbers"
        )

    def solved(problem: Problem) -> LinearMaps:
        rows = rows_of(problem, x)
        return _solve(c, x, rows, _Targets.of(y[rows], kind, num_outputs))

    return Fitted(tuple(f"C {value:g}" for value in c), once_each(problems, solved))


@dataclass(frozen=True)
class _Targets:
    """The labels of the training rows, without the outputs that they say nothing about."""

    values: Tensor
    """[n, U] float64, 0 or 1."""
    labelled: Tensor | None
    """[n, U] float32, 0 or 1; None for classes, where every row is."""
    known: Tensor
    """[U] which of the outputs these are."""
    bias: Tensor
    """[C] the logit of the others: -inf where no training row has the label, inf where every one has it."""

    @classmethod
    def of(cls, y: Tensor, kind: str, num_outputs: int) -> "_Targets":
        """From y [n] classes, or [n, E] emotions.

        Raises:
            UserError: no label varies.
        """
        labelled = None
        if kind == "classes":
            values = F.one_hot(y, num_outputs).double()
            varies = values.any(dim=0)
            fails = int(varies.sum()) < 2
            bias = values.new_full((num_outputs,), -math.inf)
        else:
            labelled, values = (~y.isnan()).float(), y.nan_to_num().double()
            positive, negative = (values > 0).any(dim=0), ((values == 0) & labelled.bool()).any(dim=0)
            varies = positive & negative
            fails = not varies.any()
            bias = torch.where(positive, math.inf, -math.inf).double()
        if fails:
            raise UserError("the training rows are of one class only: nothing to tell apart")
        known = varies.nonzero()[:, 0]
        return cls(values[:, known], None if labelled is None else labelled[:, known], known, bias)

    def loss(self, num_settings: int) -> tuple[Loss, int]:
        """Of all heads of some settings, and outputs a head: classes compete, emotions are heads of their own."""
        if self.labelled is None:
            return _Softmax(self.values[:, None]), len(self.known)
        repeated = (part.repeat(1, num_settings)[..., None] for part in (self.values, self.labelled))
        return _Sigmoid(*repeated), 1


def _solve(c: Sequence[float], x: Tensor, rows: Tensor, targets: _Targets) -> LinearMaps:
    standard = Standard.of(x, rows)
    space = row_space(standard(x[rows].double()))
    num_known = len(targets.known)
    weight = space.rows.new_zeros(len(c), len(targets.bias), x.shape[1])
    bias = targets.bias.repeat(len(c), 1)
    # A pair of opposite vectors has half the squared length of the one vector that scikit-learn has for two classes.
    penalty = (2.0 if targets.labelled is None and num_known == 2 else 1.0) / torch.tensor(c, dtype=torch.float64)
    converged: list[Tensor] = []
    bytes_each = 16 * 8 * num_known * sum(space.rows.shape)  # some 16 arrays of rows or of coordinates
    for settings in torch.arange(len(c)).split(chunk_size(len(c), bytes_each, x.device)):
        loss, num_outputs = targets.loss(len(settings))
        strengths = penalty[settings].to(x.device).repeat_interleave(num_known // num_outputs)
        solution, done = solve(space, loss, strengths, num_outputs)
        heads = solution.reshape(-1, len(settings), num_known).permute(1, 2, 0)  # [K, U, r + 1]
        weight[settings[:, None].to(x.device), targets.known] = heads[..., :-1] @ space.directions.T
        bias[settings[:, None].to(x.device), targets.known] = heads[..., -1]
        converged.append(done.reshape(len(settings), -1).all(dim=1))
    return LinearMaps(standard, weight, bias, tuple(torch.cat(converged).tolist()))
