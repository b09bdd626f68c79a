"""Scores of numbers: sentiment in [-3, 3], and series as arousal over time. `triptych.evaluation.scores` is their door.

Legend: N clips, R recordings, T steps.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triptych.evaluation.class_scores import Classes, accuracy, weighted_f1
from triptych.evaluation.significance import Score, as_units

Numbers = NDArray[np.float64]
Rounding = Literal["half_even", "half_away", "away"]


def sentiment_bins(values: ArrayLike, limit: int = 3, rounding: Rounding = "half_even") -> Classes:
    """Sentiment as integers in [-limit, limit]: clip, then round.

    Args:
        values: any shape.
        limit: 3 for acc7, 2 for acc5.
        rounding: where 0.5 and 0.3 go: `half_even` 0 and 0 (numpy's: MulT, MMSA, SSE-FT), `half_away` 1 and 0 (what
            C and schools do), `away` 1 and 1 (`cmumosei_round` of CMU-MultimodalSDK's README: 0 is exactly 0).
    """
    clipped = np.clip(np.asarray(values, dtype=np.float64), -limit, limit)
    if not np.isfinite(clipped).all():
        raise ValueError("sentiment: values that are no finite numbers")
    if rounding == "half_even":
        return np.round(clipped).astype(np.int64)
    whole = np.trunc(clipped)
    rest = np.abs(clipped - whole)  # exact, where floor(|x| + 0.5) is not
    up = rest >= 0.5 if rounding == "half_away" else rest > 0
    return (whole + np.sign(clipped) * up).astype(np.int64)


def binned_accuracy(truth: ArrayLike, prediction: ArrayLike, limit: int, rounding: Rounding = "half_even") -> float:
    """Share of clips whose `sentiment_bins` agree.

    Raises:
        ValueError: as `mean_absolute_error`.
    """
    truth_n, prediction_n = _numbers(truth, prediction)
    return float(np.mean(sentiment_bins(truth_n, limit, rounding) == sentiment_bins(prediction_n, limit, rounding)))


def mean_absolute_error(truth: ArrayLike, prediction: ArrayLike) -> float:
    """mean |truth - prediction|, nothing clipped. "MAE" of MOSI and MOSEI tables.

    Raises:
        ValueError: lengths differ, nothing to score, or a value that is no finite number.
    """
    truth_n, prediction_n = _numbers(truth, prediction)
    return float(np.mean(np.abs(truth_n - prediction_n)))


def correlation(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Pearson's r. "Corr" of MOSI and MOSEI tables.

    0 where the truth or the prediction is constant: nothing follows the truth there. (numpy and scipy say NaN.)

    Raises:
        ValueError: as `mean_absolute_error`.
    """
    truth_n, prediction_n = _numbers(truth, prediction)
    if np.ptp(truth_n) == 0 or np.ptp(prediction_n) == 0:
        return 0.0
    a, b = truth_n - truth_n.mean(), prediction_n - prediction_n.mean()
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1, 1))


def concordance_correlation(truth: Any, prediction: Any) -> float:
    """Lin's concordance correlation: 2 cov / (var_t + var_p + (mean_t - mean_p)^2), population moments (1 / N).

    "CCC" of SEWA (Tzirakis et al. 2021, with 1 - CCC as the loss; AVEC; end2you): one value over all recordings end
    to end, not the mean of one a recording. (Tzirakis' Eq. 10 prints the covariance squared, which is a typo.)

    A constant prediction has 0, and so has any other prediction of a constant truth; equal truth and prediction have
    1, also where both are constant and the equation says 0 / 0.

    Args:
        truth: [T], or R recordings, [T] each, of the same or of different lengths.
        prediction: the same.

    Raises:
        ValueError: lengths differ, nothing to score, or a value that is no finite number.
    """
    truth_t, prediction_t = _numbers(*_end_to_end(truth, prediction))
    if np.array_equal(truth_t, prediction_t):
        return 1.0
    if np.ptp(truth_t) == 0 or np.ptp(prediction_t) == 0:
        return 0.0
    mean_t, mean_p = truth_t.mean(), prediction_t.mean()
    covariance = np.mean((truth_t - mean_t) * (prediction_t - mean_p))
    return float(2 * covariance / (truth_t.var() + prediction_t.var() + (mean_t - mean_p) ** 2))


