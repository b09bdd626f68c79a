"""The encoder half of CAE-LR (Koromilas and Giannakopoulos 2021, arXiv 2110.03007): a clip as a matrix, squeezed by 2-D
convolutions. The other half is an objective's (pretrain.objectives.reconstruction).

    matrix    a row a word, what was heard and seen during the word beside the word's vector: [20, 74 + 35 + 300] there
    encoder   4 times conv -> norm, GELU (not the last) -> max pool; kernels 3, 3, 5, 5, padding 2, pools 2, 2, 3, 2,
              channels 32, 64, 128, 15: [1, 20, 409] -> [15, 1, 17]
    code      that, flattened: 255 numbers; a linear classifier tells the emotion from it

These are facts of the paper's abstract and of its authors' code. What follows is ours, for the code does otherwise (the
first three) or does not say:

- Group normalisation of one clip in place of batch normalisation, which would make results depend on the world size.
- Columns are scaled by the constants of their feature (FeatureSpec.mean and std), not to [0, 1] by the training split's
  least and greatest values.
- Columns stand in the order of MODALITIES (there: sound, picture, text), which matters where two of them touch.
- A clip without words has rows of `row_s` seconds, so that any modalities can be encoded.
- A row takes the mean of the steps that overlap it, or the nearest one; words behind the last row are left out.

Word vectors are given (`word_vectors`, GloVe in the paper) or stay as they were drawn: trained ones would become
whatever is easy to reconstruct.

Legend: B clips, R rows, T steps of a modality, W columns of a modality, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.batch import Batch, Track
from triptych.modalities import MODALITIES, FeatureSpec
from triptych.models.blocks import span_means
from triptych.models.encoder import Encoded, Encoder
from triptych.models.inputs import InputConfig, WordInput, zero_hidden
from triptych.models.saved import NONE_SAVED, SavedModels

KERNELS, POOLS, PADDING = (3, 3, 5, 5), (2, 2, 3, 2), 2
"""Of the four layers, in both directions of the matrix."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The system's settings; the defaults are those of the paper's code."""

    modalities: tuple[str, ...] = MODALITIES
    """Which ones the matrix has columns of."""
    rows: int = 20
    """Words of a clip, or spans of `row_s`; the matrix of a shorter one ends in zeros, what is later is left out."""
    row_s: float = 0.3
    """Length of a row where a clip has no words: about a word's (ours)."""
    first_channels: int = 32
    """Of the first layer; the next two have twice and four times as many."""
    code_channels: int = 15
    word_width: int = 300

    def __post_init__(self) -> None:
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown or not self.modalities:
            raise ValueError(f"modalities: {list(self.modalities)} must be some of {', '.join(MODALITIES)}")
        if min(self.first_channels, self.code_channels, self.word_width) < 1 or not self.row_s > 0:
            raise ValueError("first_channels, code_channels and word_width must be 1 or more, and row_s above 0")
        if not squeezed_length(self.rows):
            raise ValueError(f"rows: {self.rows} are too few for the four pools; give {FEWEST} or more")

    def build(self, inputs: Mapping[str, FeatureSpec], words: tuple[str, ...], models: SavedModels) -> Encoder:
        """See SystemConfig."""
        return AutoencoderEncoder(self, inputs, words, models)

    @property
    def channels(self) -> tuple[int, ...]:
        """Into the first layer and out of each."""
        return 1, self.first_channels, 2 * self.first_channels, 4 * self.first_channels, self.code_channels


def squeezed_length(length: int) -> int:
    """Rows (or columns) of the code of a matrix with so many."""
    for kernel, pool in zip(KERNELS, POOLS, strict=True):
        length = (length + 2 * PADDING + 1 - kernel) // pool
    return length


FEWEST = next(length for length in range(100) if squeezed_length(length) == 1)
"""Rows and columns that a matrix must have, so that the code has one."""


@dataclass(frozen=True)
class Rows:
    """What the rows of a batch's matrices stand for."""

    times: Tensor
    """[B, R, 2] seconds, as in Track."""
    mask: Tensor
    """[B, R] bool, True = real."""


def rows_of(tracks: Mapping[str, Track], config: AutoencoderConfig) -> Rows:
    """A clip's words; where it has none, equal spans from its start to the end of its longest modality.

    Args:
        tracks: what is shown, at least one.
        config: number of rows, and their length.
    """
    edges = torch.arange(config.rows + 1, device=next(iter(tracks.values())).mask.device) * config.row_s
    ends_B = torch.stack([(track.times[..., 1] * track.mask).amax(dim=1) for track in tracks.values()]).amax(dim=0)
    mask_BR = edges[:-1] < ends_B[:, None]
    times_BR2 = torch.stack([edges[:-1], edges[1:]], dim=-1).expand(len(mask_BR), -1, -1)
    if (words := tracks.get("text")) is not None:
        has_B1 = words.present[:, None]
        mask_BR = torch.where(has_B1, _fit(words.mask, config.rows), mask_BR)
        times_BR2 = torch.where(has_B1[..., None], _fit(words.times, config.rows), times_BR2)
    return Rows(times_BR2, mask_BR)


