"""What a modality is, as data: code asks the spec and never compares names.

No torch here, so that writing shards stays light.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MODALITIES = ("text", "audio", "video")
"""The panels, in the order in which results are concatenated and reported."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One representation of one modality: what a shard stores, a batch carries and a tower expects.

    Two features with equal specs hold the same numbers, wherever they were computed; `version` is raised when the
    numbers change. Step `i` of a feature with a rate was computed from the samples of
    `[i / rate_hz + support_s[0], i / rate_hz + support_s[1])` and from nothing else, which is what lets a masked word
    hide exactly what overlaps it. A step of a picture is of the frame nearest to `i / rate_hz`, whose own times a batch
    has where they are not within that (`shards.media.spans`).
    """

    name: str
    """Name of the feature, also the file extension in a shard: `<key>.<name>.npy`."""
    modality: str
    """One of MODALITIES."""
    version: int
    rate_hz: float | None
    """Steps a second; None where steps carry their own times (words; what a tower said, `<key>.<name>.times.npy`)."""
    shape: tuple[int, ...]
    """Shape of one step; () for the id of a word or a piece."""
    dtype: str
    """NumPy dtype of the stored values."""
    support_s: tuple[float, float] = (0.0, 0.0)
    """Start and end of what a step was computed from, relative to `i / rate_hz`, in seconds."""
    mean: float = 0.0
    """Constant that a tower subtracts, fixed for the feature: statistics of the clip would tell a hidden word."""
    std: float = 1.0
    max_length: int = 1500
    """Longest sequence in steps; a longer clip is cut here and the cut is counted."""
    optional: bool = False
    """A clip may have the medium and not this (no face in the picture); `python -m shards check` counts them."""
    settings: tuple[tuple[str, Any], ...] = ()
    """What else defines the numbers (crop box, bands, ...), as sorted (name, value) pairs."""

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise ValueError(f"modality: {self.modality!r} is none of {', '.join(MODALITIES)}")

    @property
    def is_words(self) -> bool:
        """Whether a step is the id of a word or of a piece of one, which the clip's record gives, and no array."""
        return self.shape == ()

    @property
    def is_pieces(self) -> bool:
        """Of ids: whether they are those of pieces, of a text as it is written."""
        return dict(self.settings).get("unit") == "piece"

    @property
    def is_timed(self) -> bool:
        """Whether each clip has a file of its steps' times, `<key>.<name>.times.npy` of [T, 2] float32 seconds."""
        return self.rate_hz is None and not self.is_words

    @property
    def is_of_frames(self) -> bool:
        """Whether each step is computed from one frame of the picture, the nearest one."""
        return self.modality == "video" and self.rate_hz is not None and self.support_s == (0.0, 1 / self.rate_hz)

    @property
    def encoder(self) -> str | None:
        """SHA-256 of the frozen encoder whose tower said this; None of what is computed from a clip's media."""
        return dict(self.settings).get("encoder")

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON types; `from_json` gives an equal spec back."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "FeatureSpec":
        """Rebuild a spec from `to_json`'s dict after a trip through JSON (lists become tuples again)."""
        fields = dict(fields)
        for name in ("shape", "support_s"):
            fields[name] = tuple(fields[name])
        fields["settings"] = tuple(
            (name, tuple(value) if isinstance(value, list) else value) for name, value in fields["settings"]
        )
        return cls(**fields)


def reads_words(inputs: Mapping[str, FeatureSpec]) -> bool:
    """Whether an encoder with these inputs wants the ids of words or of their pieces."""
    return any(spec.is_words for spec in inputs.values())
