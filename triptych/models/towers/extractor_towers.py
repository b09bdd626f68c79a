"""SSE-FT's own extractors as towers, frozen: wav2vec large for the sound, FAb-Net for the face.

Legend: B clips, T steps, N real frames of all clips, C channels.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.towers import fab_net, wav2vec_large
from triptych.models.towers.fab_net import FabNet
from triptych.models.towers.pictures import check_square, standardised
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace
from triptych.models.towers.wav2vec_large import Wav2VecLarge

SAMPLE_RATE_HZ = 16_000
FRAMES_AT_ONCE = 64
"""In FAb-Net, whose first layer makes 2 MiB of a frame."""


@dataclass(frozen=True, kw_only=True)
class Wav2VecLargeConfig(TowerConfig):
    """wav2vec large (triptych.models.towers.wav2vec_large)."""

    pretrained: ClassVar[bool] = True

    weights: str
    """fairseq's wav2vec_large.pt, or a .safetensors file with its names. An exported encoder needs none."""

    def build(self, place: TowerPlace) -> "Wav2VecLargeTower":
        """See TowerConfig."""
        return Wav2VecLargeTower(self, place.spec, place.width)


@dataclass(frozen=True, kw_only=True)
class FabNetConfig(TowerConfig):
    """FAb-Net (triptych.models.towers.fab_net)."""

    pretrained: ClassVar[bool] = True

    weights: str
    """affectnet_4views.pth of the authors' release_bmvc_fabnet.zip or another of it, or a .safetensors file with its
    names. An exported encoder needs none."""

    def build(self, place: TowerPlace) -> "FabNetTower":
        """See TowerConfig."""
        return FabNetTower(self, place.spec, place.width)


class Wav2VecLargeTower(Tower):
    """Samples -> wav2vec large -> mean over its steps -> linear layer, if one is wanted."""

    def __init__(self, config: Wav2VecLargeConfig, spec: FeatureSpec, width: int) -> None:
        """Build it with random weights; `start_weights` loads those of the config.

        Args:
            config: which file.
            spec: of `waveform` at 16 kHz.
            width: of the pooled output; 0 for the mean as it is.

        Raises:
            ValueError: another feature, or another rate.
        """
        super().__init__()
        if spec.name != "waveform":
            raise ValueError(
                f"audio.wav2vec_large: takes waveform, not {spec.name}; write features.audio: {{waveform: {{}}}}"
            )
        if (rate_hz := dict(spec.settings)["sample_rate_hz"]) != SAMPLE_RATE_HZ:
            raise ValueError(
                f"audio.wav2vec_large: was trained on {SAMPLE_RATE_HZ} samples a second, and waveform.sample_rate_hz "
                f"is {rate_hz}"
            )
        self.config = config
        (self._step_samples,) = spec.shape
        self.network = Wav2VecLarge()
        self.sequence_width = wav2vec_large.WIDTH
        self.width = width or self.sequence_width
        self.output = nn.Linear(self.sequence_width, width) if width else nn.Identity()

    def start_weights(self) -> None:
        """Take the weights that the config names.

        Raises:
            UserError: they cannot be had, or are those of another network.
        """
        loaded = Wav2VecLarge.load("audio.wav2vec_large.weights", self.config.weights)
        self.network.load_state_dict(loaded.state_dict())

    def most_steps(self, num_steps: int) -> int:
        """See Tower; no fewer than those of the track."""
        return max(num_steps, ceil(num_steps * self._step_samples / wav2vec_large.HOP))

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: a step every 10 ms. What is hidden is silence, and silence follows a clip that is too short for a
        step. The layers are those of the aggregator, behind the convolutions of the encoder."""
        seen = track.mask if track.hidden is None else track.mask & ~track.hidden
        dtype = next(self.network.parameters()).dtype
        samples = track.values.to(dtype).masked_fill(~seen[..., None], 0.0).flatten(1)
        samples = nn.functional.pad(samples, (0, max(0, wav2vec_large.SHORTEST - samples.shape[1])))
        step = track.values.shape[2]
        lengths = [count and max(count * step, wav2vec_large.SHORTEST) for count in track.mask.sum(dim=1).tolist()]
        said = self.network(samples, lengths, layers)
        pooled = self.output(mean_pool(said.sequence, said.mask)) * track.present[:, None]
        return TowerOutput(sequence=said.sequence, mask=said.mask, pooled=pooled)


class FabNetTower(Tower):
    """Faces -> FAb-Net -> mean over the frames -> linear layer, if one is wanted."""

    def __init__(self, config: FabNetConfig, spec: FeatureSpec, width: int) -> None:
        """Build it with random weights; `start_weights` loads those of the config.

        Args:
            config: which file.
            spec: of `faces` or `face_crops`: [S, S] grey or [S, S, 3] RGB, uint8.
            width: of the pooled output; 0 for the mean as it is.

        Raises:
            ValueError: the feature is none of these.
        """
        super().__init__()
        check_square("video.fab_net", spec)
        self.config = config
        self.network = FabNet()
        self.sequence_width = fab_net.WIDTH
        self.width = width or self.sequence_width
        self.output = nn.Linear(self.sequence_width, width) if width else nn.Identity()

    def start_weights(self) -> None:
        """Take the weights that the config names.

        Raises:
            UserError: they cannot be had, or are those of another network.
        """
        loaded = FabNet.load("video.fab_net.weights", self.config.weights)
        self.network.load_state_dict(loaded.state_dict())

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: a step a frame. A hidden frame is a black picture. A layer is the mean over the pixels; the first
        is the first convolution's, the last one the frame's vector."""
        frames, hidden = track.values[track.mask], None if track.hidden is None else track.hidden[track.mask]
        if hidden is not None:
            frames = frames.masked_fill(hidden.view(-1, *[1] * (frames.dim() - 1)), 0)
        parts = [self._vectors(some, layers is not None) for some in frames.split(FRAMES_AT_ONCE)]
        kept = [Steps.of_real(torch.cat(rows), track.mask) for rows in zip(*parts, strict=True)]
        if layers is not None:
            layers += kept
        sequence = kept[-1].sequence
        pooled = self.output(mean_pool(sequence, track.mask)) * track.present[:, None]
        return TowerOutput(sequence=sequence, mask=track.mask, pooled=pooled)

    def _vectors(self, frames: Tensor, every: bool) -> list[Tensor]:
        """[N, C] of every block, or of the last one alone."""
        dtype = next(self.network.parameters()).dtype
        blocks: list[Tensor] = []
        nothing, one = frames.new_zeros(1, dtype=dtype), frames.new_ones(1, dtype=dtype)  # no mean, no deviation
        vectors = self.network(standardised(frames.to(dtype), fab_net.SIDE, nothing, one), blocks if every else None)
        return blocks if every else [vectors]