@dataclass(frozen=True, kw_only=True)
class Squeezed:
    """The matrices of a batch and what the encoder makes of them: all that a decoder needs."""

    matrix: Tensor
    """[B, R, sum of W]; zeros in columns of modalities that are not shown, and in rows that are not real."""
    real: Mapping[str, Tensor]
    """Modality -> [B, R] bool: which rows of its columns say something; of those that are shown."""
    code: Tensor
    """[B, C, ...], not yet flat."""
    pools: tuple[tuple[Tensor, torch.Size], ...]
    """Each layer's places of the maxima, and the shape of what was pooled."""


class AutoencoderEncoder(Encoder):
    """The matrix and the convolutions. A modality's pooled vector is the code of the matrix with its columns alone."""

    def __init__(
        self,
        config: AutoencoderConfig,
        inputs: Mapping[str, FeatureSpec],
        words: tuple[str, ...],
        models: SavedModels = NONE_SAVED,
    ) -> None:
        """Build it.

        Args:
            config: settings.
            inputs: modality -> feature, for at least the config's modalities.
            words: the vocabulary.
            models: of a saved encoder; there are none in this one.

        Raises:
            ValueError: a modality has no feature, or the matrix would be too narrow.
        """
        super().__init__()
        if missing := set(config.modalities) - set(inputs):
            raise ValueError(f"no feature is configured for {', '.join(sorted(missing))}")
        self.config = config
        self.inputs = {name: inputs[name] for name in MODALITIES if name in config.modalities}
        self.words, self.anchors, self.sequence_widths = words, (), {}
        self.columns = {
            name: config.word_width if spec.rate_hz is None else prod(spec.shape) for name, spec in self.inputs.items()
        }
        num_columns = sum(self.columns.values())
        if not squeezed_length(num_columns):
            raise ValueError(f"the features have {num_columns} numbers a step; four pools need {FEWEST} or more")
        code = config.code_channels * squeezed_length(config.rows) * squeezed_length(num_columns)
        self.widths = dict.fromkeys((*self.inputs, "fused"), code)
        self.word_input: WordInput | None = None
        if "text" in self.inputs:
            self.word_input = WordInput(len(words), None, InputConfig(word_width=config.word_width))
            self.word_input.vectors.requires_grad_(False)
        channels = config.channels
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], kernel, padding=PADDING) for i, kernel in enumerate(KERNELS)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in channels[1:-1])

    def encode(self, batch: Batch, *, fuse: bool = True, layers: bool = False) -> Encoded:
        """See Encoder.encode; there are no towers and no layers; "fused" is the code of all that the batch carries."""
        given = self.tracks(batch)
        shown = {name: {name: track} for name, track in given.items()} | ({"fused": given} if fuse else {})
        present = {
            name: torch.stack([track.present for track in tracks.values()]).any(dim=0) for name, tracks in shown.items()
        }
        pooled = {name: self.squeeze(tracks).code.flatten(1) * present[name][:, None] for name, tracks in shown.items()}
        return Encoded(pooled=pooled, present=present)

    def squeeze(self, tracks: Mapping[str, Track]) -> Squeezed:
        """The code of the modalities that are shown, and how it came about.

        Args:
            tracks: at least one, of `inputs`.
        """
        rows = rows_of(tracks, self.config)
        real = {name: rows.mask & track.present[:, None] for name, track in tracks.items()}
        shape = rows.mask.shape
        weight = next(self.convolutions.parameters())
        parts = [
            (self._columns(name, tracks[name], rows) * real[name][..., None]).to(weight.dtype)
            if name in tracks
            else weight.new_zeros(*shape, num_columns)
            for name, num_columns in self.columns.items()
        ]
        matrix = torch.cat(parts, dim=2)
        x, pools = matrix[:, None], []
        for layer, (convolution, pool) in enumerate(zip(self.convolutions, POOLS, strict=True)):
            x = convolution(x)
            if layer < len(self.norms):
                x = functional.gelu(self.norms[layer](x))
            size = x.shape
            x, places = functional.max_pool2d(x, pool, return_indices=True)
            pools.append((places, size))
        return Squeezed(matrix=matrix, real=real, code=x, pools=tuple(pools))

    def _columns(self, name: str, track: Track, rows: Rows) -> Tensor:
        """[B, R, W] of a modality; whatever at rows that are not real."""
        if self.word_input is not None and name == "text":
            return _fit(self.word_input(track), self.config.rows)
        spec = self.inputs[name]
        x = ((track.values.float() - spec.mean) / spec.std).flatten(2)
        return span_means(zero_hidden(x, track), track.mask, track.times, rows.times)


def _fit(x_BT: Tensor, rows: int) -> Tensor:
    """[B, T, ...] -> [B, R, ...]: the first steps, then zeros."""
    x_BT = x_BT[:, :rows]
    missing = x_BT.new_zeros(len(x_BT), rows - x_BT.shape[1], *x_BT.shape[2:])
    return torch.cat([x_BT, missing], dim=1)
