"""Reconstruct the matrix of words, sound and picture from its code: the decoder half of CAE-LR (Koromilas and
Giannakopoulos 2021, arXiv 2110.03007; triptych.models.autoencoder has the other half and what is theirs and ours).

The decoder is the encoder backwards: 4 times max unpool -> transposed conv -> norm, GELU (not the last). As in the
authors' code an unpool puts each number where the pool found its maximum, so that these places reach the decoder beside
the code. It is thrown away after pretraining.

The loss is the mean squared error, as there, but over what is real: neither rows behind a clip's end nor columns of a
modality that it lacks count (there they are zeros to be reconstructed).

Legend: B clips, R rows, W columns of a modality, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.objectives.objective import Objective, ObjectiveConfig, unchanged
from triptych.batch import Batch
from triptych.config import nearest
from triptych.modalities import MODALITIES
from triptych.models.autoencoder import KERNELS, PADDING, POOLS, AutoencoderEncoder, Squeezed, rows_of
from triptych.models.encoder import Encoder
from triptych.training.task import Total

NAME = "reconstruction"


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(ObjectiveConfig):
    """Reconstruct what the encoder saw."""

    weights: dict[str, float] = field(default_factory=dict)
    """Modality -> weight of its squared errors; 1 where not given, as in the paper. Numbers count alike, so that a
    modality counts by the width of its feature: `{video: 0.1}` keeps 1024 pixels from drowning the rest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.weights.items():
            if name not in MODALITIES:
                raise ValueError(f"objectives.{NAME}.weights: no modality {name!r}.{nearest(name, MODALITIES)}")
            if not 0 <= weight < inf:
                raise ValueError(f"objectives.{NAME}.weights: {name}: {weight} must be a number, 0 or more")

    def build(self, encoder: Encoder, seed: int) -> "Reconstruction":
        """The objective over an autoencoder's encoder; nothing of it is drawn, so the seed is not used.

        Raises:
            ValueError: another encoder, or no weight above 0 among its modalities.
        """
        if not isinstance(encoder, AutoencoderEncoder):
            raise ValueError(
                f"objectives.{NAME}: reconstructs the matrix that encoder.autoencoder sees; use that encoder, or "
                "another objective"
            )
        return Reconstruction(self, encoder)


class Reconstruction(Objective):
    """The decoder and its loss."""

    name = NAME
    prepare = staticmethod(unchanged)
    config: ReconstructionConfig

    def __init__(self, config: ReconstructionConfig, encoder: AutoencoderEncoder) -> None:
        """Build it; raises as `ReconstructionConfig.build` does."""
        super().__init__(config)
        self.encoder_config, self.columns = encoder.config, dict(encoder.columns)
        self.weights = {name: config.weights.get(name, 1.0) for name in self.columns}
        if not any(self.weights.values()):
            raise ValueError(f"objectives.{NAME}.weights: every weight is 0, so that nothing would be learnt")
        channels = encoder.config.channels
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(channels[i + 1], channels[i], kernel, padding=PADDING)
            for i, kernel in enumerate(KERNELS)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in channels[1:-1])

    def count(self, batch: Batch) -> int:
        """Number of real elements of the matrices."""
        tracks = {name: batch.tracks[name] for name in self.columns}
        mask = rows_of(tracks, self.encoder_config).mask
        return sum(int((mask & track.present[:, None]).sum()) * self.columns[name] for name, track in tracks.items())

    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """Weighted squared error summed over the real elements; reports `error_<modality>`, the mean squared error."""
        assert isinstance(encoder, AutoencoderEncoder)
        squeezed = encoder.squeeze(encoder.tracks(batch))
        wrong = (self._decode(squeezed).float() - squeezed.matrix.float()).square()
        losses: list[Tensor] = []
        report = {}
        for name, wrong_BRW in zip(self.columns, wrong.split(list(self.columns.values()), dim=2), strict=True):
            real = squeezed.real[name]
            total = (wrong_BRW * real[..., None]).sum()
            losses.append(self.weights[name] * total)
            report[f"error_{name}"] = Total(total.detach(), int(real.sum()) * self.columns[name])
        count = sum(total.count for total in report.values())
        return Total(torch.stack(losses).sum(), count), report

    def _decode(self, squeezed: Squeezed) -> Tensor:
        """[B, R, all W]"""
        x = squeezed.code
        for layer in reversed(range(len(KERNELS))):
            places, size = squeezed.pools[layer]
            x = functional.max_unpool2d(x, places, [POOLS[layer]] * 2, output_size=size[2:])
            x = self.convolutions[layer](x)
            if layer > 0:
                x = functional.gelu(self.norms[layer - 1](x))
        return x[:, 0]
