"""What a label is, as a record holds it, and as a protocol asks for it and a loader delivers it. No torch.

    a record's value                          asked for as            delivered
    "angry"                                   ("angry", "happy")      [B] int64 class index; UNLABELLED where absent
    1.5                                       Number()                [B] float32; NaN where absent
    {"rate_hz": 10.0, "values": [0.1, ...]}   Series(rate_hz=10.0)    [B, T] float32; NaN after a clip's end and where
                                                                      absent

Legend: B clips, T steps of the longest series.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNLABELLED = -1
"""Class index of a clip without that label."""

CLASS = "a class"
"""The form of classes, see `form_of`."""


@dataclass(frozen=True)
class Number:
    """A number a clip, as sentiment in [-3, 3]."""


@dataclass(frozen=True)
class Series:
    """A number a time step, as arousal at 10 Hz; step `i` is at `i / rate_hz` seconds from the clip's start."""

    rate_hz: float


LabelSpec = tuple[str, ...] | Number | Series
"""RAVDESS' emotions by name, MOSEI's sentiment, SEWA's arousal."""


def form_of(value: Any) -> str:
    """Which form a record's value has: "a class", "a number" or "a series at 10 Hz".

    Raises:
        ValueError: none of them, or it holds what is no finite number; a clip without a label has no entry.
    """
    if isinstance(value, str):
        return CLASS
    if _is_number(value):
        return form_of_numbers(None)
    if isinstance(value, Mapping) and set(value) == {"rate_hz", "values"}:
        rate_hz, values = value["rate_hz"], value["values"]
        if not _is_number(rate_hz) or rate_hz <= 0:
            raise ValueError(f"a series at {rate_hz!r} Hz; expected a rate above 0")
        if not isinstance(values, list) or not values or not all(map(_is_number, values)):
            raise ValueError("a series that is no list of finite numbers; leave the label out where there is none")
        return form_of_numbers(rate_hz)
    raise ValueError(
        f"{str(value)[:60]!r} is no class (text), finite number or series ({{'rate_hz': 10.0, 'values': [...]}}); "
        "leave the label out where a clip has none"
    )


def form_asked(spec: LabelSpec) -> str:
    """Which form is asked for, in the words of `form_of`."""
    if isinstance(spec, Number):
        return form_of_numbers(None)
    return form_of_numbers(spec.rate_hz) if isinstance(spec, Series) else CLASS


def form_of_numbers(rate_hz: float | None) -> str:
    """The form of a series of this rate, or, without one, of a number."""
    return "a number" if rate_hz is None else f"a series at {rate_hz:g} Hz"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
