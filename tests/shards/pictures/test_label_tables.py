import io
from typing import Any

import pytest
from rich.console import Console

from shards.counts.label_counts import Distribution
from shards.counts.summary import Tally
from shards.pictures.label_tables import bin_edges, binned, label_tables
from shards.record import ClipRecord


def tally(*labels: dict[str, Any]) -> Tally:
    counted = Tally()
    for number, given in enumerate(labels):
        counted.add(
            ClipRecord(
                key=f"clip{number}",
                speaker="s",
                split="train",
                duration_s=1.0,
                has_audio=False,
                has_video=False,
                words=None,
                source={},
                labels=given,
            )
        )
    return counted


def rows(tallies: dict[str, Tally]) -> list[list[str]]:
    """The cells of all rows of all tables."""
    text = io.StringIO()
    console = Console(file=text, width=100)
    for table in label_tables(tallies):
        console.print(table)
    lines = [line for line in text.getvalue().splitlines() if line[:1] in "│┃"]
    return [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]


def test_classes_are_counted_with_their_shares_and_clips_without() -> None:
    train = tally(*3 * [{"emotion": "sad"}], {"emotion": "joy"}, {})
    assert rows({"train": train, "valid": tally({"emotion": "joy"})}) == [
        ["class", "train", "valid"],
        ["sad", "3  75.0 %", "0   0.0 %"],
        ["joy", "1  25.0 %", "1 100.0 %"],
        ["without", "1", "0"],
    ]


def test_a_label_with_very_many_classes_is_summed_up() -> None:
    printed = rows({"train": tally(*({"word": f"word{number}"} for number in range(100)))})
    assert len(printed) == 42
    assert printed[-1] == ["60 more classes", "60  60.0 %"]


def test_numbers_are_described_and_drawn() -> None:
    values = [-3.0, 3.0, *(number / 6 for number in range(-6, 7))]
    train = tally(*({"sentiment": value} for value in values), {})
    assert rows({"train": train, "test": tally({})}) == [
        ["split", "clips", "without", "mean", "sd", "min", "max"],
        ["train", "15", "1", "0.000", "1.240", "-3.000", "3.000"],
        ["test", "0", "1", "", "", "", ""],
        ["sentiment", "train"],
        ["-3 to -2.5", "1   7 % █"],
        ["-2.5 to -1.5", "0   0 %"],
        ["-1.5 to -0.5", "3  20 % ███"],
        ["-0.5 to 0.5", "6  40 % ██████"],
        ["0.5 to 1.5", "4  27 % ████"],
        ["1.5 to 2.5", "0   0 %"],
        ["2.5 to 3", "1   7 % █"],
    ]


def test_few_different_values_have_a_row_each() -> None:
    train = tally(*({"anger": value} for value in (0.0, 0.0, 0.0, 1 / 3)))
    assert rows({"train": train})[2:] == [["anger", "train"], ["0", "3  75 % ██████"], ["0.333", "1  25 % ██"]]


def test_of_a_series_the_steps_are_described() -> None:
    printed = rows({"train": tally({"arousal": {"rate_hz": 10.0, "values": [0.25, 0.5, 0.75]}}, {})})
    assert printed[0][3] == "steps"
    assert printed[1] == ["train", "1", "1", "3", "0.500", "0.204", "0.250", "0.750"]


@pytest.mark.parametrize(
    ("low", "high", "most", "edges"),
    [
        (-3.0, 3.0, 12, [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]),
        (0.0, 1.0, 12, [-0.05, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.05]),
        (17.0, 64.0, 12, [12.5, 17.5, 22.5, 27.5, 32.5, 37.5, 42.5, 47.5, 52.5, 57.5, 62.5, 67.5]),
        (2.0, 2.0, 12, [1.5, 2.5]),
    ],
)
def test_bins_have_round_widths_and_hold_everything(low: float, high: float, most: int, edges: list[float]) -> None:
    assert bin_edges(low, high, most) == pytest.approx(edges)


def test_a_value_on_an_edge_is_in_the_bin_that_it_begins() -> None:
    values = [number / 10 for number in range(-10, 11)]
    found = Distribution()
    found.add(values)
    assert binned(found, bin_edges(-1.0, 1.0, 12)) == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
