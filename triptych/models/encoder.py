"""What every pretrained system offers to the stages behind it.

Legend: B clips, T steps of the anchor, D width.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from triptych.batch import Batch, Track
from triptych.modalities import FeatureSpec
from triptych.models.towers.tower import Steps, TowerOutput


@dataclass(frozen=True, kw_only=True)
class Fused:
    """One modality, the anchor, with what the others add to it."""

    sequence: Tensor
    """[B, T, D], in the anchor's steps."""
    mask: Tensor
    """[B, T] bool, True = real; a clip that lacks the anchor has no True."""
    times: Tensor
    """[B, T, 2] seconds, as in Track."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What an encoder says of a batch."""

    pooled: Mapping[str, Tensor]
    """Name -> [B, D]: one entry a modality (under its name) and, where the batch can be fused, "fused".
    Rows of clips that lack the modality are zeros."""
    present: Mapping[str, Tensor]
    """Name -> [B] bool: which rows of `pooled` are real."""
    towers: Mapping[str, TowerOutput] = field(default_factory=dict)
    """Modality -> its tower's sequence, before any fusion; what is padding is told by its mask."""
    fused: Mapping[str, Fused] = field(default_factory=dict)
    """Anchor -> its fused sequence, of those of `Encoder.anchors` that the batch carries."""
    layers: Mapping[str, tuple[Steps, ...]] = field(default_factory=dict)
    """Modality -> the layers of its tower, where they were asked for: first what enters its first block, then the
    output of each block; the last one is the tower's sequence."""


@runtime_checkable
class StartsFromWeights(Protocol):
    """A part of an encoder that can start from weights that others trained."""

    def start_weights(self) -> None:
        """Load them in place.

        Raises:
            UserError: they cannot be had, or do not fit.
        """


class Encoder(nn.Module):
    """A pretrained system without its objectives: what a run exports, a probe freezes and fine-tuning trains."""

    inputs: Mapping[str, FeatureSpec]
    """Modality -> the feature that its tower was trained on."""
    words: tuple[str, ...]
    """Vocabulary: word of id `i + 1`; id 0 is any other word."""
    widths: Mapping[str, int]
    """Name in `Encoded.pooled` -> D."""
    sequence_widths: Mapping[str, int]
    """Modality -> width of its sequence in `Encoded.towers`."""
    anchors: tuple[str, ...]
    """Modalities whose steps a fused sequence may have; a clip has a fused output where it has one of them. Empty where
    there is no fused sequence, though there may be a fused pooled vector: of every clip then."""
    system: Any
    """The SystemConfig that triptych.models.load built it from."""

    @property
    def modalities_with_cls(self) -> tuple[str, ...]:
        """Those of `inputs` whose tower has a CLS, see Tower.has_cls."""
        return ()

    def most_steps(self, modality: str) -> int:
        """A bound of the steps of a modality's sequence in `Encoded.towers`; see Tower.most_steps."""
        return self.inputs[modality].max_length

    def start(self) -> None:
        """Give the parts that start from published weights those weights; the others keep what they were built with.

        For a training from its beginning only: building an encoder touches neither a file nor the network, so that an
        exported one loads wherever it is.

        Raises:
            UserError: they cannot be had, or do not fit.
        """
        for module in self.modules():
            if isinstance(module, StartsFromWeights):
                module.start_weights()

    @abstractmethod
    def encode(self, batch: Batch, *, fuse: bool = True, layers: bool = False) -> Encoded:
        """Encode any non-empty subset of the modalities; the batch need not carry those that it lacks.

        Args:
            batch: on the encoder's device.
            fuse: False leaves out what is fused, where only the towers' pooled vectors are wanted.
            layers: True keeps what lies between the towers' blocks too.
        """

    def tracks(self, batch: Batch) -> dict[str, Track]:
        """Modality -> track, of those that the encoder takes and the batch carries.

        Raises:
            ValueError: there is none.
        """
        given = {name: batch.tracks[name] for name in self.inputs if name in batch.tracks}
        if not given:
            raise ValueError(
                f"the batch has none of {', '.join(self.inputs)}; it has {', '.join(batch.tracks) or 'none'}"
            )
        return given
