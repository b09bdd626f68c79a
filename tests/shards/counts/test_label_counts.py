import json
import random
from typing import Any

import numpy as np
import pytest

from shards.counts.label_counts import LabelCounts, bin_of, check_labels
from shards.record import RawClip
from triptych.config import UserError

SENTIMENT = random.Random(1).choices([-3.0, -1 / 3, 0.1, 1 / 6, 2.6666667, 1e-3], k=300)


def counted(values: list[float]) -> LabelCounts:
    counts = LabelCounts()
    for number, value in enumerate(values):
        counts.add(f"clip{number}", {"sentiment": value})
    return counts


def series(*values: float, rate_hz: float = 10.0) -> dict[str, Any]:
    return {"arousal": {"rate_hz": rate_hz, "values": list(values)}}


def test_numbers_are_described_as_numpy_does() -> None:
    found = counted(SENTIMENT).numbers["sentiment"]
    assert (found.clips, found.values) == (300, 300)
    assert found.mean == pytest.approx(np.mean(SENTIMENT), abs=1e-6)
    assert found.deviation == pytest.approx(np.std(SENTIMENT), abs=1e-6)
    assert (found.low, found.high) == (-3.0, 2.6666667)
    assert found.histogram == {
        wanted: SENTIMENT.count(value)
        for value, wanted in [
            (-3.0, -3.0),
            (-1 / 3, -0.333),
            (0.1, 0.1),
            (1 / 6, 0.167),
            (2.6666667, 2.67),
            (1e-3, 0.001),
        ]
    }


def test_steps_of_a_series_are_counted_and_no_class_is_made_of_them() -> None:
    counts = LabelCounts()
    counts.add("a", series(0.5, -0.5, 0.0))
    counts.add("b", {})
    counts.add("c", {**series(1.0), "emotion": "sad"})
    found = counts.numbers["arousal"]
    assert (found.clips, found.values, found.rate_hz, found.mean) == (2, 4, 10.0, 0.25)
    assert counts.classes == {"emotion": {"sad": 1}}


def test_parts_add_up_to_the_same_bytes_in_any_order() -> None:
    whole = json.dumps(counted(SENTIMENT).to_json())
    parts = [counted(SENTIMENT[start : start + 70]) for start in range(0, 300, 70)]
    for order in (parts, parts[::-1]):
        merged = LabelCounts()
        for part in order:  # as a report of a part comes back from its file
            merged.update(LabelCounts.from_json(json.loads(json.dumps(part.to_json()))))
        assert json.dumps(merged.to_json()) == whole


def test_bins_are_few_whatever_the_unit() -> None:
    assert [bin_of(value) for value in (0.12345, -0.0004, 1.2345, 440.49, 1234567.0)] == [
        0.123,
        0.0,
        1.23,
        440.0,
        1.23e6,
    ]
    steps = np.random.default_rng(0).normal(size=20_000)
    assert len({bin_of(step) for step in steps}) < 3000
    assert len({bin_of(1e5 * step) for step in steps}) < 9000


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"mood": 1.0}, "clip b: label mood is a number, and a class in other clips"),
        ({"sentiment": "good"}, "clip b: label sentiment is a class, and a number in other clips"),
        (series(0.1, rate_hz=25.0), "clip b: label arousal is a series at 25 Hz, and a series at 10 Hz in other clips"),
        ({"arousal": 0.1}, "clip b: label arousal is a number, and a series at 10 Hz in other clips"),
        ({"mood": None}, "clip b: label mood: 'None' is no class"),
        ({"mood": True}, "clip b: label mood: 'True' is no class"),
        ({"sentiment": float("nan")}, "clip b: label sentiment: 'nan' is no class"),
        (series(), "clip b: label arousal: a series that is no list of finite numbers"),
        (series(0.1, float("inf")), "clip b: label arousal: a series that is no list of finite numbers"),
        (series(0.1, rate_hz=0.0), r"clip b: label arousal: a series at 0\.0 Hz; expected a rate above 0"),
    ],
)
def test_a_label_that_is_not_one_thing_is_refused_before_anything_is_written(
    labels: dict[str, Any], message: str
) -> None:
    first = {"mood": "sad", "sentiment": 1.0, **series(0.1)}
    clips = [
        RawClip(key=key, speaker="s", duration_s=1.0, labels=given) for key, given in (("a", first), ("b", labels))
    ]
    with pytest.raises(UserError, match=message):
        check_labels(clips)


def test_parts_that_differ_in_form_are_refused() -> None:
    one, other = LabelCounts(), LabelCounts()
    one.add("a", {"mood": 1.0})
    other.add("b", {"mood": "sad"})
    with pytest.raises(UserError, match="label mood is a class, and a number in other clips"):
        one.update(other)
