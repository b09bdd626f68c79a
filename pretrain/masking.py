"""Which words are masked, and what of the other modalities goes with them.

Legend: B clips, T words, S steps of another modality. True = masked or hidden.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.batch import Batch
from triptych.modalities import MODALITIES


@dataclass(frozen=True, kw_only=True)
class HideConfig:
    """Where the masked words of some clips are hidden."""

    hide: tuple[str, ...]
    """As in MaskConfig."""
    share: float
    """Of the clips, drawn anew for each clip and epoch."""


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Khare et al. 2021, section 2.2: 15 % of the words, and the sound and picture frames of those words."""

    rate: float = 0.15
    """Share of the words that are masked, each on its own."""
    span: float | None = None
    """Mask whole phrases: the mean number of words of a run of masked words. The rate stays the same."""
    hide: tuple[str, ...] = MODALITIES
    """Where a masked word is hidden. text alone leaves its sound and lips to be read."""
    otherwise: list[HideConfig] = field(default_factory=list)
    """Some clips hide their masked words elsewhere, so that one run learns to tell words from several kinds of rest.
    `hide` holds for the share that these leave."""
    margin_s: float = 0.0
    """Hidden on each side of the word too, in seconds: sound and mouth tell of a word before it begins."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate: {self.rate} must lie in (0, 1]")
        if self.span is not None and (self.rate == 1 or self.span < 1 / (1 - self.rate)):
            raise ValueError(
                f"span: {self.span} words at rate {self.rate}: words masked each on its own stand in runs of "
                + ("all words" if self.rate == 1 else f"{1 / (1 - self.rate):.3g}")
                + " already; give a longer one or a lower rate"
            )
        for hide in (self.hide, *(other.hide for other in self.otherwise)):
            if "text" not in hide or set(hide) - set(MODALITIES):
                raise ValueError(f"hide: {list(hide)} must be text, alone or with others of {', '.join(MODALITIES)}")
        shares = [other.share for other in self.otherwise]
        if any(share <= 0 for share in shares) or sum(shares) >= 1:
            raise ValueError(f"otherwise: shares of {shares} must be positive and leave something of 1 to hide")
        if self.margin_s < 0:
            raise ValueError(f"margin_s: {self.margin_s} must not be negative")

    @property
    def ways(self) -> tuple[tuple[tuple[str, ...], float], ...]:
        """Every set of modalities to hide a word in, with its share of the clips; `hide` comes first."""
        others = [(other.hide, other.share) for other in self.otherwise]
        return ((self.hide, 1.0 - sum(share for _, share in others)), *others)


def draw_words(batch: Batch, config: MaskConfig, seed: int) -> Tensor:
    """[B, T] bool: the words masked in each clip, a pure function of (seed, epoch, key).

    Words outside the vocabulary (id 0) are never drawn: nothing could be asked of them.
    """
    num_words = batch.tracks["text"].mask.shape[1]
    drawn = np.stack(
        [
            _draw(generator(seed, epoch, key).random(num_words), config)
            for epoch, key in zip(batch.epochs, batch.keys, strict=True)
        ]
    )
    return torch.from_numpy(drawn) & known_words(batch)


def _draw(uniform_T: NDArray[np.float64], config: MaskConfig) -> NDArray[np.bool_]:
    """[T] bool from uniform numbers, the first words alike however many follow.

    Runs are those of a chain that ends one with probability 1 / span and begins one so often that every word is masked
    with probability `rate`, the first one too.
    """
    if config.span is None:
        return uniform_T < config.rate
    begins = config.rate / (config.span * (1 - config.rate))
    masked, drawn = False, np.zeros(len(uniform_T), dtype=bool)
    for word, uniform in enumerate(uniform_T):
        probability = config.rate if word == 0 else 1 - 1 / config.span if masked else begins
        masked = drawn[word] = uniform < probability
    return drawn


def draw_ways(batch: Batch, config: MaskConfig, seed: int) -> Tensor:
    """[B] index into `config.ways`: where each clip hides its words, a pure function of (seed, epoch, key).

    Its random numbers are not those of the words, so that the same words are masked whatever the ways.
    """
    bounds = np.cumsum([share for _, share in config.ways])[:-1]
    uniform = [
        generator(seed, epoch, f"ways/{key}").random() for epoch, key in zip(batch.epochs, batch.keys, strict=True)
    ]
    return torch.from_numpy(np.searchsorted(bounds, uniform, side="right"))


def known_words(batch: Batch) -> Tensor:
    """[B, T] bool: real words of the vocabulary."""
    text = batch.tracks["text"]
    return text.mask & (text.values > 0)


def hidden_steps(
    batch: Batch, words_BT: Tensor, config: MaskConfig, ways_B: Tensor | None = None
) -> Mapping[str, Tensor]:
    """What to hide of each modality when these words are masked.

    Args:
        batch: with the words' times.
        words_BT: the masked words.
        config: settings.
        ways_B: each clip's index into `config.ways`; None is the first for all.

    Returns:
        Modality -> [B, S] bool: the words themselves, and every step of the others whose support overlaps a masked
        word's span (widened by the margin) at all.
    """
    starts_BT, ends_BT = batch.tracks["text"].times.unbind(-1)
    ways = [hide for hide, _ in config.ways[: 1 if ways_B is None else None]]
    hidden = {}
    for name, track in batch.tracks.items():
        if not any(name in hide for hide in ways):
            continue
        if name == "text":  # hidden in every way
            hidden[name] = words_BT
            continue
        steps_BS1, stops_BS1 = (edge[..., None] for edge in track.times.unbind(-1))
        overlaps_BST = (steps_BS1 < ends_BT[:, None] + config.margin_s) & (
            stops_BS1 > starts_BT[:, None] - config.margin_s
        )
        hidden[name] = (overlaps_BST & words_BT[:, None]).any(dim=-1)
        if ways_B is not None:
            here = torch.tensor([name in hide for hide in ways], device=ways_B.device)
            hidden[name] &= here[ways_B][:, None]
    return hidden


def generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Random numbers of a clip in an epoch, the same on every machine and in every batch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))
