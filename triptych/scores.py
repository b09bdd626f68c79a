"""Scores: pure functions of class indices, as the emotion-recognition literature defines them.

Legend: N clips, S runs of one system (seeds). In multi-class tables (IEMOCAP, RAVDESS) "WA" is the overall accuracy
and "UA" the mean recall; Tong et al. (MOSEI emotion) call the balanced accuracy of one binary label "WA".
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Classes = NDArray[np.int64]
Score = Callable[[Classes, Classes], float]


def accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Overall accuracy: correct / N. "WA" of multi-class tables (IEMOCAP four classes), "accuracy" of RAVDESS and MELD.

    Raises:
        ValueError: lengths differ, nothing to score, or a value that is no class index.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    return float(np.mean(truth_n == prediction_n))


def unweighted_accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean recall over the classes that occur in the truth: (1 / K) sum_k correct_k / n_k. "UA" of multi-class tables.

    Raises:
        ValueError: as `accuracy`.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    support = np.bincount(truth_n)
    correct = np.bincount(truth_n[truth_n == prediction_n], minlength=len(support))
    there = support > 0
    return float(np.mean(correct[there] / support[there]))


def weighted_accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Tong et al.'s score of one binary label: (tp * n / p + tn) / 2n, "WA" of MOSEI emotion tables.

    p and n are the numbers of positive and negative clips, tp and tn those of them that were found, so that it is the
    balanced accuracy.

    Raises:
        ValueError: a class is absent from the truth, so that the score is undefined; or a value other than 0 and 1.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    if max(truth_n.max(), prediction_n.max()) > 1:
        raise ValueError("weighted accuracy is a binary score: values are 0 and 1")
    positives, negatives = int((truth_n == 1).sum()), int((truth_n == 0).sum())
    if not positives or not negatives:
        raise ValueError(
            f"weighted accuracy is undefined where a class is absent: {positives} positive, {negatives} negative clips"
        )
    true_positives = int(((truth_n == 1) & (prediction_n == 1)).sum())
    true_negatives = int(((truth_n == 0) & (prediction_n == 0)).sum())
    return (true_positives * negatives / positives + true_negatives) / (2 * negatives)


def weighted_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """F1 of each class, averaged with its share of the truth as weight. MELD, MOSEI and IEMOCAP tables.

    F1_k = 2 tp_k / (n_k + predicted_k). A constant classifier can score high where one class dominates, so the
    trivial row belongs beside it.

    Raises:
        ValueError: as `accuracy`.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    matrix = confusion(truth_n, prediction_n, int(max(truth_n.max(), prediction_n.max())) + 1)
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = 2 * np.diag(matrix) / np.maximum(support + predicted, 1)
    return float((f1 * support).sum() / support.sum())


def confusion(truth: ArrayLike, prediction: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """[num_classes, num_classes] counts; rows are the truth, columns the prediction.

    Raises:
        ValueError: as `accuracy`, or a class index beyond `num_classes`.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    highest = int(max(truth_n.max(), prediction_n.max()))
    if highest >= num_classes:
        raise ValueError(f"class index {highest} with {num_classes} classes")
    flat = np.bincount(truth_n * num_classes + prediction_n, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def bootstrap_interval(
    score: Score, truth: ArrayLike, prediction: ArrayLike, *, num: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval over clips (Efron 1979).

    Resamples in which the score is undefined (a class is absent) are left out.

    Args:
        score: a function of this file.
        truth: [N] class indices.
        prediction: [N], or [S, N] for the mean score of S runs, all scored on the same resampled clips.
        num: resamples.
        level: share of the resampled scores inside the interval.
        seed: of the resampling; the same seed draws the same clips for every system.

    Raises:
        ValueError: the score is undefined on the clips themselves, or on more than half of the resamples.
    """
    draws = _resampled(lambda t, p: _mean_score(score, t, p), truth, [prediction], num, seed)
    return _percentiles(draws, level)


def bootstrap_difference(
    score: Score,
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    num: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of two systems on the same clips, score(first) - score(second), with its paired bootstrap interval.

    Args:
        score: a function of this file.
        truth: [N].
        first: [N] or [S, N] (mean over runs).
        second: [N] or [S, N], its S may differ.
        num: resamples.
        level: as in `bootstrap_interval`.
        seed: of the resampling.

    Returns:
        The difference, low, high.

    Raises:
        ValueError: as `bootstrap_interval`.
    """

    def difference(t: Classes, a: Classes, b: Classes) -> float:
        return _mean_score(score, t, a) - _mean_score(score, t, b)

    value = difference(*(np.asarray(array) for array in (truth, first, second)))
    return value, *_percentiles(_resampled(difference, truth, [first, second], num, seed), level)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a few runs (seeds) with Student's t interval: mean +- t_{S-1} * s / sqrt(S).

    Returns:
        Mean, low, high.

    Raises:
        ValueError: fewer than two values, or one is not a number.
    """
    from scipy.stats import t as student  # type: ignore[import-untyped]  # slow to import, rarely needed

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"an interval over seeds needs two values or more, there are {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(f"a score is not a number: {list(values)}")
    mean = float(array.mean())
    half = float(student.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def _mean_score(score: Score, truth: Classes, prediction: Classes) -> float:
    return float(np.mean([score(truth, run) for run in np.atleast_2d(prediction)]))


def _resampled(
    score: Callable[..., float], truth: ArrayLike, predictions: list[ArrayLike], num: int, seed: int
) -> NDArray[np.float64]:
    """Scores of `num` resamples of the clips, without the undefined ones."""
    truth_n = np.asarray(truth)
    arrays = [np.asarray(prediction) for prediction in predictions]
    score(truth_n, *arrays)  # whatever is wrong with the arguments is told here, not swallowed below
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(num):
        chosen = generator.integers(0, len(truth_n), len(truth_n))
        try:
            draws.append(score(truth_n[chosen], *(array[..., chosen] for array in arrays)))
        except ValueError:
            continue
    if 2 * len(draws) < num or not draws:
        raise ValueError(f"the score is undefined on {num - len(draws)} of {num} resamples: too few clips of a class")
    return np.asarray(draws)


def _percentiles(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(truth: ArrayLike, prediction: ArrayLike) -> tuple[Classes, Classes]:
    return _class_indices("truth", truth, prediction), _class_indices("prediction", prediction, truth)


def _class_indices(name: str, values: ArrayLike, other: ArrayLike) -> Classes:
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 1 or array.shape != np.shape(other):
        raise ValueError(f"truth and prediction are one class index a clip: shapes {array.shape}, {np.shape(other)}")
    if not len(array):
        raise ValueError("no clips to score")
    if np.issubdtype(array.dtype, np.integer):
        if array.min() < 0:
            raise ValueError(f"{name}: class index {array.min()}; leave clips without the label out before scoring")
        return array.astype(np.int64, copy=False)
    if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all() or (array != np.round(array)).any():
        raise ValueError(f"{name}: class indices are wanted, there are values that are not (NaN, fractions or text)")
    return _class_indices(name, array.astype(np.int64), other)
