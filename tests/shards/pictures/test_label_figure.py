from typing import Any

import pytest

from shards.counts.summary import Tally
from shards.pictures.label_figure import label_figure
from shards.record import ClipRecord


def tally(split: str, labels: list[dict[str, Any]]) -> Tally:
    counted = Tally()
    for number, given in enumerate(labels):
        record = ClipRecord(
            key=f"{split}{number}",
            speaker="s",
            split=split,
            duration_s=1.0,
            has_audio=False,
            has_video=False,
            words=None,
            source={},
            labels=given,
        )
        counted.add(record)
    return counted


def test_a_row_a_label_and_a_column_a_split_in_shares() -> None:
    train = [{"emotion": "sad", "sentiment": -1.0}, {"emotion": "joy", "sentiment": 1 / 3}, {"emotion": "sad"}]
    figure = label_figure({"train": tally("train", train), "valid": tally("valid", [{"emotion": "joy"}])})
    assert figure is not None
    emotion, sentiment = figure.subfigs
    assert [[bar.get_width() for bar in axis.patches] for axis in emotion.axes] == [
        pytest.approx([100 / 3, 200 / 3]),
        [100.0, 0.0],
    ]
    assert [axis.get_title() for axis in emotion.axes] == ["train: 3 of 3 clips", "valid: 1 of 1 clips"]
    titles = [axis.get_title() for axis in sentiment.axes]
    assert titles == ["train: 2 of 3 clips\nmean -0.333, sd 0.667", "valid: 0 of 1 clips"]


def test_many_different_values_are_drawn_in_bins_that_hold_all() -> None:
    values = [number / 1000 for number in range(-500, 500)]
    figure = label_figure({"train": tally("train", [{"arousal": {"rate_hz": 10.0, "values": values}}])})
    assert figure is not None
    bars = figure.subfigs[0].axes[0].patches
    assert 20 < len(bars) <= 50
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100)


def test_without_labels_there_is_no_figure() -> None:
    assert label_figure({"train": tally("train", [{}])}) is None
