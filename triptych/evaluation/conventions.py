"""Which scores predictions are quoted in, by whom and under which name, and what constants stand beside them; and a
protocol's scores by their names.

Legend: S runs of a system, N clips or recordings, C classes, E targets of a clip (emotions, or arousal and valence).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from triptych.evaluation import baselines, scores
from triptych.evaluation import number_scores as numbers
from triptych.evaluation.predictions import Predictions
from triptych.evaluation.scores import Score
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol


@dataclass(frozen=True)
class Column:
    """A score as a table prints it."""

    name: str
    score: Score
    quoted: str
    """What it is and who prints it; empty where the sheet says so."""
    percent: bool = True


Systems = Mapping[str, Units]
"""Title -> [S, N, ...]."""
Pairs = Mapping[str, tuple[Units, Units]]
"""Title of a difference -> the runs of the one and of the other, [S, N, ...] each."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table: these scores of these systems."""

    title: str
    quoted: str = ""
    """Of all its columns, where they are targets."""
    columns: tuple[Column, ...]
    truth: Units
    systems: Systems
    """The baselines are the last."""
    pairs: Pairs


CLASSES = (
    Column(
        "WA",
        scores.accuracy,
        "overall accuracy; WA of IEMOCAP (emotion2vec, EmoBox), WAR of HiCMAE, accuracy of RAVDESS (Franceschini) and "
        "MELD (SSE-FT), IEMOCAP accuracy of SUPERB, micro F1 of EmoBox",
    ),
    Column(
        "UA",
        scores.unweighted_accuracy,
        "mean recall; UA of IEMOCAP (EmoBox), UAR of HiCMAE; the other reading of SSE-FT's 'seven class weighted "
        "accuracy' on MELD",
    ),
    Column("weighted F1", scores.weighted_f1, "F1 of MELD (its baseline, SSE-FT) and of IEMOCAP with six classes"),
    Column("macro F1", scores.macro_f1, "EmoBox"),
)

TWO_WAY = (
    Column("accuracy", scores.accuracy, "IEMOCAP's four two-way decisions: Acc of MulT and SSE-FT"),
    Column("weighted F1", scores.weighted_f1, "IEMOCAP's four two-way decisions: F1 of MulT and SSE-FT"),
)
"""Of one choice among C: each class against the rest."""

EMOTIONS = (
    Column(
        "w-ACC",
        scores.weighted_accuracy,
        "balanced accuracy; 'WA' of Tong 2017 and Khare 2021, 'w-ACC' of Franceschini 2022 and FE2E (MOSEI emotion)",
    ),
    Column(
        "weighted F1",
        scores.weighted_f1,
        "F1 of Khare 2021 and Franceschini 2022 (MOSEI emotion), of MulT and SSE-FT (IEMOCAP)",
    ),
    Column("F1", scores.f1, "of the positive class; F1 of FE2E and MESM, whose thresholds are tuned on validation"),
    Column(
        "accuracy",
        scores.accuracy,
        "plain; Acc of MulT and SSE-FT (IEMOCAP), and what MOSEI emotion tables with averages above 80 print as WA",
    ),
    Column(
        "w-ACC and F1",
        scores.mean_of_accuracy_and_f1,
        "mean of w-ACC and weighted F1; printed by nobody, Khare 2021 choose their best model by it (MOSEI emotion)",
    ),
)


def _swapped(truth: Any, prediction: Any) -> float:
    return scores.weighted_f1(prediction, truth)


def _away(truth: Any, prediction: Any) -> float:
    return numbers.binned_accuracy(truth, prediction, 3, "away")


