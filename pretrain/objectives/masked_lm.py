"""Multimodal masked language modelling (Khare et al. 2021, section 2.2), with a full softmax over the vocabulary or
noise-contrastive estimation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pretrain.masking import MaskConfig, draw_ways, draw_words, hidden_steps, known_words
from pretrain.objectives.fused_words import word_vectors
from pretrain.objectives.objective import Objective, ObjectiveConfig
from pretrain.objectives.word_output import NCEConfig, WordOutput
from triptych.batch import IGNORE, Batch
from triptych.modalities import MODALITIES
from triptych.models.encoder import Encoder
from triptych.training.task import Total

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig

NAME = "masked_lm"


@dataclass(frozen=True, kw_only=True)
class MaskedLMConfig(ObjectiveConfig):
    """Predict masked words from what is left of all modalities."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    inputs: tuple[str, ...] = MODALITIES
    """What the encoder is shown. Without text, words are targets only: sound and picture must tell them. The encoder's
    anchor must be among them; a run without any text input is cheaper with a system that has no text tower."""
    evaluate: Literal["drawn", "each_word"] = "drawn"
    """drawn: the same random masks at every evaluation. each_word: every word of a clip masked alone, one after the
    other, which asks each held-out word exactly once and costs a pass a word: for short clips. Where `mask` has several
    ways to hide a word, each is measured on all clips, and the loss is their mean by shares."""
    nce: NCEConfig | None = None
    """Train by noise-contrastive estimation in place of the full softmax. Its loss is no cross entropy: evaluation is
    by the full softmax in any case, so that `valid/loss/masked_lm` is in nats and compares; accuracy is told only
    there."""
    output: Literal["linear", "tied", "glove"] = "linear"
    """linear: from the fused vector to the vocabulary. The others go through the width of a word vector, to word
    vectors and a bias: tied are those of the text's input itself, trained or frozen as they are there; glove are the
    output's own, started from the same `word_vectors` and always trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inputs or set(self.inputs) - set(MODALITIES):
            raise ValueError(f"inputs: {list(self.inputs)} must be some of {', '.join(MODALITIES)}")

    def check(self, run: "PretrainConfig") -> None:
        """See ObjectiveConfig.check."""
        if not run.stream.text:
            raise ValueError(
                f"stream.text: false, but objectives.{NAME} asks for words; set it to true (what the encoder "
                f"sees is {NAME}.inputs)"
            )
        if run.engine.zero_stage == 3 and self.evaluate == "each_word":
            raise ValueError(
                f"objectives.{NAME}.evaluate: each_word takes as many passes as a rank's clips have words, but at "
                "ZeRO stage 3 all ranks must pass together; set engine.zero_stage to 2 or less, or evaluate: drawn"
            )
        if self.output == "glove" and run.word_vectors is None:
            raise ValueError(f"objectives.{NAME}.output: glove starts from word vectors; give word_vectors.file")

    def build(self, encoder: Encoder, seed: int) -> "MaskedLM":
        """The objective over an encoder that fuses modalities."""
        return MaskedLM(self, encoder, seed)


@dataclass(frozen=True)
class DrawMasks:
    """Masks of a training batch: `targets["masked_lm"]` [B, T] and `targets["masked_lm/hidden/<modality>"]` [B, S]."""

    config: MaskConfig
    seed: int
    anchors: tuple[str, ...]

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its masks, a pure function of (seed, epoch, key)."""
        words = draw_words(batch, self.config, self.seed) & askable_words(batch, self.anchors)
        hidden = hidden_steps(batch, words, self.config, draw_ways(batch, self.config, self.seed))
        targets = {f"{NAME}/hidden/{modality}": steps for modality, steps in hidden.items()}
        targets[NAME] = word_targets(batch, words)
        return replace(batch, targets={**batch.targets, **targets})


def askable_words(batch: Batch, anchors: tuple[str, ...]) -> Tensor:
    """[B, T] bool: words of the vocabulary, in clips that have an anchor to give their vectors."""
    has_MB = torch.stack([batch.tracks[name].present for name in anchors])
    return known_words(batch) & has_MB.any(dim=0)[:, None]


def word_targets(batch: Batch, words_BT: Tensor) -> Tensor:
    """[B, T] class of each masked word (its id less one: the unknown word is no class), IGNORE elsewhere."""
    return torch.where(words_BT, batch.tracks["text"].values - 1, IGNORE)


