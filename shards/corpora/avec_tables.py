"""The csv files of AVEC 2017 and 2019, ';' between fields: labels every 0.1 s, turns, transcripts."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from triptych.config import UserError
from triptych.text_files import open_text

HZ = 10.0
"""Of the labels."""
COLUMNS = ("arousal", "valence", "liking")

_TOLERANCE_S = 0.001


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Steps of 0.1 s without a gap."""

    start_s: float
    """Time of the first step, from the recording's start."""
    num_steps: int
    values: dict[str, list[float]]
    """Label -> value a step, as the csv has it; empty where there are no labels."""

    @property
    def duration_s(self) -> float:
        """To the end of the last step."""
        return round(self.num_steps / HZ, 6)

    @property
    def end_s(self) -> float:
        """From the recording's start."""
        return round(self.start_s + self.duration_s, 6)

    @property
    def times_s(self) -> list[float]:
        """Time of each step, from the recording's start."""
        return [round(self.start_s + step / HZ, 6) for step in range(self.num_steps)]

    def part(self, first: int, size: int) -> "Frames":
        """`size` steps from the step `first` on, or as many as are left."""
        return Frames(
            start_s=round(self.start_s + first / HZ, 6),
            num_steps=min(size, self.num_steps - first),
            values={name: values[first : first + size] for name, values in self.values.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Span:
    """A turn, or a sentence with its text."""

    start_s: float
    end_s: float
    text: str = ""

    def holds(self, time_s: float) -> bool:
        """Whether the time is in it."""
        return self.start_s <= time_s < self.end_s


def read_labels(path: Path) -> list[Frames]:
    """The labels of a recording: one stretch, or more where times are left out.

    Raises:
        UserError: not five columns of numbers of the recording that the file is named after, in steps of 0.1 s.
    """
    times: list[float] = []
    values: list[tuple[float, ...]] = []
    starts: list[int] = []
    for where, fields in _lines(path, quote="'"):
        if len(fields) != 5 or fields[0].strip() != path.stem:
            raise UserError(f"{where}: {';'.join(fields)[:60]!r}; expected {path.stem};time;arousal;valence;liking")
        time_s, *labels = (_number(field, where) for field in fields[1:])
        step_s = time_s - times[-1] if times else math.inf
        if step_s < 1 / HZ - _TOLERANCE_S:
            raise UserError(f"{where}: {time_s:g} s after {times[-1]:g} s; expected steps of 0.1 s")
        if step_s > 1 / HZ + _TOLERANCE_S:
            starts.append(len(times))
        times.append(time_s)
        values.append(tuple(labels))
    return [
        Frames(
            start_s=times[first],
            num_steps=last - first,
            values={name: [row[place] for row in values[first:last]] for place, name in enumerate(COLUMNS)},
        )
        for first, last in zip(starts, [*starts[1:], len(times)], strict=True)
    ]


def read_spans(path: Path, *, text: bool) -> list[Span]:
    """Turns (start;end), or sentences (start;end;text), in the order of the file.

    Raises:
        UserError: other columns, or an end before its start.
    """
    spans = []
    for where, fields in _lines(path, quote=None):
        if len(fields) < 2 + text:
            raise UserError(f"{where}: {';'.join(fields)[:60]!r}; expected start;end{';text' * text}")
        start_s, end_s = (_number(field, where) for field in fields[:2])
        if end_s < start_s:
            raise UserError(f"{where}: ends at {end_s:g} s, before its start at {start_s:g} s")
        spans.append(Span(start_s=start_s, end_s=end_s, text=";".join(fields[2:]) if text else ""))
    return spans


def _lines(path: Path, quote: str | None) -> Iterator[tuple[str, list[str]]]:
    """Where a line is, and its fields; without a header and empty lines."""
    try:
        with open_text(path, newline="") as file:
            quoting: Literal[0, 3] = csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL
            for number, fields in enumerate(csv.reader(file, delimiter=";", quotechar=quote, quoting=quoting), start=1):
                if fields and not (number == 1 and _is_header(fields)):
                    yield f"{path}, line {number}", fields
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from None


def _is_header(fields: list[str]) -> bool:
    """Whether the second field, a time in every table, is a name."""
    return len(fields) > 1 and fields[1].strip().lower() in ("timestamp", "time", "end", "end_time")


def _number(field: str, where: str) -> float:
    try:
        number = float(field)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {field[:40]!r} is not a number")
    return number
