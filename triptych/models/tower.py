"""What a tower is: one modality of a batch -> a sequence and one vector a clip.

Legend: B clips, T steps of the tower's output, D its width.
"""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from triptych.batch import Track


@dataclass(frozen=True, kw_only=True)
class TowerOutput:
    """What a tower says of a batch; zeros for a clip that lacks the modality."""

    sequence: Tensor
    """[B, T, D]; T need not be the number of steps that went in."""
    mask: Tensor
    """[B, T] bool, True = real."""
    pooled: Tensor
    """[B, width]"""


class Tower(nn.Module):
    """One modality's network.

    What is hidden (Track.hidden) is zeroed before anything mixes steps, and padding has no influence: a clip gives the
    same numbers in any batch.
    """

    width: int
    """Of `TowerOutput.pooled`."""
    sequence_width: int
    """D, of `TowerOutput.sequence`."""

    @abstractmethod
    def forward(self, track: Track) -> TowerOutput: ...
