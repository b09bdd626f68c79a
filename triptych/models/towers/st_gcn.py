"""Graph convolutions over facial landmarks and time: the landmark tower of Franceschini et al. 2022.

The blocks are those of Yan et al. 2018, section 3: a graph convolution, then for each point a convolution of 9 steps
over time. One adjacency for all neighbours (their "uni-labeling"), with self loops, normalised symmetrically as Kipf
and Welling 2017 do. Franceschini et al. cite the other network of this name (Yu et al. 2018, for traffic). Their code
adds the self loops twice and ends in a linear map of 13 M weights over all points of a fixed number of frames, which
binds the model to a length; neither is copied: here the mean over points and real steps is mapped.

Legend: B clips, C channels, T steps, V the 51 points.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.norms import NORMS
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace

JAW = 17
"""The first of the 68 points, which are left out."""
NUM_POINTS = 51
NUM_AXES = 2


def _path(first: int, last: int) -> list[tuple[int, int]]:
    return list(pairwise(range(first, last + 1)))


def _loop(first: int, last: int) -> list[tuple[int, int]]:
    return [*_path(first, last), (first, last)]


EDGES: tuple[tuple[int, int], ...] = (
    # the contours of iBUG's 68 points: 47 edges
    *_path(17, 21), *_path(22, 26),  # brows
    *_path(27, 30), *_path(31, 35),  # bridge and wings of the nose
    *_loop(36, 41), *_loop(42, 47),  # eyes
    *_loop(48, 59), *_loop(60, 67),  # outer and inner lips
    # 18 between them, the same on both sides of the face, where their distance is an expression
    (21, 22), (21, 27), (22, 27),  # frown: brows to each other and to the root of the nose
    (17, 36), (26, 45), (19, 37), (24, 44),  # brows raised over the eyes, at the ends and at the arch
    (27, 39), (27, 42),  # inner corners of the eyes, which hold still: the reference of the others
    (30, 31), (30, 33), (30, 35),  # tip of the nose to its wings, which a sneer lifts
    (33, 51),  # upper lip raised to the nose
    (48, 60), (54, 64), (51, 62), (57, 66),  # outer to inner lips, at the corners and in the middle
    (62, 66),  # the mouth open
)  # fmt: skip
"""Neighbours in the numbers of the 68 points. The paper has 65 edges and does not list them."""

KERNEL = 9
"""Steps that a temporal convolution sees (Yan et al. 2018, section 3.6)."""


@dataclass(frozen=True, kw_only=True)
class StGcnConfig(TowerConfig):
    """The tower of facial landmarks."""

    channels: tuple[int, ...] = (64, 64, 128, 256)
    """Of each block; one with more than the block before leaves out every other step, as in Yan et al. Their ten blocks
    are for whole bodies; four have about as many weights as Franceschini et al.'s before the map not copied."""
    norm: Literal["group", "synchronised"] = "group"
    """See triptych.models.norms."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"st_gcn.channels: {list(self.channels)}; expected one number or more, each above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"st_gcn.dropout: {self.dropout} must lie in [0, 1)")

    def build(self, place: TowerPlace) -> "StGcnTower":
        """See TowerConfig."""
        return StGcnTower(self, place.spec, place.width)


class StGcnTower(Tower):
    """51 points a step -> blocks over graph and time -> mean over points and real steps -> linear layer."""

    def __init__(self, config: StGcnConfig, spec: FeatureSpec, width: int) -> None:
        """Build it.

        Args:
            config: settings.
            spec: of `landmarks` or `fan_landmarks`: [68, 2].
            width: of the pooled output.

        Raises:
            ValueError: the feature is none of these.
        """
        super().__init__()
        if spec.shape != (JAW + NUM_POINTS, NUM_AXES):
            raise ValueError(
                f"st_gcn: takes 68 points of two coordinates, [68, 2], as of landmarks or fan_landmarks; {spec.name} "
                f"has {list(spec.shape)} a step"
            )
        self.width, self.sequence_width = width, config.channels[-1]
        self.register_buffer("adjacency", normalised_adjacency(), persistent=False)
        channels = (NUM_AXES, *config.channels)
        self.blocks = nn.ModuleList(_Block(before, after, config) for before, after in pairwise(channels))
        self.output = nn.Linear(channels[-1], width)

    adjacency: Tensor

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: a layer is the mean over the points, and the sequence has every other step of the track for each
        time the channels grow."""
        points = track.values[:, :, JAW:].to(self.output.weight.dtype)
        x = scale_to_unit(points, _in_sight(track)).permute(0, 3, 1, 2)  # [B, 2, T, V]
        mask = track.mask
        if layers is not None:
            layers.append(Steps.zeroed(x.mean(dim=3).transpose(1, 2), mask))
        for block in self.blocks:
            x, mask = block(x, mask, self.adjacency)
            if layers is not None:
                layers.append(Steps.zeroed(x.mean(dim=3).transpose(1, 2), mask))
        x_BTC = x.mean(dim=3).transpose(1, 2) * mask[..., None]
        pooled = self.output(mean_pool(x_BTC, mask)) * track.present[:, None]
        return TowerOutput(sequence=x_BTC, mask=mask, pooled=pooled)