def sentiment_scores(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Every score that MOSI and MOSEI sentiment is quoted in, from [N] numbers in [-3, 3] (predictions may be beyond).

    For code of one's own: the commands print it by `triptych.evaluation.conventions`.

    acc7             both sides clipped to +-3 and rounded half to even. MulT, MMSA, SSE-FT
    acc7_half_away   the same, halves rounded away from zero
    acc5             as acc7, clipped to +-2. MMSA
    acc2_nonzero     positive or negative, clips with truth 0 left out. MulT, MMSA "Non0", SSE-FT
    acc2_has0        >= 0 or not, all clips. MMSA "Has0", papers before 2019
    acc2_positive    > 0 or not, all clips. MulT's code with zeros included
    f1_*             support-weighted F1 of the same three, truth first
    mae, corr        `mean_absolute_error` and `correlation` (0 for a constant), nothing clipped or left out

    Raises:
        ValueError: lengths differ, nothing to score, a value that is no finite number, or every truth is 0, so that
            acc2_nonzero is undefined.
    """
    return {name: score(truth, prediction) for name, score in SENTIMENT_SCORES.items()}


def without_zeros(score: Score) -> Score:
    """The score over clips whose truth is not 0.

    Raises:
        ValueError: (the new score) every truth is 0.
    """

    def scored(truth: ArrayLike, prediction: ArrayLike) -> float:
        truth_n, prediction_n = _numbers(truth, prediction)
        if not truth_n.any():
            raise ValueError("undefined without the clips whose truth is 0: there are no others")
        return score(truth_n[truth_n != 0], prediction_n[truth_n != 0])

    return scored


def above(score: Score, *, zero: bool) -> Score:
    """A score of classes as one of numbers: > 0 or not; with `zero`, >= 0 or not."""

    def scored(truth: ArrayLike, prediction: ArrayLike) -> float:
        sides = [(values >= 0 if zero else values > 0).astype(np.int64) for values in _numbers(truth, prediction)]
        return score(*sides)

    return scored


SENTIMENT_SCORES: Mapping[str, Score] = {
    "acc7": lambda truth, prediction: binned_accuracy(truth, prediction, 3),
    "acc7_half_away": lambda truth, prediction: binned_accuracy(truth, prediction, 3, "half_away"),
    "acc5": lambda truth, prediction: binned_accuracy(truth, prediction, 2),
    "acc2_nonzero": without_zeros(above(accuracy, zero=False)),
    "acc2_has0": above(accuracy, zero=True),
    "acc2_positive": above(accuracy, zero=False),
    "f1_nonzero": without_zeros(above(weighted_f1, zero=False)),
    "f1_has0": above(weighted_f1, zero=True),
    "f1_positive": above(weighted_f1, zero=False),
    "mae": mean_absolute_error,
    "corr": correlation,
}
"""What `sentiment_scores` says, one function each."""


def _end_to_end(truth: Any, prediction: Any) -> tuple[ArrayLike, ArrayLike]:
    """Recordings, if that is what they are, one after the other."""
    sides = [as_units(values) for values in (truth, prediction)]
    if all(side.ndim == 1 and side.dtype != object for side in sides):
        return sides[0], sides[1]
    parts = [[np.asarray(recording) for recording in side] for side in sides]
    lengths = [[part.shape for part in side] for side in parts]
    if lengths[0] != lengths[1] or any(part.ndim != 1 for side in parts for part in side):
        said = f"shapes {lengths[0]}, {lengths[1]}"
        raise ValueError(f"truth and prediction are recordings of the same lengths, one number a step: {said}")
    if not parts[0]:
        raise ValueError("no recordings to score")
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _numbers(truth: ArrayLike, prediction: ArrayLike) -> tuple[Numbers, Numbers]:
    sides = []
    for name, values in (("truth", truth), ("prediction", prediction)):
        array = np.asarray(values)
        if array.ndim != 1 or array.shape != np.shape(prediction):
            raise ValueError(f"truth and prediction are one number each: shapes {array.shape}, {np.shape(prediction)}")
        if not len(array):
            raise ValueError("nothing to score")
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(
                f"{name}: finite numbers are wanted, there are values that are not (NaN, infinite or text)"
            )
        sides.append(array.astype(np.float64, copy=False))
    return sides[0], sides[1]
