"""Trivial systems, which look at no input: what every score must be read beside.

Legend: N clips, C classes, E targets, T steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.evaluation.parts import Split, System
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol


@dataclass(frozen=True)
class _Constant:
    value: Any
    """Prediction for a clip, or for a step of a series: a class index, [E], or a number."""
    shares: NDArray[np.float64] | None = None
    """[C] of the training clips."""


def baselines(protocol: Protocol, train: Mapping[str, Units], test: Split) -> list[System]:
    """The constants of the training split: majority class; always negative and the majority emotion by emotion; mean
    and median; the mean series.

    Args:
        protocol: of any kind.
        train: fold -> truth of its own training clips, all labelled (as `Split.truth`); "" where there are no folds.
        test: of its truth only the lengths of series are looked at.
    """
    folds = test.folds or ("",) * len(test.keys)
    by_fold = {fold: _constants(protocol.kind, train[fold], protocol) for fold in dict.fromkeys(folds)}
    systems = []
    for name in next(iter(by_fold.values())):
        said = [by_fold[fold][name] for fold in folds]
        shares = [one.shares for one in said]
        systems.append(
            System(
                name=name,
                inputs="-",
                predictions=constant([one.value for one in said], test.truth),
                probabilities=np.array([shares]) if protocol.kind == "classes" else None,
            )
        )
    if protocol.kind == "emotions" and not systems[-1].predictions.any():
        return systems[:-1]  # no emotion is there more often than not: the same as always negative
    return systems


def _constants(kind: str, truth: Units, protocol: Protocol) -> dict[str, _Constant]:
    if kind == "classes":
        counts = np.bincount(truth, minlength=len(protocol.classes))
        return {"majority class": _Constant(commonest(truth), counts / len(truth))}
    if kind == "emotions":
        return {
            "always negative": _Constant(np.zeros(truth.shape[1], dtype=np.int64)),
            "majority, by emotion": _Constant(by_majority(truth)),
        }
    if kind == "sentiment":
        return {
            "constant mean": _Constant(float(truth.mean())),
            "constant median": _Constant(float(np.median(truth))),
        }
    return {"constant mean": _Constant(mean_step(truth))}


def commonest(truth: Units) -> int:
    """The class index that most of [N] clips have; the first of several."""
    return int(np.bincount(truth).argmax())


def by_majority(truth: Units) -> NDArray[np.int64]:
    """[E] of [N, E] emotions: 1 where more than half of the clips show it."""
    majority: NDArray[np.int64] = (truth.mean(axis=0) > 0.5).astype(np.int64)
    return majority


def mean_step(truth: Units) -> NDArray[np.float64]:
    """[E] mean over all steps of [N] recordings of [T, E]."""
    mean: NDArray[np.float64] = np.concatenate(list(truth)).mean(axis=0)
    return mean


def constant(values: Sequence[Any], truth: Units) -> Units:
    """[1, N] predictions, one value a clip; of series an object array, the value at each step of its recording.

    Args:
        values: N numbers, or [E] each.
        truth: of series only the lengths are looked at.
    """
    if truth.dtype != object:
        return np.array([values])
    units = np.empty((1, len(values)), dtype=object)
    for index, (step, recording) in enumerate(zip(values, truth, strict=True)):
        units[0, index] = np.broadcast_to(step, recording.shape)
    return units
