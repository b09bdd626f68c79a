"""How the labels of clips are distributed, counted so that parts add up to the same in any order. No torch."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shards.record import RawClip
from triptych.config import UserError
from triptych.labels import CLASS, form_of, form_of_numbers

MILLIONTHS = 10**6
"""Values are summed as whole millionths: sums of floats would depend on the order of adding."""


@dataclass
class Distribution:
    """Of the values of a number, or of the steps of a series."""

    rate_hz: float | None = None
    """None of numbers."""
    clips: int = 0
    """That have the label."""
    values: int = 0
    """Those of all clips together; a number has one a clip."""
    total: int = 0
    """Their sum, in millionths."""
    squares: int = 0
    """The sum of their squares, in millionths of millionths."""
    low: float = math.inf
    high: float = -math.inf
    histogram: Counter[float] = field(default_factory=Counter)
    """Value as of `bin_of` -> how often."""

    @property
    def form(self) -> str:
        """In the words of `triptych.labels.form_of`."""
        return form_of_numbers(self.rate_hz)

    @property
    def mean(self) -> float:
        """Of all values."""
        return self.total / self.values / MILLIONTHS

    @property
    def deviation(self) -> float:
        """Standard deviation of all values, divided by their number."""
        return math.sqrt(self.values * self.squares - self.total**2) / self.values / MILLIONTHS

    def add(self, values: Iterable[float]) -> None:
        """Count a clip."""
        self.clips += 1
        for value in values:
            millionths = round(value * MILLIONTHS)
            self.values += 1
            self.total += millionths
            self.squares += millionths * millionths
            self.low, self.high = min(self.low, value), max(self.high, value)
            self.histogram[bin_of(value)] += 1

    def update(self, other: "Distribution") -> None:
        """Count the clips of another distribution."""
        self.clips += other.clips
        self.values += other.values
        self.total += other.total
        self.squares += other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.histogram.update(other.histogram)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, with mean and standard deviation for those who read the manifest."""
        return {
            "rate_hz": self.rate_hz,
            "clips": self.clips,
            "values": self.values,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "min": self.low,
            "max": self.high,
            "sum_millionths": self.total,
            "sum_squared_millionths": self.squares,
            "histogram": {f"{value:g}": count for value, count in sorted(self.histogram.items())},
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Distribution":
        """Rebuild a distribution from `to_json`'s dict."""
        return cls(
            rate_hz=fields["rate_hz"],
            clips=fields["clips"],
            values=fields["values"],
            total=fields["sum_millionths"],
            squares=fields["sum_squared_millionths"],
            low=fields["min"],
            high=fields["max"],
            histogram=Counter({float(value): count for value, count in fields["histogram"].items()}),
        )


def bin_of(value: float) -> float:
    """The value to three places and three digits: 0.1234 -> 0.123, 1.2345 -> 1.23.

    So labels in [-1, 1] have 2,001 bins at most, and no label has many more, whatever its unit.
    """
    return round(float(f"{value:.3g}"), 3) + 0.0  # -0.0 is 0.0


@dataclass
class LabelCounts:
    """Of some clips."""

    classes: dict[str, Counter[str]] = field(default_factory=dict)
    """Label -> class -> number of clips."""
    numbers: dict[str, Distribution] = field(default_factory=dict)
    """Label that is a number or a series -> its values."""

    def add(self, key: str, labels: Mapping[str, Any]) -> None:
        """Count a clip.

        Raises:
            UserError: a label is of no form, or of another one than in the clips before.
        """
        for name, value in labels.items():
            try:
                form = form_of(value)
            except ValueError as error:
                raise UserError(f"clip {key}: label {name}: {error}") from None
            self._check(name, form, f"clip {key}: ")
            if form == CLASS:
                self.classes.setdefault(name, Counter())[value] += 1
                continue
            rate_hz, values = (value["rate_hz"], value["values"]) if isinstance(value, Mapping) else (None, (value,))
            self.numbers.setdefault(name, Distribution(rate_hz)).add(values)

    def update(self, other: "LabelCounts") -> None:
        """Count the clips of others.

        Raises:
            UserError: as of `add`.
        """
        for name, classes in other.classes.items():
            self._check(name, CLASS)
            self.classes.setdefault(name, Counter()).update(classes)
        for name, distribution in other.numbers.items():
            self._check(name, distribution.form)
            self.numbers.setdefault(name, Distribution(distribution.rate_hz)).update(distribution)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, in the order of the names."""
        return {
            "classes": {name: dict(sorted(classes.items())) for name, classes in sorted(self.classes.items())},
            "numbers": {name: distribution.to_json() for name, distribution in sorted(self.numbers.items())},
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "LabelCounts":
        """Rebuild counts from `to_json`'s dict."""
        return cls(
            classes={name: Counter(classes) for name, classes in fields["classes"].items()},
            numbers={name: Distribution.from_json(numbers) for name, numbers in fields["numbers"].items()},
        )

    def form(self, name: str) -> str | None:
        """That the label has in the clips so far, in the words of `triptych.labels.form_of`; None where none has it."""
        if name in self.classes:
            return CLASS
        return self.numbers[name].form if name in self.numbers else None

    def _check(self, name: str, form: str, where: str = "") -> None:
        before = self.form(name)
        if before not in (None, form):
            raise UserError(
                f"{where}label {name} is {form}, and {before} in other clips; a label has one form and rate in a set"
            )


def check_labels(clips: Iterable[RawClip]) -> None:
    """Whether each label is one thing in a whole corpus.

    Raises:
        UserError: see `LabelCounts.add`.
    """
    counts = LabelCounts()
    for clip in clips:
        counts.add(clip.key, clip.labels)
