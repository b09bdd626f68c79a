"""A score as reports keep it: its value over runs, its interval, or why one of them is missing."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.evaluation import scores
from triptych.evaluation.significance import Score, Units

Entry = dict[str, Any]
"""A score in results.json: value (the mean over runs), low, high, runs; several runs: std, seeds_low, seeds_high; a
cross-validation: folds; several targets: targets. Without a value or an interval: undefined, which says why."""


def draws_of(score: Score, truth: Units, runs: Units, num: int) -> NDArray[np.float64]:
    """[num] scores of clips drawn anew, the mean over runs; NaN where there are none to draw from (one clip, or a score
    that is undefined on the clips themselves, which `entry_of` says)."""
    try:
        return scores.bootstrap_scores(score, truth, runs, num=num)
    except ValueError:
        return np.full(num, np.nan)


def entry_of(score: Score, truth: Units, runs: Units, draws: NDArray[np.float64]) -> Entry:
    """`value` (mean over runs), `low` and `high`, and each run's value; `undefined` says why one of them is missing.

    Args:
        score: of truth and one run.
        truth: [N].
        runs: [S, N].
        draws: of `draws_of`, whose percentiles are the interval.
    """
    try:
        each = [float(score(truth, run)) for run in runs]
    except ValueError as error:
        return {"undefined": str(error)}
    entry: Entry = {"value": float(np.mean(each))}
    try:
        entry["low"], entry["high"] = scores.percentile_interval(draws)
    except ValueError as error:
        entry["undefined"] = f"no interval: {error}"
    return {**entry, "runs": each}
