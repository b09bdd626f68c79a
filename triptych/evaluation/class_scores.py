"""Scores of classes: one choice a clip, and several two-way labels a clip. `triptych.evaluation.scores` is their door.

Legend: N clips, C classes, E emotions; classes are indices from 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triptych.evaluation.significance import Score

Classes = NDArray[np.int64]


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


def recall(truth: ArrayLike, prediction: ArrayLike, index: int) -> float:
    """Share of the clips of one class that are found.

    Raises:
        ValueError: as `accuracy`, or the class does not occur, so that the score is undefined.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    own = truth_n == index
    if not own.any():
        raise ValueError(f"the recall of class {index} is undefined: no clip has it")
    return float(np.mean(prediction_n[own] == index))


def weighted_accuracy(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Tong et al.'s score of one binary label: (tp * n / p + tn) / 2n, "WA" of MOSEI emotion tables.

    p and n are the numbers of positive and negative clips, tp and tn those of them that were found, so that it is the
    balanced accuracy. Tong et al. 2017, Khare et al., Franceschini et al. ("w-ACC"), FE2E. A constant has 0.5.

    Raises:
        ValueError: a class is absent from the truth, so that the score is undefined; or a value other than 0 and 1.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    _refuse_above_one(truth_n, prediction_n)
    positives, negatives = int((truth_n == 1).sum()), int((truth_n == 0).sum())
    if not positives or not negatives:
        raise ValueError(
            f"weighted accuracy is undefined where a class is absent: {positives} positive, {negatives} negative clips"
        )
    true_positives = int(((truth_n == 1) & (prediction_n == 1)).sum())
    true_negatives = int(((truth_n == 0) & (prediction_n == 0)).sum())
    return (true_positives * negatives / positives + true_negatives) / (2 * negatives)


def weighted_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """F1 of each class, averaged with its share of the truth as weight: scikit-learn's `average="weighted"`.

    "F1" of MELD, of MOSEI emotion (Khare, Franceschini) and sentiment, and of IEMOCAP's four emotions (MulT, SSE-FT).

    F1_k = 2 tp_k / (n_k + predicted_k). A constant classifier can score high where one class dominates, so the
    trivial row belongs beside it.

    Raises:
        ValueError: as `accuracy`.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    matrix = confusion(truth_n, prediction_n, int(max(truth_n.max(), prediction_n.max())) + 1)
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    f1_k = 2 * np.diag(matrix) / np.maximum(support + predicted, 1)
    return float((f1_k * support).sum() / support.sum())


def mean_of_accuracy_and_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean of `weighted_accuracy` and `weighted_f1`, by which Khare et al. 2021 choose among ten models on validation.

    Raises:
        ValueError: as `weighted_accuracy`.
    """
    return (weighted_accuracy(truth, prediction) + weighted_f1(truth, prediction)) / 2


def macro_f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Plain mean of F1_k over the classes that occur in the truth or the prediction. "Macro F1" of EmoBox.

    A class that is only predicted, or never found, counts as 0, as in scikit-learn's `average="macro"`.

    Raises:
        ValueError: as `accuracy`.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    matrix = confusion(truth_n, prediction_n, int(max(truth_n.max(), prediction_n.max())) + 1)
    either = matrix.sum(axis=1) + matrix.sum(axis=0)
    there = either > 0
    return float(np.mean(2 * np.diag(matrix)[there] / either[there]))


def f1(truth: ArrayLike, prediction: ArrayLike) -> float:
    """F1 of the positive class of one binary label: 2 tp / (positives + predicted). "F1" of FE2E and MESM.

    0 where no positive is found, also where there is none and none is predicted (scikit-learn's `zero_division=0`).

    Raises:
        ValueError: as `accuracy`, or a value other than 0 and 1.
    """
    truth_n, prediction_n = _checked(truth, prediction)
    _refuse_above_one(truth_n, prediction_n)
    either = int(truth_n.sum() + prediction_n.sum())
    return 2 * int((truth_n & prediction_n).sum()) / either if either else 0.0


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


def one_hot(classes: ArrayLike, num_classes: int) -> Classes:
    """[N] class indices as [N, C] of 0 and 1: "this class or another", as IEMOCAP's four two-way tables score them.

    For code of one's own: no command calls it.

    Raises:
        ValueError: as `accuracy`, or a class index beyond `num_classes`.
    """
    indices = _class_indices("classes", classes, classes)
    if indices.max() >= num_classes:
        raise ValueError(f"class index {indices.max()} with {num_classes} classes")
    return np.eye(num_classes, dtype=np.int64)[indices]


EMOTION_SCORES: Mapping[str, Score] = {
    "w-ACC": weighted_accuracy,
    "weighted F1": weighted_f1,
    "F1": f1,
    "accuracy": accuracy,
}
"""Scores of one binary label: three of them are called plainly "accuracy" or "F1" in some table of MOSEI emotion."""


def emotion_scores(truth: ArrayLike, prediction: ArrayLike, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The table of several binary labels: every score of EMOTION_SCORES for each emotion, and their plain means.

    For code of one's own: the commands print it by `triptych.evaluation.conventions`.

    MOSEI's six emotions: Khare and Franceschini print w-ACC and weighted F1, FE2E w-ACC and F1, MulT's descendants
    plain accuracy. IEMOCAP's four two-way decisions (MulT, SSE-FT): accuracy and weighted F1; of one choice among four
    give `one_hot`. Beside each stands what "always negative" scores: weighted F1 and accuracy reward it.

    Args:
        truth: [N, E] of 0 and 1.
        prediction: [N, E] of 0 and 1.
        names: E emotions.

    Returns:
        `{emotion: {score: value, ..., "support": positives, "always_negative": {score: value, ...}}}`, and the same
        under "average", whose support is the sum.

    Raises:
        ValueError: shapes that do not fit, a value other than 0 and 1, or an emotion (named) for which the truth has
            positives only or negatives only, so that w-ACC is undefined.
    """
    truth_ne, prediction_ne = np.asarray(truth), np.asarray(prediction)
    if truth_ne.ndim != 2 or truth_ne.shape != prediction_ne.shape or truth_ne.shape[1] != len(names):
        shapes = f"{truth_ne.shape}, {prediction_ne.shape} with {len(names)} names"
        raise ValueError(f"truth and prediction are [clips, emotions]: shapes {shapes}")
    if len({*names, "average"}) <= len(names):
        raise ValueError(f"emotions need different names, none of them 'average': {', '.join(names)}")
    table: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        column = truth_ne[:, index]
        try:
            row: dict[str, Any] = _emotion_row(column, prediction_ne[:, index])
            row["always_negative"] = _emotion_row(column, np.zeros(len(column), dtype=np.int64))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        table[name] = {**row, "support": int(column.sum())}
    rows = list(table.values())
    average: dict[str, Any] = {score: float(np.mean([row[score] for row in rows])) for score in EMOTION_SCORES}
    trivial = [row["always_negative"] for row in rows]
    average["always_negative"] = {score: float(np.mean([row[score] for row in trivial])) for score in EMOTION_SCORES}
    table["average"] = {**average, "support": sum(row["support"] for row in rows)}
    return table


def _emotion_row(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    return {name: score(truth, prediction) for name, score in EMOTION_SCORES.items()}


def _refuse_above_one(truth: Classes, prediction: Classes) -> None:
    if max(truth.max(), prediction.max()) > 1:
        raise ValueError("this is a score of one binary label: values are 0 and 1")


def _checked(truth: ArrayLike, prediction: ArrayLike) -> tuple[Classes, Classes]:
    return _class_indices("truth", truth, prediction), _class_indices("prediction", prediction, truth)


def _class_indices(name: str, values: ArrayLike, other: ArrayLike) -> Classes:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype == bool:
        array = array.astype(np.int64)
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
