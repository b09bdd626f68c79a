"""Khare et al. 2021: one transformer a modality, cross-modal transformers onto the anchor, a weighted sum.

    E_T, E_A, E_V      transformer encoders of the three modalities (Eqs. 1-3)
    E_A->T, E_V->T     cross-modal transformers: queries from the anchor T, keys and values from the other (Eq. 4)
    E = w1 E_T + w2 E_A->T + w3 E_V->T                                                               (Eq. 5)

Legend: B clips, T steps of the anchor, S steps of another modality, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from triptych.batch import Batch, Track
from triptych.modalities import MODALITIES, FeatureSpec
from triptych.models.blocks import Attention, TransformerConfig, TransformerLayer, mean_pool, sinusoid
from triptych.models.encoder import Encoded, Encoder
from triptych.models.text_encoder import TextModel
from triptych.models.towers import FrameInput, InputConfig, word_input

POSITIONS_PER_S = 20.0
"""Positions in seconds count steps of 50 ms, the rate of the stacked LFBE, so that both kinds span a like range."""


@dataclass(frozen=True, kw_only=True)
class CrossModalConfig:
    """The system's settings; the defaults are the paper's."""

    modalities: tuple[str, ...] = MODALITIES
    """Which towers are built; the first steps to an ablation by retraining."""
    anchor: Literal["text", "audio", "video"] = "text"
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    input: InputConfig = field(default_factory=InputConfig)
    positions: Literal["index", "seconds"] = "index"
    """index: as in the paper. seconds: of a step's middle, and added again to the queries and keys of the cross-modal
    layers, whose key projections start equal to the query projections; words then find their own sound and frames
    (ours; neither half works alone)."""
    fusion_weight: float = 0.33
    """w1 = w2 = w3 of Eq. 5."""

    def __post_init__(self) -> None:
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown or not self.modalities:
            raise ValueError(f"modalities: {list(self.modalities)} must be some of {', '.join(MODALITIES)}")
        if self.anchor not in self.modalities:
            raise ValueError(f"anchor: {self.anchor} is not among the modalities {', '.join(self.modalities)}")


class CrossModalEncoder(Encoder):
    """The encoder of Khare et al. 2021."""

    def __init__(
        self,
        config: CrossModalConfig,
        inputs: Mapping[str, FeatureSpec],
        words: tuple[str, ...],
        text_model: TextModel | None = None,
    ) -> None:
        """Build it.

        Args:
            config: settings.
            inputs: modality -> feature, for at least the config's modalities.
            words: the vocabulary.
            text_model: of a saved encoder that reads words through a text encoder.

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
        self.anchor = config.anchor
        self.widths = dict.fromkeys((*self.inputs, "fused"), config.transformer.width)
        self.activation_checkpointing = False
        transformer, width = config.transformer, config.transformer.width
        self.input = nn.ModuleDict(
            {
                name: word_input(words, width, config.input, text_model)
                if spec.rate_hz is None
                else FrameInput(spec, width, config.input)
                for name, spec in self.inputs.items()
            }
        )
        self.dropout = nn.Dropout(transformer.dropout)
        self.towers = nn.ModuleDict({name: _layers(transformer) for name in self.inputs})
        self.cross = nn.ModuleDict({name: _layers(transformer) for name in self.inputs if name != config.anchor})
        if config.positions == "seconds":
            for module in self.cross.modules():
                if isinstance(module, Attention):
                    module.start_keys_as_queries()

    def encode(self, batch: Batch) -> Encoded:
        """See Encoder.encode. Without the anchor in the batch there is no fused sequence: only the towers' pools."""
        given = {name: batch.tracks[name] for name in self.inputs if name in batch.tracks}
        if not given:
            raise ValueError(
                f"the batch has none of {', '.join(self.inputs)}; it has {', '.join(batch.tracks) or 'none'}"
            )
        positions = {name: self._positions(track) for name, track in given.items()}
        towers = {
            name: self._run(
                self.towers[name], self.dropout(self.input[name](track) + positions[name]), None, track.mask
            )
            for name, track in given.items()
        }
        pooled = {name: mean_pool(towers[name], track.mask) for name, track in given.items()}
        present = {name: track.present for name, track in given.items()}
        anchor = self.anchor
        if anchor not in given:
            return Encoded(pooled=pooled, present=present)
        fused = towers[anchor]
        for name in given:
            if name != anchor:
                at = (positions[anchor], positions[name]) if self.config.positions == "seconds" else None
                crossed = self._run(self.cross[name], towers[anchor], towers[name], given[name].mask, at)
                # A clip without this modality adds nothing: zeros, not what an attention over nothing would give.
                fused = fused + crossed * present[name][:, None, None]
        fused = fused * self.config.fusion_weight
        pooled["fused"], present["fused"] = mean_pool(fused, given[anchor].mask), present[anchor]
        return Encoded(pooled=pooled, present=present, sequence=fused, mask=given[anchor].mask)

    def _positions(self, track: Track) -> Tensor:
        """[B, T, D] sinusoidal positions of a track, in the model's precision."""
        dtype = next(self.parameters()).dtype
        if self.config.positions == "seconds":
            steps = track.times.mean(dim=-1) * POSITIONS_PER_S
        else:
            steps = torch.arange(track.mask.shape[1], device=track.mask.device)[None].expand(track.mask.shape)
        return sinusoid(steps, self.config.transformer.width).to(dtype)

    def _run(
        self,
        layers: nn.Module,
        x_BTD: Tensor,
        source_BSD: Tensor | None,
        mask_BS: Tensor,
        positions: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[B, T, D] through a stack; without a source the stream attends to itself."""
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            source = x_BTD if source_BSD is None else source_BSD
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, source, mask_BS, positions, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, source, mask_BS, positions)
        return x_BTD


def _layers(config: TransformerConfig) -> nn.ModuleList:
    return nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
