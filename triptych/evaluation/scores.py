"""Scores, as the emotion-recognition literature defines them: the door to pure functions of numpy arrays.

    triptych.evaluation.class_scores     classes (indices), several emotions a clip (0 or 1 each)
    triptych.evaluation.number_scores    sentiment in [-3, 3], series
    triptych.evaluation.significance     how sure a score is: intervals, one system against another

In multi-class tables (IEMOCAP, RAVDESS) "WA" is the overall accuracy and "UA" the mean recall; Tong et al. (MOSEI
emotion) call the balanced accuracy of one binary label "WA", here `w-ACC`. Each docstring says who prints the score
under which name; `python -m triptych.score` prints them all. NaN and infinities are refused everywhere; a score that
is undefined on what it is given raises ValueError, unless its docstring names the value that it has there.
"""

from triptych.evaluation.class_scores import (
    EMOTION_SCORES,
    Classes,
    accuracy,
    confusion,
    emotion_scores,
    f1,
    macro_f1,
    mean_of_accuracy_and_f1,
    one_hot,
    recall,
    unweighted_accuracy,
    weighted_accuracy,
    weighted_f1,
)
from triptych.evaluation.number_scores import (
    SENTIMENT_SCORES,
    Numbers,
    concordance_correlation,
    correlation,
    mean_absolute_error,
    sentiment_bins,
    sentiment_scores,
)
from triptych.evaluation.significance import (
    PairedDifference,
    Score,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_scores,
    mean_interval,
    paired_bootstrap,
    percentile_interval,
    wilcoxon_signed_rank,
)

__all__ = [
    "EMOTION_SCORES",
    "SENTIMENT_SCORES",
    "Classes",
    "Numbers",
    "PairedDifference",
    "Score",
    "accuracy",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_scores",
    "concordance_correlation",
    "confusion",
    "correlation",
    "emotion_scores",
    "f1",
    "macro_f1",
    "mean_absolute_error",
    "mean_interval",
    "mean_of_accuracy_and_f1",
    "one_hot",
    "paired_bootstrap",
    "percentile_interval",
    "recall",
    "sentiment_bins",
    "sentiment_scores",
    "unweighted_accuracy",
    "weighted_accuracy",
    "weighted_f1",
    "wilcoxon_signed_rank",
]
