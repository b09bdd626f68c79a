"""What is asked of a frozen encoder, as data: a block is one array of its features.

No file, no shard and no encoder here: linear_probe.sources computes blocks, linear_probe.extract reads the clips.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from shards.words.words import AnyVocabulary
from triptych.batch import Batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec

FUSED = "fused"
"""The name in `Encoder.widths` that is no modality's."""

Layer = int | Literal["pooled", "stack", "moments"]


@dataclass(frozen=True)
class Block:
    """One array of features.

    Raises:
        UserError: settings that do not go together.
    """

    output: str
    """A modality, or "fused"."""
    shown: tuple[str, ...]
    """Modalities that the encoder sees; the rows of an output that is made of none of them are zeros."""
    layer: Layer = "pooled"
    """"pooled": the source's own vector of a clip (with `rate_hz`: its own sequence, before that is pooled).
    A number: that layer of the modality's tower; 0 is what enters its first block, -1 its last.
    "stack": all its layers, [L, D] a row, for a head that weighs them.
    "moments": mean and standard deviation over time of every band, of linear_probe.sources.InputMeans alone."""
    pooling: Literal["mean", "first"] = "mean"
    """How the steps of a layer become one vector: their mean (less a CLS, see Tower.has_cls), or the first real one."""
    rate_hz: float | None = None
    """Rows are steps of this rate: step `i` is `[i, i + 1) / rate_hz` seconds of its clip. None: one row a clip."""

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not (self.rate_hz > 0 and math.isfinite(self.rate_hz)):
            raise UserError(f"rate_hz: {self.rate_hz}; expected steps a second")
        if self.pooling == "first" and (self.rate_hz is not None or self.layer in ("pooled", "moments")):
            raise UserError(
                f"{self.output}: pooling first is for a layer of a tower, one row a clip; leave it at mean for layer "
                f"{self.layer}{'' if self.rate_hz is None else f' at {self.rate_hz} Hz'}"
            )

    def to_json(self) -> dict[str, Any]:
        """The block as plain JSON types."""
        rate_hz = None if self.rate_hz is None else float(self.rate_hz)
        return {**vars(self), "shown": list(self.shown), "rate_hz": rate_hz}


class Source(Protocol):
    """What gives blocks of a clip without having seen a label."""

    inputs: Mapping[str, FeatureSpec]
    """Modality -> feature that it reads."""
    vocabulary: AnyVocabulary | None
    """Of its words or pieces; None where it reads none."""

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on besides the clips, as plain JSON types."""

    def resolve(self, block: Block) -> Block:
        """The block in the one form that all equal ones share: its layer counted from 0, `shown` in the order of
        `inputs` and without what cannot matter to it; nothing shown where its rows are zeros.

        Raises:
            UserError: the source cannot give it.
        """

    def shape(self, block: Block) -> tuple[int, ...]:
        """Of a row of a resolved block: (D,), or (L, D)."""

    def compute(self, batch: Batch, blocks: Sequence[Block], num_rows: Sequence[int]) -> dict[Block, Tensor]:
        """Resolved blocks of a batch: [sum(num_rows), D] or [sum(num_rows), L, D] float32, zeros where a clip lacks
        the modality.

        Args:
            batch: on the source's device, with a track for everything that the blocks are shown.
            blocks: resolved, all of one rate, each shown something.
            num_rows: of each clip; ones where the blocks have no rate.
        """
