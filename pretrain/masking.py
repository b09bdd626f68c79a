"""Which words are masked, and what of the other modalities goes with them.

Legend: B clips, T words, S steps of another modality. True = masked or hidden.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from triptych.batch import Batch
from triptych.modalities import MODALITIES


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Khare et al. 2021, section 2.2: 15 % of the words, and the sound and picture frames of those words."""

    rate: float = 0.15
    """Share of the words that are masked, each on its own."""
    hide: tuple[str, ...] = MODALITIES
    """Where a masked word is hidden. text alone leaves its sound and lips to be read."""
    margin_s: float = 0.0
    """Hidden on each side of the word too, in seconds: sound and mouth tell of a word before it begins."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate: {self.rate} must lie in (0, 1]")
        if "text" not in self.hide or set(self.hide) - set(MODALITIES):
            raise ValueError(f"hide: {list(self.hide)} must be text, alone or with others of {', '.join(MODALITIES)}")
        if self.margin_s < 0:
            raise ValueError(f"margin_s: {self.margin_s} must not be negative")


def draw_words(batch: Batch, rate: float, seed: int) -> Tensor:
    """[B, T] bool: the words masked in each clip, a pure function of (seed, epoch, key).

    Words outside the vocabulary (id 0) are never drawn: nothing could be asked of them.
    """
    text = batch.tracks["text"]
    num_words = text.mask.shape[1]
    drawn = np.stack(
        [
            generator(seed, epoch, key).random(num_words) < rate
            for epoch, key in zip(batch.epochs, batch.keys, strict=True)
        ]
    )
    return torch.from_numpy(drawn) & known_words(batch)


def known_words(batch: Batch) -> Tensor:
    """[B, T] bool: real words of the vocabulary."""
    text = batch.tracks["text"]
    return text.mask & (text.values > 0)


def hidden_steps(batch: Batch, words_BT: Tensor, config: MaskConfig) -> Mapping[str, Tensor]:
    """What to hide of each modality when these words are masked.

    Returns:
        Modality -> [B, S] bool: the words themselves, and every step of the others whose support overlaps a masked
        word's span (widened by the margin) at all.
    """
    starts_BT, ends_BT = batch.tracks["text"].times.unbind(-1)
    hidden = {}
    for name in config.hide:
        if name == "text":
            hidden[name] = words_BT
        elif name in batch.tracks:
            steps_BS1, stops_BS1 = (edge[..., None] for edge in batch.tracks[name].times.unbind(-1))
            overlaps_BST = (steps_BS1 < ends_BT[:, None] + config.margin_s) & (
                stops_BS1 > starts_BT[:, None] - config.margin_s
            )
            hidden[name] = (overlaps_BST & words_BT[:, None]).any(dim=-1)
    return hidden


def generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Random numbers of a clip in an epoch, the same on every machine and in every batch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))
