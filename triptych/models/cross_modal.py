"""Khare et al. 2021: one transformer a modality, cross-modal transformers onto the anchor, a weighted sum.

    E_T, E_A, E_V      transformer encoders of the three modalities (Eqs. 1-3)
    E_A->T, E_V->T     cross-modal transformers: queries from the anchor T, keys and values from the other (Eq. 4)
    E = w1 E_T + w2 E_A->T + w3 E_V->T                                                               (Eq. 5)

Another anchor takes T's place. `anchor: each` (ours) has a cross-modal transformer for every ordered pair: every
modality is the anchor in turn, and none is needed, the text included:

    F_m = w (E_m + sum over n != m of E_n->m)
    fused = mean over the modalities m that the clip has of the mean over F_m's steps

Legend: B clips, M anchors, T steps of the anchor, S steps of another modality, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from triptych.batch import Batch, Track
from triptych.modalities import MODALITIES, FeatureSpec
from triptych.models.attention import Attention, Short
from triptych.models.blocks import (
    Positions,
    Source,
    TransformerConfig,
    TransformerStack,
    mean_pool,
    position_vectors,
)
from triptych.models.encoder import Encoded, Encoder, Fused
from triptych.models.inputs import FrameInput, InputConfig, word_input
from triptych.models.saved import NONE_SAVED, SavedModels
from triptych.models.towers.tower import Steps, TowerOutput

FEW_WORDS = 32
"""Words of a clip, about 12 s of speech. As many numbers must a head have, for the words of a clip to be fewer, so that
it pays to leave out projections of sound and picture (see triptych.models.attention)."""


@dataclass(frozen=True, kw_only=True)
class CrossModalConfig:
    """The system's settings; the defaults are the paper's."""

    modalities: tuple[str, ...] = MODALITIES
    """Which towers are built; the first steps to an ablation by retraining."""
    anchor: Literal["text", "audio", "video", "each"] = "text"
    """Whose steps the others are brought to. each: every modality's in turn; a clip then has a fused output whatever it
    lacks, at the cost of six cross-modal transformers in place of two."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    input: InputConfig = field(default_factory=InputConfig)
    positions: Positions = "index"
    """index: as in the paper. seconds: of a step's middle, and added again to the queries and keys of the cross-modal
    layers, whose key projections start equal to the query projections; words then find their own sound and frames
    (ours; neither half works alone)."""
    fusion_weight: float = 0.33
    """w1 = w2 = w3 of Eq. 5."""

    def __post_init__(self) -> None:
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown or not self.modalities:
            raise ValueError(f"modalities: {list(self.modalities)} must be some of {', '.join(MODALITIES)}")
        if self.anchor not in (*self.modalities, "each"):
            raise ValueError(
                f"anchor: {self.anchor} is not among the modalities {', '.join(self.modalities)}; there is also each"
            )

    def build(self, inputs: Mapping[str, FeatureSpec], words: tuple[str, ...], models: SavedModels) -> Encoder:
        """See SystemConfig."""
        return CrossModalEncoder(self, inputs, words, models)


