"""What gives the blocks: frozen encoders, and the inputs themselves.

Legend: B clips, T steps, D width, L layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from linear_probe.blocks import FUSED, Block, Layer
from shards.reading.encoders import vocabulary_of
from shards.words.words import AnyVocabulary, Vocabulary
from triptych.batch import Batch, Track, fake_batch
from triptych.config import UserError, nearest
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.encoder import Encoded, Encoder
from triptych.models.steps import on_steps
from triptych.models.towers.tower import timed

BAG_OF_WORDS = 1000
"""Most frequent words that the input baseline counts; the rest share one column."""


class EncoderSource:
    """Blocks of a frozen encoder: one forward pass of a batch for all that see the same modalities.

    Args:
        encoder: in evaluation mode, where the batches will be. Its precision and device are no part of the identity,
            and the last bits of the numbers may differ between them.
        identity: what its numbers depend on, as shards.reading.encoders.Opened tells it.
    """

    def __init__(self, encoder: Encoder, identity: Mapping[str, Any]) -> None:
        assert not encoder.training
        self.encoder = encoder
        self.inputs, self.vocabulary = encoder.inputs, vocabulary_of(encoder, encoder.inputs)
        self._identity = identity
        self._fuses = FUSED in encoder.widths

    def identity(self) -> dict[str, Any]:
        """See Source."""
        return {"source": "encoder", "weights": dict(self._identity), **_inputs_identity(self.inputs, self.vocabulary)}

    def resolve(self, block: Block) -> Block:
        """See Source. The towers of an encoder that never fuses see nothing but their own modality."""
        encoder = self.encoder
        _check_names(block, tuple(encoder.widths), encoder.inputs)
        if block.layer == "moments":
            raise UserError(f"{block.output}: layer moments is of the inputs; an encoder has pooled, stack or a number")
        shown = tuple(name for name in encoder.inputs if name in block.shown)
        # what is fused without an anchor is there wherever anything is
        if not set(shown) & set((encoder.anchors or encoder.inputs) if block.output == FUSED else (block.output,)):
            shown = ()
        elif not self._fuses:
            shown = (block.output,)
        return replace(block, shown=shown, layer=self._layer(block))

    def shape(self, block: Block) -> tuple[int, ...]:
        """See Source."""
        if block.layer == "pooled":
            pooled = block.rate_hz is None or block.output == FUSED
            return ((self.encoder.widths if pooled else self.encoder.sequence_widths)[block.output],)
        widths = self._layer_widths[block.output]
        return (widths[block.layer],) if isinstance(block.layer, int) else (len(widths), widths[0])

    def compute(self, batch: Batch, blocks: Sequence[Block], num_rows: Sequence[int]) -> dict[Block, Tensor]:
        """See Source."""
        together: dict[tuple[str, ...], list[Block]] = {}
        for block in blocks:  # towers that never fuse do not see each other, and one pass serves all
            together.setdefault(block.shown if self._fuses else (), []).append(block)
        found = {}
        for same in together.values():
            seen = self._seen(batch, {modality for block in same for modality in block.shown})
            encoded = self.encoder.encode(
                seen,
                fuse=any(block.output == FUSED for block in same),
                layers=any(block.layer != "pooled" for block in same),
            )
            for block in same:
                found[block] = self._block(block, encoded, seen, num_rows)
        return found

    def _block(self, block: Block, encoded: Encoded, batch: Batch, num_rows: Sequence[int]) -> Tensor:
        output, rate_hz = block.output, block.rate_hz
        has_cls = output in self.encoder.modalities_with_cls
        if block.layer == "pooled":
            if rate_hz is None:
                return encoded.pooled[output].float()
            if output == FUSED:
                return _fused_steps(encoded, rate_hz, num_rows)
            layers = [(encoded.towers[output].sequence, encoded.towers[output].mask)]
        else:
            wanted = encoded.layers[output]
            wanted = wanted if block.layer == "stack" else (wanted[int(block.layer)],)
            layers = [(steps.sequence, steps.mask) for steps in wanted]
        rows = [
            _pool(sequence, mask, block.pooling, has_cls)
            if rate_hz is None
            else on_steps(sequence, mask, batch.tracks[output], rate_hz, num_rows, has_cls)
            for sequence, mask in layers
        ]
        return torch.stack(rows, dim=1) if block.layer == "stack" else rows[0]

    def _seen(self, batch: Batch, shown: set[str]) -> Batch:
        """The other modalities absent, as of clips that lack them: the numbers do not depend on what else is read."""
        absent = {name: spec for name, spec in self.inputs.items() if name not in shown}
        tracks = {name: batch.tracks[name] for name in self.inputs if name in shown}
        device = next(iter(tracks.values())).mask.device
        tracks |= {name: _absent(spec, len(batch), device) for name, spec in absent.items()}
        return replace(batch, tracks={name: tracks[name] for name in self.inputs})

    def _layer(self, block: Block) -> Layer:
        if not isinstance(block.layer, int) and block.layer != "stack":
            return block.layer
        if block.output == FUSED:
            raise UserError(f"{FUSED}: only towers have layers ({', '.join(self.inputs)}); it has pooled")
        widths = self._layer_widths[block.output]
        if block.layer == "stack":
            if len(set(widths)) > 1:
                told = ", ".join(map(str, widths))
                raise UserError(f"{block.output}: its layers have {told} numbers and make no stack; name one of them")
            return block.layer
        if not -len(widths) <= block.layer < len(widths):
            raise UserError(f"{block.output}: no layer {block.layer}; it has 0 to {len(widths) - 1} (-1 is the last)")
        return block.layer % len(widths)

    @cached_property
    def _layer_widths(self) -> dict[str, tuple[int, ...]]:
        """Modality -> width of every layer, told by a short clip that is made up."""
        batch = fake_batch(self.inputs, num_clips=1, num_words=2, vocabulary_size=max(1, len(self.encoder.words)))
        device = next(self.encoder.parameters(), torch.empty(0)).device
        with torch.no_grad():
            layers = self.encoder.encode(batch.to(device), fuse=False, layers=True).layers
        return {name: tuple(steps.sequence.shape[-1] for steps in layers[name]) for name in self.inputs}


class InputMeans:
    """What a probe reads without any encoder, a modality a block.

    Layer "pooled": the time mean of every number of a step of sound or picture, in units of the feature's `mean` and
    `std`; of the words how often each of the BAG_OF_WORDS most frequent ones comes. Layer "moments": those means, and
    behind them the standard deviations over the clip (sound and picture alone). With `rate_hz`, "pooled" is the mean
    over each step of the series.

    Args:
        inputs: modality -> feature, as the encoder beside it has them.
        vocabulary: of the words; None where none are read.
    """

    def __init__(self, inputs: Mapping[str, FeatureSpec], vocabulary: Vocabulary | None) -> None:
        self.inputs = inputs
        self.vocabulary: AnyVocabulary | None = vocabulary

    def identity(self) -> dict[str, Any]:
        """See Source."""
        return {"source": "input means", "bag_of_words": BAG_OF_WORDS, **_inputs_identity(self.inputs, self.vocabulary)}

    def resolve(self, block: Block) -> Block:
        """See Source."""
        _check_names(block, tuple(self.inputs), self.inputs)
        if block.layer not in ("pooled", "moments"):
            raise UserError(f"{block.output}: the inputs have no layer {block.layer}, only pooled and moments")
        if block.layer == "moments" and (block.rate_hz is not None or self.inputs[block.output].is_words):
            raise UserError(f"{block.output}: layer moments is for sound and picture, one row a clip; take pooled")
        return replace(block, shown=(block.output,) if block.output in block.shown else ())

    def shape(self, block: Block) -> tuple[int, ...]:
        """See Source."""
        spec = self.inputs[block.output]
        if spec.is_words:
            return (BAG_OF_WORDS + 1,)
        return (prod(spec.shape) * (2 if block.layer == "moments" else 1),)

    def compute(self, batch: Batch, blocks: Sequence[Block], num_rows: Sequence[int]) -> dict[Block, Tensor]:
        """See Source."""
        return {block: self._block(block, batch.tracks[block.output], num_rows) for block in blocks}

    def _block(self, block: Block, track: Track, num_rows: Sequence[int]) -> Tensor:
        spec = self.inputs[block.output]
        if spec.is_words:
            ids = torch.where(track.values > BAG_OF_WORDS, 0, track.values)
            if block.rate_hz is not None:
                return on_steps(one_hot(ids, BAG_OF_WORDS + 1), track.mask, track, block.rate_hz, num_rows)
            counts = torch.zeros(len(ids), BAG_OF_WORDS + 1, device=ids.device)
            return counts.scatter_add_(1, ids, track.mask.float())
        values = (track.values.float() - spec.mean) / spec.std
        values_BTD = values.reshape(*track.mask.shape, -1)
        if block.rate_hz is not None:
            return on_steps(values_BTD, track.mask, track, block.rate_hz, num_rows)
        means = mean_pool(values_BTD, track.mask)
        if block.layer == "pooled":
            return means
        deviations = mean_pool((values_BTD - means[:, None]).square(), track.mask).sqrt()
        return torch.cat([means, deviations], dim=1)


def _check_names(block: Block, outputs: tuple[str, ...], inputs: Mapping[str, FeatureSpec]) -> None:
    if block.output not in outputs:
        raise UserError(f"there is no output {block.output!r}.{nearest(block.output, outputs)}")
    for modality in block.shown:
        if modality not in inputs:
            raise UserError(f"{block.output}: cannot be shown {modality!r}.{nearest(modality, inputs)}")


def _inputs_identity(inputs: Mapping[str, FeatureSpec], vocabulary: AnyVocabulary | None) -> dict[str, Any]:
    return {
        "inputs": {modality: spec.to_json() for modality, spec in inputs.items()},
        "words_sha256": "" if vocabulary is None else vocabulary.sha256,
    }


def _absent(spec: FeatureSpec, num_clips: int, device: torch.device) -> Track:
    """As shards.reading.collate pads a modality that no clip of a batch has."""
    dtype = torch.float32 if spec.dtype == "float16" else getattr(torch, spec.dtype)
    return Track(
        values=torch.zeros(num_clips, 1, *spec.shape, dtype=dtype, device=device),
        mask=torch.zeros(num_clips, 1, dtype=torch.bool, device=device),
        times=torch.zeros(num_clips, 1, 2, device=device),
    )


def _pool(sequence_BTD: Tensor, mask_BT: Tensor, pooling: str, has_cls: bool) -> Tensor:
    if pooling == "mean":
        return mean_pool(sequence_BTD.float(), timed(mask_BT, has_cls))
    first = mask_BT.int().argmax(dim=1)
    rows = sequence_BTD[torch.arange(len(first), device=first.device), first].float()
    return rows * mask_BT.any(dim=1, keepdim=True)


def _fused_steps(encoded: Encoded, rate_hz: float, num_rows: Sequence[int]) -> Tensor:
    """The mean over the anchors that a clip has, as of its pooled vector."""
    total, count = torch.zeros(()), torch.zeros(())
    for fused in encoded.fused.values():
        track = Track(values=fused.sequence, mask=fused.mask, times=fused.times)
        has_R = torch.repeat_interleave(
            fused.mask.any(dim=1).float(), torch.tensor(num_rows, device=fused.mask.device), dim=0
        )
        total = total + on_steps(fused.sequence, fused.mask, track, rate_hz, num_rows)
        count = count + has_R
    return total / count.clamp(min=1)[:, None]
