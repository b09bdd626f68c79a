"""Fit every head of the grid on every view, and keep the one that is best on the validation clips. No test label here.

Legend: R rows of a table, C outputs, K settings of a head, S seeds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linear_probe.heads.base import Fitted, Problem
from linear_probe.heads.config import HeadsConfig, Linear
from linear_probe.rows import View
from triptych.config import UserError
from triptych.evaluation import conventions
from triptych.evaluation.answers import num_outputs, said
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one division lets a head learn from."""

    division: str
    train: NDArray[np.int64]
    """Rows with labels."""
    valid: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of the grid, over all seeds."""

    division: str
    view: str
    head: str
    setting: str
    valid_scores: tuple[float, ...]
    """One a seed; a single one where there is no chance in the head."""
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The heads of one division, one a seed, that its validation clips chose."""

    view: View
    trial: Trial
    fitted: Fitted
    problems: tuple[int, ...]
    """Of `fitted`: one a seed."""
    setting: int
    """Of `fitted`."""

    @property
    def valid_score(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.trial.valid_scores))

    def layer_weights(self) -> NDArray[np.float64] | None:
        """[L] of a stack, mean over seeds; else None."""
        found = [self.fitted.layer_weights(problem) for problem in self.problems]
        if found[0] is None:
            return None
        weights: NDArray[np.float64] = np.mean(
            [one[self.setting].double().cpu().numpy() for one in found if one is not None], axis=0
        )
        return weights

    def outputs(self, run: int, x: Tensor) -> Tensor:
        """[R, C] of the head of a seed; a head without chance in it is the same for each."""
        return self.fitted.outputs(self.problems[run % len(self.problems)], x)[self.setting]


def choose(
    heads: HeadsConfig,
    protocol: Protocol,
    views: Iterable[tuple[View, Tensor]],
    y: Tensor,
    lessons: Sequence[Lesson],
    seeds: Sequence[int],
) -> tuple[list[Chosen], list[Trial]]:
    """Fit the whole grid and choose for each division; a tie goes to what comes first.

    Args:
        heads: the grid.
        protocol: says what is predicted and by which score is chosen.
        views: with their features, [R, D] or [R, L, D].
        y: labels at the rows of `lessons`, see linear_probe.targets.place.
        lessons: one a division.
        seeds: of the heads that have chance in them.

    Returns:
        What is chosen, one a lesson, and all that was tried.

    Raises:
        UserError: no head takes any of the views, or the score is undefined on the validation clips.
    """
    best: list[Chosen | None] = [None] * len(lessons)
    trials: list[Trial] = []
    sign = -1 if protocol.select_lowest else 1
    for view, x in views:
        for name, settings in heads.given().items():
            trained = isinstance(settings, Linear)  # an Mlp is one too
            if x.ndim == 3 and not trained:
                continue
            own_seeds = seeds if trained else seeds[:1]
            problems = [Problem(lesson.train, lesson.valid, seed) for lesson in lessons for seed in own_seeds]
            fitted = settings.fit(x, y, problems, protocol.kind, num_outputs(protocol))
            for number, lesson in enumerate(lessons):
                own = tuple(range(number * len(own_seeds), (number + 1) * len(own_seeds)))
                found = _trials(protocol, lesson, view, name, fitted, own, x, y)
                trials += found
                for setting, trial in enumerate(found):
                    score, before = float(np.mean(trial.valid_scores)), best[number]
                    if before is None or sign * score > sign * before.valid_score:
                        best[number] = Chosen(view=view, trial=trial, fitted=fitted, problems=own, setting=setting)
    if any(chosen is None for chosen in best):
        raise UserError("layers: stack is for trained heads: add heads.linear={} or heads.mlp={}")
    return [chosen for chosen in best if chosen is not None], trials


def _trials(
    protocol: Protocol,
    lesson: Lesson,
    view: View,
    head: str,
    fitted: Fitted,
    problems: Sequence[int],
    x: Tensor,
    y: Tensor,
) -> list[Trial]:
    rows = torch.from_numpy(lesson.valid)
    truth = y[rows].cpu().numpy()
    scores_SK = [
        [_score(protocol, lesson, truth, values) for values in said(protocol, fitted.outputs(problem, x[rows]).cpu())]
        for problem in problems
    ]
    converged = [all(flags) for flags in zip(*(fitted.converged(problem) for problem in problems), strict=True)]
    return [
        Trial(
            division=lesson.division,
            view=view.name,
            head=head,
            setting=setting,
            valid_scores=tuple(scores),
            converged=settled,
        )
        for setting, scores, settled in zip(fitted.settings, zip(*scores_SK, strict=True), converged, strict=True)
    ]


def _score(protocol: Protocol, lesson: Lesson, truth: NDArray, values: NDArray) -> float:
    """The protocol's score of choice; NaN labels, of one emotion of several, are left out of that emotion."""
    try:
        score = conventions.score(protocol, protocol.select, *_units(protocol, truth, values))
    except ValueError as error:
        raise UserError(
            f"{lesson.division}: {protocol.select} cannot choose on its {len(lesson.valid)} validation clips: {error}"
        ) from None
    if not math.isfinite(score):
        raise UserError(f"{lesson.division}: a head's {protocol.select} on valid is {score}")
    return score


def _units(protocol: Protocol, truth: NDArray, values: NDArray) -> tuple[Units, Units]:
    """Rows as the protocol's scores take them: the steps of a series are one recording, for scores are end to end."""
    if protocol.kind == "series":
        both = np.empty(1, dtype=object), np.empty(1, dtype=object)
        both[0][0], both[1][0] = truth.astype(np.float64), values
        return both
    if protocol.kind == "classes":
        return truth, values
    truth = truth.astype(np.float64)
    return (truth[:, 0], values) if protocol.kind == "sentiment" else (truth.astype(np.int64), values)