class _Block(nn.Module):
    """Graph convolution, norm, ReLU, temporal convolution, norm, dropout; a residual around all, then ReLU."""

    def __init__(self, before: int, after: int, config: StGcnConfig) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.stride = 2 if after > before > NUM_AXES else 1
        self.graph = nn.Conv2d(before, after, 1)
        self.graph_norm = norm(after)
        self.temporal = nn.Conv2d(after, after, (KERNEL, 1), stride=(self.stride, 1), padding=(KERNEL // 2, 0))
        self.temporal_norm = norm(after)
        self.dropout = nn.Dropout(config.dropout)
        self.shortcut = nn.Conv2d(before, after, 1, stride=(self.stride, 1)) if after != before else None
        self.shortcut_norm = norm(after) if after != before else None

    def forward(self, x: Tensor, mask: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, T, V], [B, T] -> the same after this block; its temporal convolution sees zeros at padded steps."""
        outer = mask[:, :: self.stride]
        residual = x if self.shortcut is None else self.shortcut(x)
        if self.shortcut_norm is not None:
            residual = self.shortcut_norm(residual, outer)
        x = torch.relu(self.graph_norm(self.graph(x) @ adjacency, mask))
        x = self.temporal(x * mask[:, None, :, None])
        x = self.dropout(self.temporal_norm(x, outer))
        return torch.relu(x + residual), outer


def normalised_adjacency() -> Tensor:
    """[51, 51] `D^-1/2 (A + I) D^-1/2` of the face's graph, symmetric; D has the row sums of A + I."""
    adjacency = torch.eye(NUM_POINTS)
    first, second = torch.tensor(EDGES).T - JAW
    adjacency[first, second] = adjacency[second, first] = 1.0
    scale = adjacency.sum(dim=1).rsqrt()
    return scale[:, None] * adjacency * scale


def scale_to_unit(points: Tensor, in_sight: Tensor) -> Tensor:
    """Each axis of a clip to 0 ... 1 over the steps in sight, as Franceschini et al. load their landmarks.

    Theirs takes all steps; the least and greatest value of a hidden step would tell of it.

    Args:
        points: [B, T, V, 2].
        in_sight: [B, T].

    Returns:
        [B, T, V, 2], zeros at steps out of sight.
    """
    out = ~in_sight[:, :, None, None]
    some = in_sight.any(dim=1)[:, None, None, None]
    low = points.masked_fill(out, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = points.masked_fill(out, -torch.inf).amax(dim=(1, 2), keepdim=True)
    low, high = torch.where(some, low, 0.0), torch.where(some, high, 1.0)
    # never zero for a face, whose eyes are one unit apart
    return ((points - low) / (high - low).clamp(min=1e-6)).masked_fill(out, 0.0)


def _in_sight(track: Track) -> Tensor:
    """[B, T] real steps that are not hidden and have a face: the feature has all points at the origin where it has none
    (shards.features.landmarks), and such a step is as good as hidden."""
    seen = track.mask & (track.values != 0).flatten(2).any(dim=2)
    return seen if track.hidden is None else seen & ~track.hidden