class CrossModalEncoder(Encoder):
    """The encoder of Khare et al. 2021."""

    def __init__(
        self,
        config: CrossModalConfig,
        inputs: Mapping[str, FeatureSpec],
        words: tuple[str, ...],
        models: SavedModels = NONE_SAVED,
    ) -> None:
        """Build it.

        Args:
            config: settings.
            inputs: modality -> feature, for at least the config's modalities.
            words: the vocabulary.
            models: of a saved encoder that reads words through a text encoder.

        Raises:
            ValueError: a modality has no feature.
        """
        super().__init__()
        missing = set(config.modalities) - set(inputs)
        if missing:
            raise ValueError(f"no feature is configured for {', '.join(sorted(missing))}")
        self.config = config
        self.inputs = {name: inputs[name] for name in MODALITIES if name in config.modalities}
        self.words = words
        self.anchors = tuple(self.inputs) if config.anchor == "each" else (config.anchor,)
        self.widths = dict.fromkeys((*self.inputs, "fused"), config.transformer.width)
        self.sequence_widths = dict.fromkeys(self.inputs, config.transformer.width)
        transformer, width = config.transformer, config.transformer.width
        self.input = nn.ModuleDict(
            {
                name: word_input(words, width, config.input, models.text)
                if spec.rate_hz is None
                else FrameInput(spec, width, config.input)
                for name, spec in self.inputs.items()
            }
        )
        self.dropout = nn.Dropout(transformer.dropout)
        self.towers = nn.ModuleDict({name: TransformerStack(transformer) for name in self.inputs})
        self.cross = nn.ModuleDict(
            {
                self._cross_name(source, anchor): TransformerStack(transformer, self._short(source, anchor))
                for anchor in self.anchors
                for source in self.inputs
                if source != anchor
            }
        )
        if config.positions == "seconds":
            for module in self.cross.modules():
                if isinstance(module, Attention):
                    module.start_keys_as_queries()

    def encode(self, batch: Batch, *, fuse: bool = True, layers: bool = False) -> Encoded:
        """See Encoder.encode. Without any anchor in the batch nothing is fused: there are only the towers' pools."""
        given = self.tracks(batch)
        positions = {name: self._positions(track) for name, track in given.items()}
        kept: dict[str, list[Steps]] = {name: [] for name in given} if layers else {}
        towers = {
            name: self.towers[name](
                self.dropout(self.input[name](track) + positions[name]), track.mask, layers=kept.get(name)
            )
            for name, track in given.items()
        }
        pooled = {name: mean_pool(towers[name], track.mask) for name, track in given.items()}
        present = {name: track.present for name, track in given.items()}
        fused = {
            anchor: Fused(
                sequence=self._fuse(anchor, towers, given, positions),
                mask=given[anchor].mask,
                times=given[anchor].times,
            )
            for anchor in (self.anchors if fuse else ())
            if anchor in given
        }
        if fused:
            has_BM = torch.stack([present[anchor] for anchor in fused], dim=1)
            pools_BMD = torch.stack([mean_pool(one.sequence, one.mask) for one in fused.values()], dim=1)
            pooled["fused"], present["fused"] = mean_pool(pools_BMD, has_BM), has_BM.any(dim=1)
        outputs = {
            name: TowerOutput(sequence=towers[name], mask=track.mask, pooled=pooled[name])
            for name, track in given.items()
        }
        return Encoded(
            pooled=pooled,
            present=present,
            towers=outputs,
            fused=fused,
            layers={name: tuple(steps) for name, steps in kept.items()},
        )

    def _fuse(
        self, anchor: str, towers: Mapping[str, Tensor], given: Mapping[str, Track], positions: Mapping[str, Tensor]
    ) -> Tensor:
        """[B, T, D] of Eq. 5 in the anchor's steps."""
        fused = towers[anchor]
        for name, track in given.items():
            if name != anchor:
                at = (positions[anchor], positions[name]) if self.config.positions == "seconds" else None
                layers = self.cross[self._cross_name(name, anchor)]
                fused = fused + layers(towers[anchor], given[anchor].mask, Source(towers[name], track.mask, at))
        return fused * self.config.fusion_weight

    def _short(self, source: str, anchor: str) -> Short | None:
        """The side that has words and the other frames, where heads are wide enough (see FEW_WORDS)."""
        words = [self.inputs[name].rate_hz is None for name in (anchor, source)]
        if words[0] == words[1] or self.config.transformer.width // self.config.transformer.heads < FEW_WORDS:
            return None
        return "queries" if words[0] else "keys"

    def _cross_name(self, source: str, anchor: str) -> str:
        """With a single anchor the source says it all."""
        return f"{source}_to_{anchor}" if self.config.anchor == "each" else source

    def _positions(self, track: Track) -> Tensor:
        """[B, T, D] sinusoidal positions of a track, in the model's precision."""
        dtype = next(self.parameters()).dtype
        return position_vectors(track, self.config.positions, self.config.transformer.width).to(dtype)