_SENTIMENT = scores.SENTIMENT_SCORES
SENTIMENT: Mapping[str, tuple[Column, ...]] = {
    "five and seven classes": (
        Column("acc7", _SENTIMENT["acc7"], "clipped to ±3, rounded half to even: MulT, MMSA, SSE-FT"),
        Column("acc7_half_away", _SENTIMENT["acc7_half_away"], "the same, halves away from zero"),
        Column("acc7_away", _away, "`cmumosei_round` of the CMU-MultimodalSDK: whatever is not 0 goes away from it"),
        Column("acc5", _SENTIMENT["acc5"], "clipped to ±2, rounded half to even: MMSA"),
    ),
    "two classes": (
        Column("acc2_nonzero", _SENTIMENT["acc2_nonzero"], "truth 0 left out, > 0: MulT, MMSA 'Non0', SSE-FT"),
        Column("acc2_has0", _SENTIMENT["acc2_has0"], ">= 0: MMSA 'Has0', papers before 2019"),
        Column("acc2_positive", _SENTIMENT["acc2_positive"], "> 0 with the zeros in: MulT's code, include-zero"),
    ),
    "two classes, weighted F1": (
        Column("f1_nonzero", _SENTIMENT["f1_nonzero"], "beside acc2_nonzero: MMSA 'Non0', SSE-FT"),
        Column("f1_has0", _SENTIMENT["f1_has0"], "beside acc2_has0: MMSA 'Has0'"),
        Column("f1_positive", _SENTIMENT["f1_positive"], "beside acc2_positive"),
        Column(
            "f1_nonzero_swapped",
            numbers.without_zeros(numbers.above(_swapped, zero=False)),
            "f1_nonzero weighted by what is predicted: MulT's code, which gives truth and prediction in that order",
        ),
    ),
    "numbers": (
        Column("mae", _SENTIMENT["mae"], "mean absolute error, nothing clipped: all", percent=False),
        Column("corr", _SENTIMENT["corr"], "Pearson's r, 0 for a constant: all", percent=False),
    ),
    "without the clips whose truth is 0": (
        Column("acc7_without_0", numbers.without_zeros(_SENTIMENT["acc7"]), "SSE-FT's code in its evaluation run"),
        Column("mae_without_0", numbers.without_zeros(_SENTIMENT["mae"]), "as acc7_without_0", percent=False),
        Column("corr_without_0", numbers.without_zeros(_SENTIMENT["corr"]), "as acc7_without_0", percent=False),
    ),
}


def _recording_mean(truth: Any, prediction: Any) -> float:
    return float(np.mean([scores.concordance_correlation(*pair) for pair in zip(truth, prediction, strict=True)]))


def _end_to_end(score: Score) -> Score:
    return lambda truth, prediction: score(np.concatenate(truth), np.concatenate(prediction))


SERIES = (
    Column(
        "CCC",
        scores.concordance_correlation,
        "all recordings end to end, population moments: Tzirakis 2021, AVEC, end2you",
        percent=False,
    ),
    Column("CCC per recording", _recording_mean, "mean over recordings; papers that average it so", percent=False),
    Column("corr", _end_to_end(scores.correlation), "Pearson's r, recordings end to end", percent=False),
    Column("MAE", _end_to_end(scores.mean_absolute_error), "recordings end to end", percent=False),
)


def by_name(kind: str) -> dict[str, Column]:
    """Every score of a kind of predictions (triptych.evaluation.predictions.KINDS), one target's of several."""
    kinds = {"classes": CLASSES, "emotions": EMOTIONS, "series": SERIES}
    columns = kinds[kind] if kind in kinds else [column for sheet in SENTIMENT.values() for column in sheet]
    return {column.name: column for column in columns}


def columns_of(protocol: Protocol, name: str) -> tuple[Column, ...]:
    """One of a protocol's scores: for each of its targets, where there are several, and last the whole (their mean). Of
    one choice, UA is the mean of the recalls of the classes that occur.

    Args:
        protocol: of any kind.
        name: one of its metrics, or another score of its kind.
    """
    column = by_name(protocol.kind)[name]
    if protocol.kind == "classes" and name == "UA":
        return (*(Column(one, _recall_of(index), "") for index, one in enumerate(protocol.classes)), column)
    if protocol.kind in ("classes", "sentiment"):
        return (column,)
    return per_target(column, tuple(target.label for target in protocol.targets))


def score(protocol: Protocol, name: str, truth: Units, predictions: Units) -> float:
    """One of a protocol's scores, in its own unit (an accuracy of 1 is 100 %); the mean over targets of several.

    Args:
        protocol: of any kind.
        name: one of its metrics; `protocol.select` is the one that chooses (see `protocol.select_lowest`).
        truth: without clips that lack a label; [N] class indices, [N, E] emotions as 0 or 1, [N] sentiment, or of
            series an object array of N recordings [T, E].
        predictions: the same.

    Raises:
        ValueError: undefined on these clips, as w-ACC without a positive clip; names the target.
    """
    return columns_of(protocol, name)[-1].score(truth, predictions)


