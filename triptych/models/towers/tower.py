"""What a tower is: one modality of a batch -> a sequence and one vector a clip.

Legend: B clips, T steps of the tower's output, D its width.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from triptych.batch import Track
from triptych.modalities import FeatureSpec


@dataclass(frozen=True)
class Steps:
    """A sequence with what is real of it, as between two blocks of a tower."""

    sequence: Tensor
    """[B, T, D]; zeros where `mask` is False. T and D may differ from layer to layer."""
    mask: Tensor
    """[B, T] bool, True = real."""

    @classmethod
    def zeroed(cls, x_BTD: Tensor, mask_BT: Tensor) -> "Steps":
        """With zeros where nothing is real, whatever x has there."""
        return cls(x_BTD.masked_fill(~mask_BT[..., None], 0.0), mask_BT)

    @classmethod
    def of_real(cls, rows_ND: Tensor, mask_BT: Tensor) -> "Steps":
        """Of the real steps alone, clip after clip; rows behind the last of them are nobody's."""
        sequence_BTD = rows_ND.new_zeros(*mask_BT.shape, rows_ND.shape[-1])
        sequence_BTD[mask_BT] = rows_ND[: int(mask_BT.sum())]
        return cls(sequence_BTD, mask_BT)


def timed(mask_BT: Tensor, has_cls: bool) -> Tensor:
    """[B, T] bool: the real steps that belong to a time, which are all but a CLS."""
    return mask_BT & (mask_BT.cumsum(dim=1) > 1) if has_cls else mask_BT


@dataclass(frozen=True, kw_only=True)
class TowerOutput:
    """What a tower says of a batch; zeros for a clip that lacks the modality."""

    sequence: Tensor
    """[B, T, D]; T need not be the number of steps that went in."""
    mask: Tensor
    """[B, T] bool, True = real."""
    pooled: Tensor
    """[B, width]"""


@dataclass(frozen=True, kw_only=True)
class TowerPlace:
    """What a tower is built for."""

    spec: FeatureSpec
    """The feature that it takes."""
    width: int
    """Of the pooled output; 0 for the mean over the real steps as it is."""
    words: tuple[str, ...] = ()
    """The vocabulary; word `i` has id `i + 1`."""
    saved: Any = None
    """Where the encoder is a saved one: the model of transformers in this tower, see triptych.models.saved."""


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Settings of a tower, which build it."""

    pretrained: ClassVar[bool] = False
    """Whether its mean says something before anything is trained here, so that it can do without a last layer."""

    @abstractmethod
    def build(self, place: TowerPlace) -> "Tower":
        """The tower with fresh weights.

        Raises:
            ValueError: it does not take this feature or width.
            UserError: a pretrained model cannot be used.
        """


class Tower(nn.Module):
    """One modality's network.

    What is hidden (Track.hidden) is zeroed before anything mixes steps, and padding has no influence: a clip gives the
    same numbers in any batch.
    """

    width: int
    """Of `TowerOutput.pooled`."""
    sequence_width: int
    """D, of `TowerOutput.sequence`."""
    has_cls: bool = False
    """Whether the first real step of its sequence stands for the whole clip, and for no time."""

    def most_steps(self, num_steps: int) -> int:
        """A bound of the steps of its sequence for so many of its track."""
        return num_steps + self.has_cls

    @abstractmethod
    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """Encode a modality.

        Args:
            track: on the tower's device.
            layers: takes up what enters the first block, then the output of each block; the last one is the output's
                sequence. None keeps nothing.
        """
