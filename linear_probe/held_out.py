"""The labels of the held-out clips, opened once, after every choice; and what was said of those clips before.

Legend: S runs of a system (sources and seeds), N labelled test clips, R rows of all test clips, C outputs.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from linear_probe import targets
from linear_probe.study import LEARNT, Learnt, Study
from shards.divisions.truth import whole_steps
from triptych.config import UserError
from triptych.evaluation import answers, baselines, results
from triptych.evaluation.conventions import by_name
from triptych.evaluation.significance import Units
from triptych.evaluation.tables import number


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a row's heads say of all held-out clips, before anything is known of their labels."""

    name: str
    inputs: str
    learnt: Learnt
    outputs: Tensor
    """[S, R, C] at the rows of `Study.test_keys`."""


@dataclass(frozen=True)
class HeldOut:
    """The labels are read where this is made, see `open_labels`."""

    study: Study
    split: results.Split
    kept: NDArray[np.bool_]
    """Of `Study.test_keys`: which have labels."""

    def system(self, said: Said) -> results.System:
        """A row of the report."""
        values = answers.said(self.study.protocol, said.outputs)
        predictions = self._by_clip(values) if self.study.protocol.kind == "series" else values[:, self.kept]
        shares = answers.probabilities(self.study.protocol, said.outputs)
        return results.System(
            name=said.name,
            inputs=said.inputs,
            predictions=predictions,
            probabilities=None if shares is None else shares[:, self.kept],
            note=describe(self.study, said.learnt),
        )

    def trivial(self) -> list[results.System]:
        """Constants, of each division's own training clips."""
        train = {
            division.name if self.split.folds else "": learning_split(self.study, index, "train").truth
            for index, division in enumerate(self.study.divisions)
        }
        return baselines.baselines(self.study.protocol, train, self.split)

    def _by_clip(self, values: NDArray[np.float64]) -> Units:
        """[S, N] series as long as their labels, without the steps that have none."""
        clips = self.study.clips(self.study.test_keys)
        truth = self.study.truth.of(self.study.test_keys)
        runs = np.empty((len(values), len(self.split.keys)), dtype=object)
        for run, rows in enumerate(values):
            series = targets.by_clip(self.study.table, clips, rows, [len(steps) for steps in truth])
            whole = [one[whole_steps(steps)] for one, steps in zip(series, truth, strict=True)]
            for index, place in enumerate(np.flatnonzero(self.kept)):
                runs[run, index] = whole[place]
        return runs


def open_labels(study: Study) -> HeldOut:
    """Read the labels of the held-out clips.

    Raises:
        UserError: none has any.
    """
    keys = study.test_keys
    kept, truth = study.truth.scored(keys)
    if not kept.any():
        raise UserError(f"none of the {len(keys)} held-out clips has a label that {study.protocol.name} scores")
    names = [division.name for division in study.divisions for _ in division.keys["test"]]
    split = results.Split(
        keys=tuple(key for key, there in zip(keys, kept, strict=True) if there),
        truth=truth,
        left_out=int((~kept).sum()),
        folds=tuple(name for name, there in zip(names, kept, strict=True) if there) if len(study.divisions) > 1 else (),
    )
    return HeldOut(study, split, kept)


def learning_split(study: Study, division: int, name: str) -> results.Split:
    """Train or valid of a division as the report counts it."""
    keys = study.divisions[division].keys[name]
    kept, truth = study.truth.scored(keys)
    labelled = tuple(key for key, there in zip(keys, kept, strict=True) if there)
    return results.Split(keys=labelled, truth=truth, left_out=int((~kept).sum()))


def splits(study: Study, held_out: HeldOut) -> dict[str, results.Split]:
    """Of the report: of several divisions the held-out clips alone."""
    if held_out.split.folds:
        return {"test": held_out.split}
    return {**{name: learning_split(study, 0, name) for name in LEARNT}, "test": held_out.split}


def describe(study: Study, learnt: Learnt) -> str:
    """What was chosen on valid, with its score there; of several divisions and seeds what most chose."""
    chosen = [one for source in learnt.chosen for one in source]
    names = Counter(f"{one.trial.head} {one.trial.setting}, {one.view.name}" for one in chosen)
    name, count = names.most_common(1)[0]
    share = f" in {count} of {len(chosen)}" if len(names) > 1 else ""
    score = number(learnt.valid_score, by_name(study.protocol.kind)[study.protocol.select].percent)
    stopped = "" if all(one.trial.converged for one in chosen) else "; stopped before convergence"
    weights = [weight for one in chosen if (weight := one.layer_weights()) is not None]
    layers = (
        "; layers from the input on weigh " + " ".join(f"{w:.2f}" for w in np.mean(weights, axis=0)) if weights else ""
    )
    return f"{name}{share} ({study.protocol.select} {score}){stopped}{layers}"
