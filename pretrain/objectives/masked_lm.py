"""Multimodal masked language modelling (Khare et al. 2021, section 2.2), with a full softmax over the vocabulary."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.masking import MaskConfig, draw_words, hidden_steps, known_words
from pretrain.objectives.objective import Objective, ObjectiveConfig
from triptych.batch import IGNORE, Batch
from triptych.models.encoder import Encoder
from triptych.task import Total

NAME = "masked_lm"


@dataclass(frozen=True, kw_only=True)
class MaskedLMConfig(ObjectiveConfig):
    """Predict masked words from what is left of all modalities."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    evaluate: Literal["drawn", "each_word"] = "drawn"
    """drawn: the same random masks at every evaluation. each_word: every word of a clip masked alone, one after the
    other, which asks each held-out word exactly once and costs a pass a word: for short clips."""

    def build(self, encoder: Encoder, seed: int) -> "MaskedLM":
        """The objective over an encoder whose anchor is the text."""
        return MaskedLM(self, encoder, seed)


@dataclass(frozen=True)
class DrawMasks:
    """Masks of a training batch: `targets["masked_lm"]` [B, T] and `targets["masked_lm/hidden/<modality>"]` [B, S]."""

    config: MaskConfig
    seed: int

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its masks, a pure function of (seed, epoch, key)."""
        words = draw_words(batch, self.config.rate, self.seed)
        hidden = hidden_steps(batch, words, self.config)
        targets = {f"{NAME}/hidden/{modality}": steps for modality, steps in hidden.items()}
        targets[NAME] = word_targets(batch, words)
        return replace(batch, targets={**batch.targets, **targets})


def word_targets(batch: Batch, words_BT: Tensor) -> Tensor:
    """[B, T] class of each masked word (its id less one: the unknown word is no class), IGNORE elsewhere."""
    return torch.where(words_BT, batch.tracks["text"].values - 1, IGNORE)


class MaskedLM(Objective):
    """A linear layer to the vocabulary at every masked word's place in the fused sequence; loss at those words only."""

    name = NAME
    config: MaskedLMConfig

    def __init__(self, config: MaskedLMConfig, encoder: Encoder, seed: int) -> None:
        """Build it.

        Raises:
            ValueError: the encoder's anchor is not the text, or there is no vocabulary to predict.
        """
        super().__init__(config)
        if encoder.anchor != "text":
            raise ValueError(f"objectives.{NAME}: predicts words at their places, so the encoder's anchor must be text")
        if not encoder.words:
            raise ValueError(
                f"objectives.{NAME}: no clip of the training split has words, so there is none to predict: write the "
                "shards with transcripts, as in corpus.voxceleb2.transcripts=[words.ctm]"
            )
        self.prepare = DrawMasks(config.mask, seed)
        self.output = nn.Linear(encoder.widths["fused"], len(encoder.words))

    def count(self, batch: Batch) -> int:
        """Number of masked words."""
        if self._each_word():
            return int(known_words(batch).sum())
        return int((batch.targets[NAME] != IGNORE).sum())

    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """Cross entropy in nats summed over masked words; reports `accuracy`."""
        if not self._each_word():
            hidden = {name: batch.targets.get(f"{NAME}/hidden/{name}") for name in batch.tracks}
            loss, correct = self._score(encoder, batch, hidden, batch.targets[NAME])
        else:
            known = known_words(batch)
            parts = []
            for position in range(known.shape[1]):
                words = torch.zeros_like(known)
                words[:, position] = known[:, position]
                hidden = dict(hidden_steps(batch, words, self.config.mask))
                parts.append(self._score(encoder, batch, hidden, word_targets(batch, words)))
            loss, correct = (torch.stack(column).sum() for column in zip(*parts, strict=True))
        count = self.count(batch)
        return Total(loss, count), {"accuracy": Total(correct, count)}

    def _score(
        self, encoder: Encoder, batch: Batch, hidden: Mapping[str, Tensor | None], targets_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss and number of right words, summed over the targets."""
        tracks = {name: replace(track, hidden=hidden.get(name)) for name, track in batch.tracks.items()}
        sequence = encoder.encode(replace(batch, tracks=tracks)).sequence
        assert sequence is not None, "the text is the anchor and in the batch"
        asked = targets_BT != IGNORE
        logits = self.output(sequence[asked]).float()  # [masked words, vocabulary]: the others are never computed
        targets = targets_BT[asked]
        loss = functional.cross_entropy(logits, targets, reduction="sum")
        correct = (logits.argmax(dim=-1) == targets).sum()
        return loss, correct.detach()

    def _each_word(self) -> bool:
        return not self.training and self.config.evaluate == "each_word"
