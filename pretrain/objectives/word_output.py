"""From fused vectors to the vocabulary: the output layer of masked LM, with the loss inside.

Legend: T masked words, D fused width, W width of a word vector, V words of the vocabulary.

The loss is part of the layer because it never holds the logits (pretrain.losses.vocabulary), and because ZeRO stage 3
puts the weights together only while the layer that owns them runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.losses.vocabulary import nce_loss, score_softmax, unigram
from triptych.models.inputs import find_word_input

Kind = Literal["linear", "tied", "glove"]


@dataclass(frozen=True, kw_only=True)
class NCEConfig:
    """Noise-contrastive estimation; the normaliser is fixed at the vocabulary's size, the noise is the unigram."""

    samples: int = 512
    """Noise words for each masked word."""
    shared: bool = True
    """One draw for all masked words of a micro-batch; else each draws its own, which costs many times as much."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"nce.samples: {self.samples} must be at least 1")


class WordOutput(nn.Module):
    """Scores of words: a linear map from the fused vector, or through a word vector's width and word vectors."""

    def __init__(self, encoder: nn.Module, width: int, num_words: int, kind: Kind, nce: NCEConfig | None) -> None:
        """Build it.

        Args:
            encoder: whose word vectors `tied` shares and `glove` starts from.
            width: D.
            num_words: V.
            kind: see MaskedLMConfig.output.
            nce: the loss in training; None is the softmax.

        Raises:
            ValueError: the encoder has no word vectors to share.
        """
        super().__init__()
        self.kind, self.nce = kind, nce
        self.project = None
        if kind == "linear":
            linear = nn.Linear(width, num_words)
            self.weight, self.bias = linear.weight, linear.bias
        else:
            vectors = find_word_input(encoder).vectors.weight  # [1 + V, W]; row 0 is any other word, and no class
            self.project = nn.Linear(width, vectors.shape[1])
            with torch.no_grad():  # so that scores spread as those of a linear layer do, not sqrt(W) times as far
                for parameter in self.project.parameters():
                    parameter.div_(math.sqrt(vectors.shape[1]))
            self.weight = vectors if kind == "tied" else nn.Parameter(vectors.detach()[1:].clone())
            self.bias = nn.Parameter(torch.zeros(num_words))
        # In the checkpoint, so that a run that continues draws the same noise.
        self.noise: Tensor | None
        self.register_buffer("noise", None if nce is None else unigram([1] * num_words))

    def start(self, encoder: nn.Module, counts: Sequence[int]) -> None:
        """Start from what the corpus tells of the words; without it they count as equally frequent.

        Args:
            encoder: with its word vectors in place, from which `glove` starts.
            counts: how often each of the V words is said.
        """
        with torch.no_grad():
            if self.kind == "glove":
                self.weight.copy_(find_word_input(encoder).vectors.weight[1:])
            if self.noise is not None:
                self.noise.copy_(unigram(counts))
                # Scores start near log(V P(w)), so that exp(score) / V is near P(w) and sums up to 1: the first loss
                # is log(1 + k) + k log(1 + 1/k). With a normaliser of 1 instead it would be hundreds.
                self.bias.copy_(self.noise + math.log(len(self.bias)))

    @property
    def is_exact(self) -> bool:
        """Whether the loss is the softmax's, in nats, and right words are counted: not in training with NCE, which
        does not score all words."""
        return self.nce is None or not self.training

    def forward(self, hidden_TD: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
        """Loss summed over the words, and the number of right words (0 where not `is_exact`)."""
        if self.project is not None:
            hidden_TD = self.project(hidden_TD)
        weight = self.weight[1:] if self.kind == "tied" else self.weight
        if self.nce is not None and not self.is_exact:
            assert self.noise is not None
            samples, shared = self.nce.samples, self.nce.shared
            loss, _ = nce_loss(
                hidden_TD, weight, self.bias, targets_T, noise=self.noise, samples=samples, shared=shared
            )
            return loss, loss.new_zeros(())
        scored = score_softmax(hidden_TD, weight, self.bias, targets_T)
        return scored.loss, scored.correct
