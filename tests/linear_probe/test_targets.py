"""Labels of clips and rows of a table."""

import numpy as np
import pytest
import torch

from linear_probe import targets
from linear_probe.table import Table
from shards.divisions.truth import has_all_labels
from triptych.batch import UNLABELLED
from triptych.evaluation import answers
from triptych.protocols import registry


def table(*num_rows: int) -> Table:
    return Table(keys=tuple(map(str, range(len(num_rows)))), offsets=np.cumsum([0, *num_rows]), blocks={}, present={})


def series(*clips):
    units = np.empty(len(clips), dtype=object)
    for index, steps in enumerate(clips):
        units[index] = np.array(steps, dtype=np.float64)
    return units


def test_a_clip_counts_where_all_its_labels_are_there():
    assert has_all_labels(np.array([2, UNLABELLED, 0])).tolist() == [True, False, True]
    assert has_all_labels(np.array([0.5, np.nan])).tolist() == [True, False]
    assert has_all_labels(np.array([[1.0, 0.0], [1.0, np.nan]])).tolist() == [True, False]
    assert has_all_labels(series([[np.nan, 1], [2, 3]], [[np.nan, np.nan]])).tolist() == [True, False]


def test_classes_lie_at_the_rows_of_their_clips():
    y = targets.place(table(1, 1, 1), np.array([2, 0]), np.array([5, 3]), registry.find("ravdess"))
    assert y.tolist() == [3, UNLABELLED, 5]


def test_a_series_is_cut_or_ends_early_where_its_rows_do():
    protocol = registry.find("avec2017")
    values = series([[1, 2, 3]] * 4, [[4, 5, 6]])
    y = targets.place(table(3, 2), np.array([0, 1]), values, protocol)
    assert y[:4].tolist() == [[1, 2, 3]] * 3 + [[4, 5, 6]]
    assert y[4].isnan().all()
    assert targets.rows_with_labels(table(3, 2), np.array([0, 1]), y).tolist() == [0, 1, 2, 3]


def test_a_series_said_is_as_long_as_its_labels():
    said = targets.by_clip(table(2, 3), np.array([1, 0]), np.arange(5.0)[:, None], lengths=[2, 4])
    assert [steps[:, 0].tolist() for steps in said] == [[0, 1], [3, 4, 4, 4]]  # what has no row: the last one holds on


@pytest.mark.parametrize(
    ("protocol", "outputs", "wanted"),
    [
        ("ravdess_6", [[0.0, 3, 1, 0, 0, 0]], [1]),
        ("mosei_emotion", [[0.1, -0.1, 0, 2, -2, 5]], [[1, 0, 0, 1, 0, 1]]),
        ("mosi", [[-1.5]], [-1.5]),
        ("avec2017", [[0.25, -0.5, 1]], [[0.25, -0.5, 1]]),
    ],
)
def test_what_outputs_say(protocol, outputs, wanted):
    found = registry.find(protocol)
    assert answers.num_outputs(found) == len(outputs[0])
    assert answers.said(found, torch.tensor(outputs)).tolist() == wanted


def test_only_a_choice_has_probabilities():
    shares = answers.probabilities(registry.find("ravdess_6"), torch.zeros(2, 1, 6))
    assert shares == pytest.approx(np.full((2, 1, 6), 1 / 6))
    assert answers.probabilities(registry.find("mosi"), torch.zeros(2, 1, 1)) is None
