import random
from itertools import pairwise

import numpy as np
import pytest

from shards.divisions.truth import Truth, share_of, shuffled
from shards.reading.index import Split
from triptych.config import UserError
from triptych.labels import UNLABELLED
from triptych.protocols import registry

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")


@pytest.fixture
def said(written, record):
    """`said({key: labels})`: a shard set of clips with these labels, one in five in the test split."""

    def make(labels):
        splits = ("train", "train", "valid", "train", "test")
        return written(
            [record(key, key, split=splits[n % 5], labels=found) for n, (key, found) in enumerate(labels.items())]
        )

    return make


def test_classes_are_those_of_the_protocol_and_others_are_unlabelled(said):
    """Excited counts as happy in `iemocap`, which leaves frustrated out; its order is angry, happy, neutral, sad."""
    names = {"a": "sad", "b": "excited", "c": "frustrated", "d": "happy", "e": "angry"}
    shard_set = said({**{key: {"emotion": name} for key, name in names.items()}, "f": {}, "g": {"valence": 2.0}})

    values = Truth(shard_set, registry.find("iemocap")).of(list("fabcdeg"))

    assert values.dtype == np.int64
    assert values.tolist() == [UNLABELLED, 3, 1, UNLABELLED, 1, 0, UNLABELLED]
    two = registry.find("iemocap", ("sad", "happy"))
    assert Truth(shard_set, two).of(list("abe")).tolist() == [0, 1, UNLABELLED]


def test_emotions_are_there_above_the_threshold_and_unknown_where_a_clip_does_not_say(said):
    shard_set = said(
        {"a": dict.fromkeys(EMOTIONS, 0.0) | {"fear": 1 / 3, "sad": 3.0}, "b": {"happy": 1.0, "anger": 0.0}, "c": {}}
    )

    values = Truth(shard_set, registry.find("mosei_emotion")).of(["a", "b", "c"])

    assert values.dtype == np.float64
    nan = np.nan
    wanted = [[0, 1, 0, 0, 0, 1], [1, nan, 0, nan, nan, nan], [nan] * 6]
    assert np.array_equal(values, wanted, equal_nan=True)


def test_sentiment_is_the_number_said(said):
    values = Truth(said({"a": {"sentiment": -1 / 3}, "b": {}, "c": {"sentiment": 2}}), registry.find("mosi")).of("cba")
    assert np.array_equal(values, [2.0, np.nan, -1 / 3], equal_nan=True)


def test_series_are_side_by_side_and_unknown_after_their_end(said):
    def at_10_hz(*values):
        return {"rate_hz": 10.0, "values": list(values)}

    shard_set = said(
        {
            "a": {"arousal": at_10_hz(0.1, 0.2, 0.3), "liking": at_10_hz(1.0)},
            "b": {},
            "c": dict.fromkeys(("arousal", "valence", "liking"), at_10_hz(0.5)),
        }
    )

    values = Truth(shard_set, registry.find("avec2017")).of(["a", "b", "c"])

    nan = np.nan
    assert values.shape == (3,)
    assert np.array_equal(values[0], [[0.1, nan, 1.0], [0.2, nan, nan], [0.3, nan, nan]], equal_nan=True)
    assert np.array_equal(values[1], [[nan] * 3], equal_nan=True)
    assert values[2].tolist() == [[0.5] * 3]
    slow = said({"a": {"arousal": {"rate_hz": 25.0, "values": [0.1]}}})
    with pytest.raises(UserError, match="clip a: arousal is a series at 25 Hz, and is asked for as a series at 10 Hz"):
        Truth(slow, registry.find("avec2017")).of(["a"])


@pytest.mark.parametrize("name", ["ravdess", "mosei_emotion", "mosi", "avec2019"])
def test_of_no_clips_there_are_no_labels(said, name):
    protocol = registry.find(name)
    values = Truth(said({"a": {}}), protocol).of([])
    assert values.shape == ((0, 6) if protocol.kind == "emotions" else (0,))


def test_only_the_records_that_are_asked_for_are_read_each_once_and_in_order(said, monkeypatch):
    keys = [f"clip{number:03d}" for number in range(100)]
    shard_set = said({key: {"emotion": "sad"} for key in keys})
    truth, opened, record = Truth(shard_set, registry.find("ravdess")), [], Split.record

    def counted(split, sample_id):
        opened.append((split.name, sample_id))
        return record(split, sample_id)

    monkeypatch.setattr(Split, "record", counted)
    assert truth.read == frozenset()
    for wanted in (random.Random(1).sample(keys, 10), random.Random(2).sample(keys, 10)):
        truth.of(wanted)
        assert truth.of(wanted).tolist() == [3] * 10
    asked = {*random.Random(1).sample(keys, 10), *random.Random(2).sample(keys, 10)}
    assert truth.read == asked
    assert len(opened) == len(set(opened)) == len(asked)
    first = opened[:10]
    assert [place for name in ("train", "valid", "test") for place in sorted(first) if place[0] == name] == first