class MaskedLM(Objective):
    """A linear layer to the vocabulary from every masked word's vector (word_vectors); loss at those words only."""

    name = NAME
    config: MaskedLMConfig

    def __init__(self, config: MaskedLMConfig, encoder: Encoder, seed: int) -> None:
        """Build it.

        Raises:
            ValueError: the encoder has no anchor among the inputs, or there is no vocabulary to predict.
        """
        super().__init__(config)
        self.anchors = tuple(name for name in encoder.anchors if name in config.inputs)
        if not encoder.anchors:
            raise ValueError(
                f"objectives.{NAME}: tells words from fused sequences, which this encoder does not have; use "
                "encoder.cross_modal, or another objective"
            )
        if not self.anchors:
            raise ValueError(
                f"objectives.{NAME}.inputs: {list(config.inputs)} lack the encoder's anchor, {encoder.anchors[0]}; add "
                "it, or set encoder.cross_modal.anchor to one of them or to each"
            )
        if not encoder.words:
            raise ValueError(
                f"objectives.{NAME}: no clip of the training split has words, so there is none to predict: write the "
                "shards with transcripts, as in corpus.voxceleb2.transcripts=[words.ctm]"
            )
        self.prepare = DrawMasks(config.mask, seed, self.anchors)
        self.output = WordOutput(encoder, encoder.widths["fused"], len(encoder.words), config.output, config.nce)

    def start(self, encoder: Encoder, counts: Sequence[int]) -> None:
        """See Objective.start: the noise of NCE, and the output's bias and vectors."""
        self.output.start(encoder, counts)

    def count(self, batch: Batch) -> int:
        """Number of masked words."""
        return int((torch.stack(self._questions(batch)) != IGNORE).sum())

    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """Cross entropy in nats (in training with NCE: its loss) summed over masked words; reports `accuracy`.

        An evaluation with several ways of hiding reports both of each way too, as in `loss/text+audio`.
        """
        count = self.count(batch)
        if self.training:
            hidden = {name: batch.targets.get(f"{NAME}/hidden/{name}") for name in batch.tracks}
            loss, correct = self._score(encoder, batch, hidden, batch.targets[NAME])
            return Total(loss, count), {"accuracy": Total(correct, count if self.output.is_exact else 0)}
        ways = self.config.mask.ways
        scores = [self._evaluate(encoder, batch, way) for way in range(len(ways))]
        loss, correct = (
            torch.stack([share * figure for (_, share), figure in zip(ways, column, strict=True)]).sum()
            for column in zip(*scores, strict=True)
        )
        report = {"accuracy": Total(correct, count)}
        if len(ways) > 1:
            for (hide, _), figures in zip(ways, scores, strict=True):
                for name, figure in zip(("loss", "accuracy"), figures, strict=True):
                    report[f"{name}/{'+'.join(hide)}"] = Total(figure.detach(), count)
        return Total(loss, count), report

    def _questions(self, batch: Batch) -> list[Tensor]:
        """[B, T] targets each, of the words that are masked together."""
        if self.training or self.config.evaluate == "drawn":
            return [batch.targets[NAME]]
        askable = askable_words(batch, self.anchors)
        places = torch.arange(askable.shape[1], device=askable.device)
        return [word_targets(batch, askable & (places == place)) for place in places]

    def _evaluate(self, encoder: Encoder, batch: Batch, way: int) -> tuple[Tensor, Tensor]:
        """Loss and number of right words, summed over all questions, hidden in one way."""
        parts = []
        for targets in self._questions(batch):
            ways_B = targets.new_full((len(batch),), way)
            hidden = hidden_steps(batch, targets != IGNORE, self.config.mask, ways_B)
            parts.append(self._score(encoder, batch, hidden, targets))
        loss, correct = (torch.stack(column).sum() for column in zip(*parts, strict=True))
        return loss, correct

    def _score(
        self, encoder: Encoder, batch: Batch, hidden: Mapping[str, Tensor | None], targets_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss and number of right words, summed over the targets."""
        tracks = {name: replace(track, hidden=hidden.get(name)) for name, track in batch.tracks.items()}
        # What is not shown stays as an absent track, so that all weights take part, as ZeRO stages 2 and 3 want.
        shown = replace(batch, tracks=tracks).keep(tuple(name for name in tracks if name in self.config.inputs))
        asked = targets_BT != IGNORE
        vectors = word_vectors(encoder.encode(shown).fused, batch.tracks["text"].times, asked)
        return self.output(vectors, targets_BT[asked])
