"""How sure a score is: bootstrap intervals over clips, intervals over seeds, and tests of one system against another.

Legend: N clips (of series: recordings), S runs of one system (seeds), B resamples. A score is any function
`score(truth, prediction) -> float` that raises ValueError where it is undefined.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Score = Callable[[Any, Any], float]
Units = NDArray[Any]
"""[N, ...]: one entry a clip; recordings of different lengths are an object array of arrays."""


@dataclass(frozen=True)
class PairedDifference:
    """score(first) - score(second) on the same clips."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: how often a resample has the other sign, or none; never below 2 / (B + 1)."""


def bootstrap_interval(
    score: Score, truth: Any, prediction: Any, *, num: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval over clips (Efron 1979).

    Whole clips are drawn: a row of a multi-label table with all its labels, a recording with all its steps, for the
    steps of one recording say almost the same. Resamples in which the score is undefined (a class is absent) are left
    out.

    Args:
        score: a function of `triptych.evaluation.scores`, or any other.
        truth: [N] class indices or numbers; [N, E] labels; of series a sequence of N recordings, [T] or [T, D] each.
        prediction: as truth, or S of those for the mean score of S runs, all scored on the same resampled clips.
        num: resamples, B.
        level: share of the resampled scores inside the interval.
        seed: of the resampling; the same seed draws the same clips for every system.

    Raises:
        ValueError: the score is undefined on the clips themselves, or on more than half of the resamples; or there is
            one clip or recording only, whose resamples are all alike.
    """
    return percentile_interval(bootstrap_scores(score, truth, prediction, num=num, seed=seed), level=level)


def bootstrap_scores(
    score: Score, truth: Any, prediction: Any, *, num: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """[B] scores of the resamples of `bootstrap_interval`, NaN where the score is undefined.

    The same seed draws the same clips for every score: the mean of what this gives for several targets is what it
    gives for their mean.

    Raises:
        ValueError: the score is undefined on the clips themselves, or there is one clip or recording only.
    """
    return _resampled(lambda t, p: _mean_score(score, t, p), truth, [prediction], num, seed)


def percentile_interval(draws: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Low and high of `bootstrap_scores`.

    Raises:
        ValueError: more than half of them are NaN.
    """
    low, high = np.quantile(_defined(draws), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    score: Score, truth: Any, first: Any, second: Any, *, num: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """`paired_bootstrap` without its p value: the difference, low, high."""
    found = paired_bootstrap(score, truth, first, second, num=num, level=level, seed=seed)
    return found.value, found.low, found.high


def paired_bootstrap(
    score: Score, truth: Any, first: Any, second: Any, *, num: int = 1000, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Difference of two systems on the same clips, with its percentile interval and p value.

    p = 2 min(1 + #{d <= 0}, 1 + #{d >= 0}) / (B + 1), at most 1, over the differences d of the resamples: the level at
    which the percentile interval would just touch 0 (Efron and Tibshirani 1993, section 15.4). It tells about other
    clips like these, not about other seeds.

    Args:
        score: as in `bootstrap_interval`.
        truth: as in `bootstrap_interval`.
        first: as truth, or S of those (mean over runs).
        second: likewise; its S may differ.
        num: resamples, B.
        level: as in `bootstrap_interval`.
        seed: of the resampling.

    Raises:
        ValueError: as `bootstrap_interval`.
    """

    def difference(t: Units, a: Units, b: Units) -> float:
        return _mean_score(score, t, a) - _mean_score(score, t, b)

    value = difference(*(as_units(values) for values in (truth, first, second)))
    draws = _defined(_resampled(difference, truth, [first, second], num, seed))
    rarer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return PairedDifference(
        value, *percentile_interval(draws, level=level), p=min(1.0, 2 * (1 + rarer) / (len(draws) + 1))
    )


def wilcoxon_signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test over paired scores: the same folds, or the same seeds.

    scipy's, pairs without difference dropped. Exact for few pairs: the smallest p of n pairs is 2 / 2^n, so that fewer
    than six never come below 0.05. Where no pair differs it is 1.

    Raises:
        ValueError: lengths differ, no pairs, or a score that is not finite.
    """
    from scipy.stats import wilcoxon  # type: ignore[import-untyped]  # slow to import, rarely needed

    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"paired scores are two lists of the same length: shapes {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a score is not a finite number")
    return float(wilcoxon(a, b).pvalue) if (a != b).any() else 1.0


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of a few runs (seeds) with Student's t interval: mean +- t_{S-1} * s / sqrt(S).

    Returns:
        Mean, low, high.

    Raises:
        ValueError: fewer than two values, or one is not a number.
    """
    from scipy.stats import t as student  # slow to import, rarely needed

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"an interval over seeds needs two values or more, there are {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(f"a score is not a number: {list(values)}")
    mean = float(array.mean())
    half = float(student.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def as_units(values: Any) -> Units:
    """An array with one entry a clip; recordings of different lengths (or S runs of them) become an object array."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.asarray(values)
    except ValueError:  # of different lengths
        entries = [as_units(entry) for entry in values]
    if all(entry.dtype == object and entry.shape == entries[0].shape for entry in entries):
        return np.stack(entries)
    units = np.empty(len(entries), dtype=object)
    for index, entry in enumerate(entries):
        units[index] = entry
    return units


def runs_of(truth: Units, prediction: Units) -> Units:
    """[S, N, ...] of a prediction that may be one run [N, ...]."""
    return prediction if prediction.ndim > truth.ndim else prediction[None]


def _mean_score(score: Score, truth: Units, prediction: Units) -> float:
    return float(np.mean([score(truth, run) for run in runs_of(truth, prediction)]))


def _resampled(
    score: Callable[..., float], truth: Any, predictions: Sequence[Any], num: int, seed: int
) -> NDArray[np.float64]:
    """Scores of `num` resamples of the clips, NaN where undefined."""
    truth_n = as_units(truth)
    runs = [runs_of(truth_n, as_units(prediction)) for prediction in predictions]
    score(truth_n, *runs)  # whatever is wrong with the arguments is told here, not swallowed below
    if len(truth_n) < 2:
        raise ValueError("one clip or recording has no interval: its resamples are all alike")
    generator = np.random.default_rng(seed)
    draws = np.full(num, np.nan)
    for index in range(num):
        chosen = generator.integers(0, len(truth_n), len(truth_n))
        try:
            draws[index] = score(truth_n[chosen], *(run[:, chosen] for run in runs))
        except ValueError:
            continue
    return draws


def _defined(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    found = draws[~np.isnan(draws)]
    if 2 * len(found) < len(draws) or not len(found):
        missing = len(draws) - len(found)
        raise ValueError(f"the score is undefined on {missing} of {len(draws)} resamples: too few clips of a class")
    return found
