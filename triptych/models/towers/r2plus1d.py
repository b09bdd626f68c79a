"""R(2+1)D-18 (Tran et al. 2018) over a few frames of the face: the face tower of Franceschini et al. 2022.

Legend: P clips that have the modality, F frames taken of a clip, T steps after the network's strides, S side in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.config import UserError, nearest
from triptych.modalities import FeatureSpec
from triptych.models.norms import Norm, convert
from triptych.models.published import fitting, read_weights
from triptych.models.towers.pictures import check_square, standardised
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace

RANDOM = "random"
PUBLISHED = "KINETICS400_V1"
"""torchvision's name."""
SIZE = 112
"""Side of the pictures that the published weights were trained on."""
WIDTH = 512
"""Channels of the network's last map."""
MAX_BYTES = 2**30
"""Of a file of weights; the published one has 0.13 GB."""


@dataclass(frozen=True, kw_only=True)
class R2Plus1DConfig(TowerConfig):
    """The tower of face pictures."""

    pretrained: ClassVar[bool] = True

    weights: str
    """What training starts from: KINETICS400_V1 (torchvision downloads them), a .safetensors or .pth file of a
    torchvision r2plus1d_18, or random. An exported encoder needs none of them."""
    norm: Literal["frozen", "synchronised", "group"] | None = None
    """Instead of batch normalisation, see triptych.models.norms: frozen keeps the statistics of the weights,
    synchronised takes those of all ranks' clips, group has none. Not given: frozen with weights, group if random."""
    frames: int = 8
    """Taken of each clip, evenly spaced."""
    dropout: float = 0.1
    """In front of the last layer."""

    def __post_init__(self) -> None:
        if self.norm == "frozen" and self.weights == RANDOM:
            raise ValueError(
                "r2plus1d.norm: frozen keeps the statistics of pretrained weights, and weights: random has none, so "
                "that nothing would be normalised; take group or synchronised, or give weights"
            )
        if self.norm == "group" and self.weights != RANDOM:
            raise ValueError(
                "r2plus1d.norm: group has no use for the statistics that the weights were trained with; take frozen or "
                "synchronised, or weights: random"
            )
        if self.frames < 1:
            raise ValueError(f"r2plus1d.frames: {self.frames}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"r2plus1d.dropout: {self.dropout} must lie in [0, 1)")

    @property
    def chosen_norm(self) -> Norm:
        """`norm`, or what it is where it is not given."""
        return self.norm or ("group" if self.weights == RANDOM else "frozen")

    def build(self, place: TowerPlace) -> "R2Plus1DTower":
        """See TowerConfig."""
        return R2Plus1DTower(self, place.spec, place.width)


class R2Plus1DTower(Tower):
    """Frames of a clip -> R(2+1)D-18 -> mean over time and space -> linear layer.

    Every clip gives the same number of frames, so that no clip's length can touch another's numbers; clips without the
    modality are left out. With 8 frames the network's strides leave a sequence of one step.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: R2Plus1DConfig, spec: FeatureSpec, width: int) -> None:
        """Build it with random weights, from no file and no network: `start_weights` loads those of the config.

        Args:
            config: settings.
            spec: of `faces` or `face_crops`: [S, S] grey or [S, S, 3] RGB, uint8.
            width: of the pooled output; 0 for the mean as it is.

        Raises:
            ValueError: the feature is none of these.
        """
        super().__init__()
        check_square("r2plus1d", spec)
        from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18  # takes a second to import

        self.width, self.sequence_width = width or WIDTH, WIDTH
        self.config = config
        self.trunk = r2plus1d_18()
        self.trunk.fc = nn.Identity()
        convert(self.trunk, config.chosen_norm)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(WIDTH, width)) if width else nn.Identity()
        preset = R2Plus1D_18_Weights[PUBLISHED].transforms()
        self.register_buffer("mean", torch.tensor(preset.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preset.std).view(3, 1, 1), persistent=False)

    def start_weights(self) -> None:
        """Take the weights that the config names, for the start of a training.

        Raises:
            UserError: they cannot be had, or are no R(2+1)D-18.
        """
        from torchvision.models.video import R2Plus1D_18_Weights

        weights, setting = self.config.weights, "r2plus1d.weights"
        if weights == RANDOM:
            return
        if weights != PUBLISHED and not Path(weights).is_file():
            near = nearest(weights, (PUBLISHED, RANDOM))
            raise UserError(f"{setting}: {weights!r} is no file, and no weights by name.{near}")
        state = read_weights(setting, weights, R2Plus1D_18_Weights, MAX_BYTES)
        self.trunk.load_state_dict(fitting(self.trunk, state, setting, weights, "R(2+1)D-18"))

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower; a hidden frame is a picture of the mean colour of Kinetics, which is zeros to the network. A layer
        is the mean over the pixels; the first is the stem's, the others are those of the four stages."""
        present = track.present
        # With no clip at all it runs still: synchronised norms of other ranks wait for this one's.
        for x in self._maps(self._pictures(track, present.nonzero()[:, 0])):
            if layers is not None:
                layers.append(_steps(_over_pixels(x), present))
        features_PTD = _over_pixels(x)
        pooled = self.head(features_PTD.mean(dim=1))
        last = _steps(features_PTD, present)
        return TowerOutput(sequence=last.sequence, mask=last.mask, pooled=_placed(pooled, present))

    def _pictures(self, track: Track, clips: Tensor) -> Tensor:
        """[P, 3, F, 112, 112] standardised colours of the clips with these indices."""
        steps = frame_steps(track.mask[clips], self.config.frames)  # [P, F]
        values = track.values[clips[:, None], steps]  # [P, F, S, S] or [P, F, S, S, 3]
        values = values.flatten(0, 1).to(self.trunk.stem[0].weight.dtype)
        pictures = standardised(values, SIZE, self.mean, self.std).unflatten(0, steps.shape)
        if track.hidden is not None:
            hidden = track.hidden[clips[:, None], steps]
            pictures = pictures.masked_fill(hidden[..., None, None, None], 0.0)
        return pictures.transpose(1, 2)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """[P, 3, F, 112, 112] -> [P, C, T, H, W] behind the stem and each stage."""
        trunk = self.trunk
        for part in (trunk.stem, trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = part(x)
            yield x


def frame_steps(mask_BT: Tensor, frames: int) -> Tensor:
    """Which steps of each clip are taken: the middle ones of equal parts of its real steps.

    Part `i` of F over `n` real steps gives real step `floor((i + 1/2) * n / F)`: all of them once where n = F, and some
    repeated, in order, where there are fewer.

    Args:
        mask_BT: which steps are real; one or more of each clip.
        frames: F.

    Returns:
        [B, F] indices of steps.
    """
    real = torch.argsort((~mask_BT).to(torch.uint8), dim=1, stable=True)  # real steps first, in order
    parts = 2 * torch.arange(frames, device=mask_BT.device) + 1
    return real.gather(1, parts * mask_BT.sum(dim=1, keepdim=True) // (2 * frames))


def _over_pixels(maps: Tensor) -> Tensor:
    """[P, C, T, H, W] -> [P, T, C], means over the pixels of each step."""
    return maps.mean(dim=(3, 4)).transpose(1, 2)


def _steps(rows_PTD: Tensor, present: Tensor) -> Steps:
    """Of the clips that are present, among all."""
    return Steps(_placed(rows_PTD, present), present[:, None].expand(-1, rows_PTD.shape[1]))


def _placed(rows: Tensor, present: Tensor) -> Tensor:
    """[P, ...] -> [B, ...]: the rows of the clips that are present, and zeros."""
    return rows.new_zeros(len(present), *rows.shape[1:]).index_copy(0, present.nonzero()[:, 0], rows)
