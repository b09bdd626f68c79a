"""What a label is, as a protocol asks for it and a loader delivers it. No torch.

    ("angry", "happy")      classes            [B] int64 class index; UNLABELLED where the clip has none
    Number()                a number           [B] float32; NaN where the clip has none
    Series(rate_hz=10.0)    one value a step   [B, T] float32; NaN after a clip's end, and where it has none

Legend: B clips, T steps of the longest clip.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Number:
    """A number a clip, as sentiment in [-3, 3]."""


@dataclass(frozen=True)
class Series:
    """A number a time step, as arousal at 10 Hz; step `i` is at `i / rate_hz` seconds from the clip's start."""

    rate_hz: float


LabelSpec = tuple[str, ...] | Number | Series
