"""What attends to what: the weights of every Attention of a model, while they are asked for.

    with recorded(encoder) as maps:
        encoder.encode(batch)
    maps["cross.audio"][-1][0]   # [H, T, S]: last layer of audio -> text, clip 0

Fused kernels and left-out projections never hold the weights, so they are computed once more from what enters each
Attention, beside it: its output is the very same, and a model that nobody records has no line of this in its way.

Legend: H heads, T and S the clip's real steps of queries and keys, E width of a head.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from triptych.models.attention import Attention, Pairs

AttentionMaps = dict[str, list[dict[int, Tensor]]]
"""Stack -> layer -> clip of the batch -> [H, T, S] float32 on the CPU; rows sum to 1. A clip that lacks one of the two
sides is not there; nor is any in a stack that was not run."""


@contextmanager
def recorded(model: nn.Module) -> Iterator[AttentionMaps]:
    """Collect the weights of all attention inside a model, of the last batch that it sees before the end.

    Weights are told before dropout.

    Args:
        model: any tree of modules; see `stacks` for what its stacks are called.
    """
    found = stacks(model)
    maps: AttentionMaps = {name: [{} for _ in layers] for name, layers in found.items()}
    hooks = [
        attention.register_forward_pre_hook(_Record(maps[name], layer))
        for name, layers in found.items()
        for layer, attention in enumerate(layers)
    ]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def stacks(model: nn.Module) -> dict[str, list[Attention]]:
    """Name of a stack in the model ("towers.text", "inter_modal.text_from_audio") -> its layers' attention."""
    found: dict[str, list[Attention]] = {}
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            found.setdefault(_stack(name.split(".")), []).append(module)
    return found


def sides(stack: str, modalities: Collection[str], anchors: Sequence[str] = ()) -> tuple[str, str] | None:
    """Modality of the queries and of the keys of a stack, by its name.

    Args:
        stack: "cross.audio_to_text", "inter_modal.text_from_audio", "cross.audio" (to the anchor), "towers.audio".
        modalities: that there are.
        anchors: `Encoder.anchors`; the first one is meant where a cross-modal stack names its source alone.

    Returns:
        None where the name says nothing of the kind.
    """
    for part in stack.split("."):
        for between, forwards in (("_to_", True), ("_from_", False)):
            source, found, target = part.partition(between)
            if found and {source, target} <= set(modalities):
                return (target, source) if forwards else (source, target)
        if part in modalities:
            return (anchors[0], part) if stack.startswith("cross.") and anchors else (part, part)
    return None


def begins_with_cls(stack: str, modality: str, with_cls: Collection[str]) -> bool:
    """Whether the first step of a side of a stack is a CLS, which stands for the whole clip and no time.

    Args:
        stack: by its name; SSE-FT puts a CLS in front of every sequence that has none.
        modality: of the side.
        with_cls: `Encoder.modalities_with_cls`.
    """
    return modality in with_cls or not {"inter_modal", "self_attention"}.isdisjoint(stack.split("."))


def weights(attention: Attention, queries_ND: Tensor, keys_MD: Tensor, pairs: Pairs) -> dict[int, Tensor]:
    """Clip -> [H, T, S] of what its softmax gives for the same arguments of `Attention.forward`."""
    if not pairs.groups:
        return {}
    q_NHE, k_MHE = (
        part(x).unflatten(-1, (attention.heads, -1))
        for part, x in ((attention.query, queries_ND), (attention.key, keys_MD))
    )
    clips, found = iter(pairs.clips()), {}
    for (rows, columns), (q_btHE, k_bsHE) in zip(pairs.groups, pairs.split(q_NHE, k_MHE), strict=True):
        scores_bHts = torch.einsum("bthe,bshe->bhts", q_btHE * attention.scale, k_bsHE).float()
        weights_bHts = scores_bHts.masked_fill(~columns.mask[:, None, None], -torch.inf).softmax(dim=-1).cpu()
        for own, there, values in zip(rows.mask.cpu(), columns.mask.cpu(), weights_bHts, strict=True):
            clip = next(clips)
            if clip is not None:
                found[clip] = values[:, own][:, :, there]
    return found


class _Record:
    """Puts the weights of one Attention into its place, before it runs."""

    def __init__(self, layers: list[dict[int, Tensor]], layer: int) -> None:
        self.layers, self.layer = layers, layer

    @torch.no_grad()
    def __call__(self, attention: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(attention, Attention)
        queries_ND, keys_MD, _, pairs = given
        self.layers[self.layer] = weights(attention, queries_ND, keys_MD, pairs)


def _stack(path: list[str]) -> str:
    """The path of an Attention without the number of its layer, and without its own name where that says no more."""
    numbers = [place for place, part in enumerate(path) if part.isdecimal()]
    if not numbers:
        return ".".join(path)
    inside = path[numbers[-1] + 1 :]
    return ".".join(path[: numbers[-1]] + ([] if inside == ["attention"] else inside))