def test_a_clip_that_is_not_there_is_told_before_anything_is_read(said):
    truth = Truth(said({"a": {}}), registry.find("ravdess"))
    with pytest.raises(UserError, match="has no clip 'b', nor 1 others"):
        truth.of(["a", "c", "b"])
    assert truth.read == frozenset()


KEYS = tuple(f"clip{number:04d}" for number in range(1000))
CLASSES = np.array([0] * 600 + [1] * 300 + [2] * 3 + [UNLABELLED] * 97)


def test_a_larger_share_of_the_labels_holds_a_smaller_and_has_its_share_of_each_class():
    parts = [set(share_of(KEYS, CLASSES, share, seed=0)) for share in (0.01, 0.1, 0.5, 1.0)]

    assert all(small < large for small, large in pairwise(parts))
    of_class = {key: int(value) for key, value in zip(KEYS, CLASSES, strict=True)}
    counts = [[sum(of_class[key] == value for key in part) for value in (0, 1, 2, UNLABELLED)] for part in parts]
    assert counts == [[6, 3, 1, 0], [60, 30, 1, 0], [300, 150, 2, 0], [600, 300, 3, 0]]


def test_a_share_is_a_function_of_seed_and_key_in_the_order_given():
    part = share_of(KEYS, CLASSES, 0.1, seed=0)

    turned = share_of(KEYS[::-1], CLASSES[::-1], 0.1, seed=0)
    assert turned == part[::-1]
    assert share_of(KEYS, CLASSES, 0.1, seed=1) != part
    for share in (0, -0.1, 1.01):
        with pytest.raises(UserError, match="more than 0 and at most 1"):
            share_of(KEYS, CLASSES, share, seed=0)


def test_a_share_of_numbers_is_of_the_clips_that_have_any():
    emotions = np.zeros((1000, 6))
    emotions[:500] = np.nan
    emotions[0, 3] = 1.0  # known of one emotion
    part = share_of(KEYS, emotions, 0.2, seed=0)
    assert len(part) == 100
    assert set(part) <= {KEYS[0], *KEYS[500:]}
    series = np.empty(3, dtype=object)
    series[:] = [np.zeros((4, 2)), np.full((1, 2), np.nan), np.ones((2, 2))]
    assert share_of(KEYS[:3], series, 1.0, seed=0) == (KEYS[0], KEYS[2])


def test_shuffled_labels_are_the_same_labels_on_other_clips():
    mixed = shuffled(CLASSES, seed=0)

    assert np.array_equal(mixed == UNLABELLED, CLASSES == UNLABELLED)
    assert np.array_equal(np.bincount(mixed[:903]), np.bincount(CLASSES[:903]))
    shares = np.bincount(CLASSES[:903]) / 903
    agreement = np.mean(mixed[:903] == CLASSES[:903])
    assert agreement == pytest.approx(np.sum(shares**2), abs=0.05)  # what chance agrees on
    assert np.array_equal(shuffled(CLASSES, seed=0), mixed)
    assert not np.array_equal(shuffled(CLASSES, seed=1), mixed)


def test_shuffled_emotions_stay_together_and_unknown_clips_unknown():
    emotions = np.arange(600.0).reshape(100, 6)
    emotions[::10] = np.nan
    mixed = shuffled(emotions, seed=0)
    assert np.isnan(mixed[::10]).all()
    assert not np.isnan(np.delete(mixed, np.s_[::10], axis=0)).any()
    assert {tuple(row) for row in mixed if row[0] == row[0]} == {tuple(row) for row in emotions if row[0] == row[0]}


def test_a_shuffled_series_has_the_length_of_its_clip():
    series = np.empty(20, dtype=object)
    series[:] = [np.full((1 + number, 2), float(number)) for number in range(20)]
    mixed = shuffled(series, seed=0)
    assert [steps.shape for steps in mixed] == [steps.shape for steps in series]
    assert sorted(steps[0, 0] for steps in mixed) == list(range(20))
    assert [steps[0, 0] for steps in mixed] != list(range(20))