def sheets(given: Predictions, pairs: Pairs) -> list[Sheet]:
    """Every table for this kind of predictions, beside the trivial systems, which know the truth's distribution."""
    truth, systems, names = given.truth, {**given.systems, **_baselines(given)}, given.names
    if given.kind == "sentiment":
        return [
            Sheet(title=title, columns=columns, truth=truth, systems=systems, pairs=pairs)
            for title, columns in SENTIMENT.items()
        ]
    if given.kind == "emotions":
        return _by_target(EMOTIONS, names, truth, systems, pairs)
    if given.kind == "series":
        return _by_target(SERIES, names, truth, systems, pairs)
    choice = Sheet(title="one choice", columns=CLASSES, truth=truth, systems=systems, pairs=pairs)
    table = np.eye(len(names), dtype=np.int64)
    two_way = {title: table[runs] for title, runs in given.systems.items()}
    two_way["always negative"] = np.zeros((1, len(truth), len(names)), dtype=np.int64)
    two_way_pairs = {title: (table[first], table[second]) for title, (first, second) in pairs.items()}
    return [choice, *_by_target(TWO_WAY, names, table[truth], two_way, two_way_pairs, "each class against the rest: ")]


def _by_target(
    columns: tuple[Column, ...], names: tuple[str, ...], truth: Units, systems: Systems, pairs: Pairs, prefix: str = ""
) -> list[Sheet]:
    return [
        Sheet(
            title=prefix + column.name,
            quoted=column.quoted,
            columns=per_target(column, names),
            truth=truth,
            systems=systems,
            pairs=pairs,
        )
        for column in columns
    ]


def _baselines(given: Predictions) -> Systems:
    """Constants of the scored clips themselves, under names that say so."""
    truth = given.truth
    constants: Mapping[str, Any]
    if given.kind == "classes":
        most = baselines.commonest(truth)
        constants = {f"always {given.names[most]} (majority of these clips)": most}
    elif given.kind == "emotions":
        majority = baselines.by_majority(truth)
        constants = {"always negative": 0 * majority}
        if majority.any():
            constants |= {"always the majority, by emotion": majority}
    elif given.kind == "series":
        mean = baselines.mean_step(truth)
        constants = {"constant: mean": mean, "constant: 0": 0 * mean}
    else:
        constants = _of_sentiment(truth)
    return {name: baselines.constant([value] * len(truth), truth) for name, value in constants.items()}


def _of_sentiment(truth: Units) -> dict[str, float]:
    """Constants by all the names that their value has."""
    constants = {
        "0": 0.0,
        "median": float(np.median(truth)),
        "majority of seven": float(baselines.commonest(scores.sentiment_bins(truth) + 3) - 3),
        "mean": float(truth.mean()),
    }
    named: dict[float, list[str]] = {}
    for name, value in constants.items():
        named.setdefault(value, []).append(name)
    return {f"constant {value:.3g}: {', '.join(names)}": value for value, names in named.items()}


def per_target(column: Column, names: tuple[str, ...]) -> tuple[Column, ...]:
    """A score of one target as one column a target, and their mean where there are several.

    The new scores take [N, E] arrays, or [N] recordings of [T, E] each.
    """

    def of(index: int) -> Score:
        return lambda truth, prediction: column.score(_picked(truth, index), _picked(prediction, index))

    columns = [Column(name, of(index), "", column.percent) for index, name in enumerate(names)]
    if len(names) > 1:
        singles = [column.score for column in columns]

        def mean(truth: Any, prediction: Any) -> float:
            values = []
            for name, single in zip(names, singles, strict=True):
                try:
                    values.append(single(truth, prediction))
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
            return float(np.mean(values))

        columns.append(Column("average", mean, "", column.percent))
    return tuple(columns)


def _picked(values: Units, index: int) -> Any:
    return [recording[:, index] for recording in values] if values.dtype == object else values[:, index]


def _recall_of(index: int) -> Score:
    return lambda truth, prediction: scores.recall(truth, prediction, index)
