"""Frozen features of a split: every clip is read and encoded once, for all systems together.

Legend: B clips of a batch, N clips of a split, D width.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.batch import UNLABELLED, Batch, Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoder

Extractor = Callable[[Batch], Tensor]
"""Batch on the encoder's device -> [B, D] float32."""

BAG_OF_WORDS = 1000
"""Most frequent words that the input baseline counts; the rest share one column."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """The labelled clips of a split."""

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    """[N] class index."""
    features: Mapping[str, NDArray[np.float32]]
    """Extractor -> [N, D]."""
    left_out: int
    """Clips without a class of the protocol."""


def extract(batches: Iterable[Batch], extractors: Mapping[str, Extractor], label: str) -> Extracted:
    """Run every extractor over a split.

    Args:
        batches: the split's clips, already on the extractors' device.
        extractors: name -> function.
        label: name in `Batch.labels`.

    Raises:
        UserError: the split has no clip with the label.
    """
    keys: list[str] = []
    labels: list[Tensor] = []
    rows: dict[str, list[Tensor]] = {name: [] for name in extractors}
    left_out = 0
    with torch.no_grad():
        for batch in batches:
            wanted = batch.labels[label] != UNLABELLED
            left_out += int((~wanted).sum())
            if not wanted.any():
                continue
            keys += [key for key, want in zip(batch.keys, wanted.tolist()) if want]
            labels.append(batch.labels[label][wanted].cpu())
            for name, extractor in extractors.items():
                rows[name].append(extractor(batch)[wanted].float().cpu())
    if not keys:
        raise UserError(f"no clip has the label {label!r} with a class of the protocol ({left_out} have not)")
    return Extracted(
        keys=tuple(keys),
        labels=torch.cat(labels).numpy(),
        features={name: torch.cat(parts).numpy() for name, parts in rows.items()},
        left_out=left_out,
    )


def pooled_features(encoder: Encoder, pooled: tuple[str, ...], modalities: tuple[str, ...]) -> Extractor:
    """The pooled outputs side by side, zeros where a clip lacks one; the encoder sees `modalities` only.

    Args:
        encoder: in evaluation mode.
        pooled: names in `encoder.widths`.
        modalities: names in `encoder.inputs`.
    """

    def extractor(batch: Batch) -> Tensor:
        encoded = encoder.encode(batch.keep(modalities)).pooled
        device = next(iter(batch.tracks.values())).mask.device
        parts = [
            encoded[name] if name in encoded else torch.zeros(len(batch), encoder.widths[name], device=device)
            for name in pooled
        ]
        return torch.cat(parts, dim=1)

    return extractor


def input_features(inputs: Mapping[str, FeatureSpec], modalities: tuple[str, ...]) -> Extractor:
    """What a probe reads without any encoder: the time mean of sound and picture features, and word counts.

    Args:
        inputs: modality -> feature, as the encoder has them.
        modalities: those that are shown.
    """

    def extractor(batch: Batch) -> Tensor:
        return torch.cat([_mean_input(batch.tracks[name], inputs[name]) for name in modalities], dim=1)

    return extractor


def _mean_input(track: Track, spec: FeatureSpec) -> Tensor:
    if spec.rate_hz is None:  # word ids, most frequent first
        ids = torch.where(track.values > BAG_OF_WORDS, 0, track.values)
        counts = torch.zeros(len(ids), BAG_OF_WORDS + 1, device=ids.device)
        return counts.scatter_add_(1, ids, track.mask.float())
    values = (track.values.float() - spec.mean) / spec.std
    values = values.flatten(2) * track.mask[..., None]
    return values.sum(dim=1) / track.mask.sum(dim=1, keepdim=True).clamp(min=1)
