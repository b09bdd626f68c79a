"""What a linear probe is told."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from shards.cache import CacheConfig
from triptych.config import UserError


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """`python -m linear_probe CONFIG encoder=runs/<name>/encoder shards=<folder> out=<folder>`."""

    encoder: str = ""
    """Folder of a frozen encoder; its row is called `pretrained`."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Instead of `encoder`: name of the row -> folder, to compare several."""
    shards: str = MISSING
    """Shard set with labels, split into train, valid and test; a folder or a URL."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""
    out: str = MISSING
    """Folder of the report; created, and refused where it holds something."""
    protocol: str = "ravdess"
    """Name in triptych.protocols.registry."""
    classes: list[str] = field(default_factory=list)
    """Some of the protocol's classes; none listed means all."""
    pooled: list[str] = field(default_factory=list)
    """Pooled outputs to concatenate (text, audio, video, fused); none listed means all that the encoder has."""
    inputs: list[str] = field(default_factory=list)
    """Modalities that are shown, one table row each, such as [text+audio+video, audio]; none listed means one row with
    all that the encoder takes."""
    c_grid: list[float] = field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0])
    """Inverse L2 strengths of the classifier; one is chosen on valid."""
    untrained_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of the freshly initialised encoders of the baseline row."""
    num_resamples: int = 1000
    """Of the bootstrap intervals."""
    micro_batch: int = 16
    """Clips encoded at a time; changes memory and speed, not the numbers."""

    def __post_init__(self) -> None:
        if not self.c_grid or min(self.c_grid) <= 0:
            raise ValueError(f"c_grid: positive numbers are wanted, given: {self.c_grid}")
        if not self.untrained_seeds:
            raise ValueError("untrained_seeds: the untrained row is part of every report; give one seed or more")
        for name in ("num_resamples", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: 1 or more is wanted, given: {getattr(self, name)}")

    def named_encoders(self) -> dict[str, Path]:
        """Name of the row -> folder.

        Raises:
            UserError: neither or both of `encoder` and `encoders` are given.
        """
        if bool(self.encoder) == bool(self.encoders):
            raise UserError("give either encoder=<folder> or encoders: {name: folder, ...}")
        return {name: Path(folder) for name, folder in (self.encoders or {"pretrained": self.encoder}).items()}
