"""The rows of a probe's table: which system, what it was shown, and what of it a head may see.

Legend: R rows of a table of features (clips, or steps of a series), D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from linear_probe.blocks import Block, Layer
from linear_probe.config import ProbeConfig
from linear_probe.table import Table
from triptych.batch import fake_batch
from triptych.config import UserError, nearest
from triptych.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class View:
    """Blocks side by side: what a head sees."""

    name: str
    """As a table prints it: "pooled", "layer -2, mean"."""
    blocks: tuple[Block, ...]

    def shown(self, modalities: tuple[str, ...]) -> "View":
        """The same view with fewer modalities shown; the outputs of others are zeros."""
        return replace(self, blocks=tuple(replace(block, shown=modalities) for block in self.blocks))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system of the table."""

    system: str
    inputs: str
    """Modalities joined by "+"."""
    sources: tuple[str, ...]
    """Its runs: names of sources, one a seed of initialisation."""
    views: tuple[View, ...]
    """One is chosen on valid."""

    @property
    def title(self) -> str:
        """As triptych.evaluation.results.System has it."""
        return f"{self.system} ({self.inputs})"

    @property
    def modalities(self) -> tuple[str, ...]:
        """That are shown."""
        return tuple(self.inputs.split("+"))


def encoder_views(
    config: ProbeConfig, name: str, encoder: Encoder, inputs: str, rate_hz: float | None
) -> tuple[View, ...]:
    """What a head may see of an encoder that is shown these modalities.

    Args:
        config: outputs, layers and pooling.
        name: of the encoder, for messages.
        encoder: frozen.
        inputs: modalities joined by "+".
        rate_hz: of a series; None of clips.

    Raises:
        UserError: the encoder takes no such modality or gives no such output, or has too few layers.
    """
    modalities = _modalities(inputs, name, encoder)
    for output in config.outputs:
        if output not in encoder.widths:
            raise UserError(f"outputs: {name} has no {output!r}.{nearest(output, tuple(encoder.widths))}")
    given = [*modalities, *(("fused",) if "fused" in encoder.widths else ())]
    outputs = [output for output in config.outputs or encoder.widths if output in given]
    if not outputs:
        raise UserError(f"outputs: {name} gives none of {', '.join(config.outputs)} when it is shown {inputs}")
    views = []
    for layer in config.layers:
        if layer == "pooled":
            blocks = tuple(Block(output=output, shown=modalities, rate_hz=rate_hz) for output in outputs)
            views.append(View(name="pooled", blocks=blocks))
            continue
        towers = [output for output in outputs if output != "fused"]
        if not towers or (layer == "stack" and len(towers) > 1):
            wanted = "one modality a row, as inputs=[audio,text]" if towers else "an output of a tower"
            raise UserError(f"layers: {layer} wants {wanted}; {name} is shown {inputs}")
        for number in _numbers(layer, name, encoder, towers):
            for pooling in config.pooling:
                views.append(_layer_view(number, pooling, towers, modalities, rate_hz))
    return tuple(dict.fromkeys(views))


def subsets(row: Row) -> list[tuple[str, ...]]:
    """What is left of a row's modalities when some are removed, the larger ones first."""
    modalities = row.modalities
    return [kept for size in range(len(modalities) - 1, 0, -1) for kept in combinations(modalities, size)]


def features(table: Table, view: View) -> Tensor:
    """What a head sees: [R, D], or [R, L, D] of a stack."""
    return torch.from_numpy(np.concatenate([table.blocks[block] for block in view.blocks], axis=-1))


def _layer_view(
    number: Layer, pooling: str, towers: Sequence[str], shown: tuple[str, ...], rate_hz: float | None
) -> View:
    chosen = cast(Literal["mean", "first"], pooling)
    blocks = tuple(
        Block(output=output, shown=shown, layer=number, pooling=chosen, rate_hz=rate_hz) for output in towers
    )
    label = "stack" if number == "stack" else f"layer {number}"
    return View(name=label if rate_hz is not None else f"{label}, {pooling}", blocks=blocks)


def _numbers(layer: str, name: str, encoder: Encoder, towers: Sequence[str]) -> Sequence[Layer]:
    """Layers counted from the last one back, so that towers of different depth end together."""
    if layer == "stack":
        return ["stack"]
    known = num_layers(encoder)
    if without := [output for output in towers if output not in known]:
        raise UserError(f"layers: {layer}: {name} has no layers for {', '.join(without)}; there is pooled")
    depth = min(known[output] for output in towers)
    if layer == "all":
        return range(-1, -depth - 1, -1)
    if -int(layer) > depth:
        raise UserError(f"layers: {layer}: {name} has {depth} for {', '.join(towers)}, the input among them")
    return [int(layer)]


def num_layers(encoder: Encoder) -> Mapping[str, int]:
    """Modality -> layers of its tower, what enters the first one included."""
    batch = fake_batch(encoder.inputs, num_clips=1, vocabulary_size=max(1, len(encoder.words)))
    with torch.no_grad():
        layers = encoder.encode(batch.to(next(encoder.parameters()).device), fuse=False, layers=True).layers
    return {modality: len(steps) for modality, steps in layers.items()}


def _modalities(inputs: str, name: str, encoder: Encoder) -> tuple[str, ...]:
    modalities = tuple(inputs.split("+"))
    for modality in modalities:
        if modality not in encoder.inputs:
            raise UserError(f"inputs: {name} takes no {modality!r}.{nearest(modality, tuple(encoder.inputs))}")
    return modalities
