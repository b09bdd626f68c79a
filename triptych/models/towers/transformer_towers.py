"""Towers of one transformer: words (Franceschini et al. 2022, or a pretrained text encoder) and frames of sound or
picture (the light tower).

Legend: B clips, T steps, D width of the transformer.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.blocks import (
    Positions,
    TransformerConfig,
    TransformerStack,
    mean_pool,
    position_vectors,
)
from triptych.models.inputs import FrameInput, FrameInputConfig, InputConfig, WordInput
from triptych.models.towers.text_encoder import TextEncoder, TextEncoderConfig, TextModel
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace, timed


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(TransformerConfig, TowerConfig):
    """A transformer over word vectors; the defaults are the paper's, with the feed-forward width of its code."""

    width: int = 300
    """Of the word vectors too (GloVe's 300): they go in as they are."""
    layers: int = 6
    heads: int = 5
    feedforward: int = 2048
    positions: Positions = "index"
    """index: the word's number in the clip. seconds: the middle of its time span."""

    def build(self, place: TowerPlace) -> "TextTransformerTower":
        """See TowerConfig."""
        return TextTransformerTower(self, place.words, place.width)


@dataclass(frozen=True, kw_only=True)
class FrameTowerConfig(TowerConfig):
    """The light tower: a linear or small input stage, positions, a transformer."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    input: FrameInputConfig = field(default_factory=FrameInputConfig)
    positions: Positions = "index"
    """index: the step's number. seconds: the middle of its time span."""

    def build(self, place: TowerPlace) -> "FrameTower":
        """See TowerConfig."""
        return FrameTower(self, place.spec, place.width)


class TextTransformerTower(Tower):
    """Word vectors -> transformer -> mean over the words -> linear layer.

    Positions belong to the words of a clip. The paper's code adds the same one to all words of a clip, chosen by the
    clip's place in the batch; that is not copied.
    """

    def __init__(self, config: TextTransformerConfig, words: tuple[str, ...], width: int) -> None:
        """Build it.

        Args:
            config: settings.
            words: the vocabulary; word `i` has id `i + 1`.
            width: of the pooled output.

        Raises:
            ValueError: the vocabulary is empty.
        """
        super().__init__()
        if not words:
            raise ValueError(
                "text: the vocabulary is empty; leave the text tower out, or write shards with transcripts"
            )
        self.width, self.sequence_width = width, config.width
        self.positions = config.positions
        self.input = WordInput(len(words), None, InputConfig(word_width=config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = TransformerStack(config)
        self.output = nn.Linear(config.width, width)

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: the sequence has a step a word."""
        x = self.input(track)
        x = x + position_vectors(track, self.positions, x.shape[-1]).to(x.dtype)
        x = self.layers(self.dropout(x), track.mask, layers=layers)
        return _output(x, track.mask, self.output(mean_pool(x, track.mask)))


class TextEncoderTower(Tower):
    """Words read through a pretrained text encoder -> mean over the words (or pieces) -> linear layer.

    With `cls` the sequence begins with the model's CLS, which the mean leaves out.
    """

    def __init__(
        self,
        config: TextEncoderConfig,
        spec: FeatureSpec,
        words: tuple[str, ...],
        width: int,
        text_model: TextModel | None,
    ) -> None:
        """Build it.

        Args:
            config: which model.
            spec: of the words, or of their pieces.
            words: the vocabulary; word `i` has id `i + 1`. None of pieces.
            width: of the pooled output; 0 for the mean as it is.
            text_model: of a saved encoder; None where the model comes from its own folder or the hub.

        Raises:
            ValueError: pieces are wanted where words are read.
            UserError: the model cannot be used.
        """
        super().__init__()
        if config.unit == "piece" and not spec.is_pieces:
            raise ValueError(
                "text.encoder.unit: piece is for a published encoder (encoder=FILE.yaml of a probe or a fine-tuning); "
                "pretraining reads whole words: leave unit out"
            )
        self.encoder = TextEncoder(config, words, text_model)
        self.has_cls = config.cls
        self.width, self.sequence_width = width or self.encoder.width, self.encoder.width
        self.output = nn.Linear(self.encoder.width, width) if width else nn.Identity()

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: the sequence has a step a word or a piece, behind the CLS where there is one."""
        x, mask = self.encoder(track, layers), self.encoder.steps(track)
        return _output(x, mask, self.output(mean_pool(x, timed(mask, self.has_cls))))


class FrameTower(Tower):
    """Frames -> input stage -> transformer -> mean over time -> linear layer."""

    def __init__(self, config: FrameTowerConfig, spec: FeatureSpec, width: int) -> None:
        """Build it.

        Args:
            config: settings.
            spec: the feature that it takes.
            width: of the pooled output.
        """
        super().__init__()
        self.width, self.sequence_width = width, config.transformer.width
        self.config = config
        self.input = FrameInput(spec, config.transformer.width, config.input)
        self.dropout = nn.Dropout(config.transformer.dropout)
        self.layers = TransformerStack(config.transformer)
        self.output = nn.Linear(config.transformer.width, width)

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: the sequence has a step a frame."""
        x = self.input(track)
        x = x + position_vectors(track, self.config.positions, x.shape[-1]).to(x.dtype)
        x = self.layers(self.dropout(x), track.mask, layers=layers)
        return _output(x, track.mask, self.output(mean_pool(x, track.mask)))


def _output(x_BTD: Tensor, mask_BT: Tensor, pooled: Tensor) -> TowerOutput:
    """With zeros where nothing is real: the last layer's bias would say that something was."""
    present = mask_BT.any(dim=1, keepdim=True)
    return TowerOutput(sequence=x_BTD * mask_BT[..., None], mask=mask_BT, pooled=pooled * present)
