"""A linear classifier on frozen features, with its one setting chosen on the validation split.

Legend: N clips, D features, C classes. No function here is given a test label.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError
from triptych.scores import Classes, Score

Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted classifier."""

    mean: NDArray[np.float64]
    """[D] of the training clips, like `scale`."""
    scale: NDArray[np.float64]
    model: Any
    """scikit-learn's LogisticRegression."""
    num_classes: int
    c: float
    """The chosen inverse L2 strength."""
    valid_score: float
    converged: bool

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """[N, C]; 0 for a class that no training clip has."""
        known = self.model.predict_proba((features - self.mean) / self.scale)
        rows = np.zeros((len(features), self.num_classes))
        rows[:, self.model.classes_] = known
        return rows


def fit(
    train: tuple[Features, Classes],
    valid: tuple[Features, Classes],
    *,
    num_classes: int,
    c_grid: Sequence[float],
    select: Score,
) -> Probe:
    """Standardise on the training clips, fit one multinomial logistic regression a C, keep the best on valid.

    A tie goes to the smaller C (the stronger regularisation). The chosen classifier is not fitted again on train and
    valid together, so that what was selected is what is tested.

    Args:
        train: features [N, D] and class indices [N].
        valid: the same of the validation split.
        num_classes: C.
        c_grid: inverse L2 strengths.
        select: score by which C is chosen.

    Raises:
        UserError: the training clips are all of one class.
    """
    features, labels = train
    if len(np.unique(labels)) < 2:
        raise UserError("the training split has clips of one class only: nothing to tell apart")
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-8] = 1  # constant columns (absent modalities) become zeros, not infinities
    best: Probe | None = None
    for c in sorted(c_grid):
        model, converged = _logistic_regression((features - mean) / scale, labels, c)
        score = select(valid[1], model.predict((valid[0] - mean) / scale))
        if best is None or score > best.valid_score:
            best = Probe(
                mean=mean,
                scale=scale,
                model=model,
                num_classes=num_classes,
                c=c,
                valid_score=score,
                converged=converged,
            )
    assert best is not None
    return best


def _logistic_regression(features: NDArray[np.float64], labels: Classes, c: float) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=1000).fit(features, labels)
    return model, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
