"""Input stages: from one modality's values to vectors of the common width.

Legend: B clips, T steps, D width, W width of a word vector.
Hidden steps (Track.hidden) become zeros before anything mixes steps, so that nothing of them can leak to a neighbour.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.linear import Linear
from triptych.models.towers.text_encoder import TextEncoder, TextEncoderConfig, TextModel


@dataclass(frozen=True, kw_only=True)
class FrameInputConfig:
    """The stage in front of a transformer over frames of sound or picture."""

    frame_hidden: int = 0
    """Units of a hidden layer between a flattened frame and the common width; 0 is one linear map, as in the paper
    (which feeds VGG-16 vectors). Raw crops need one: it is the light frame tower."""
    convolution: int = 1
    """Steps that a convolution sees before the positions are added; 1 is none, as in the paper."""
    normalize: bool = False
    """Subtract from each frame the clip's own mean, and divide by its standard deviation, over the frames in sight
    (mean and variance normalisation, as for cepstra); the mean enters by a linear map of its own. What moves is then
    not drowned by what stays, such as whose face it is, and speech and lips are learned several times faster."""

    def __post_init__(self) -> None:
        if self.convolution % 2 == 0:
            raise ValueError(f"convolution: {self.convolution} must be odd, so that steps keep their times")


@dataclass(frozen=True, kw_only=True)
class InputConfig(FrameInputConfig):
    """The stages in front of the transformers of words and frames."""

    word_width: int = 300
    """Width of a word vector (GloVe's 300 in the paper)."""
    text_encoder: TextEncoderConfig | None = None
    """Read the words through a pretrained text encoder instead of a table of word vectors (`word_width` is then the
    model's own, and `cls` is refused)."""


class WordInput(nn.Module):
    """Word ids -> vectors; id 0 is any word outside the vocabulary. Without a width, the word vectors as they are."""

    def __init__(self, num_words: int, width: int | None, config: InputConfig) -> None:
        super().__init__()
        self.vectors = nn.Embedding(num_words + 1, config.word_width)
        self.project = nn.Identity() if width is None else Linear(config.word_width, width)

    def forward(self, track: Track) -> Tensor:
        """[B, T] ids -> [B, T, D]."""
        return self.project(zero_hidden(self.vectors(track.values), track))

    def start(self, vectors: Tensor, found: Tensor) -> None:
        """Start from given word vectors; a word without one, and row 0, keep what they were drawn as, brought to the
        spread of the given ones.

        Args:
            vectors: [1 + words, W].
            found: [1 + words] bool: which rows are given; at least one.
        """
        with torch.no_grad():
            weight = self.vectors.weight
            given = vectors.to(weight)[found]
            weight *= given.std()  # they were drawn with a standard deviation of 1
            weight[found] = given


def find_word_input(encoder: nn.Module) -> WordInput:
    """The stage of an encoder that holds its word vectors.

    Raises:
        ValueError: it has none.
    """
    found = next((part for part in encoder.modules() if isinstance(part, WordInput)), None)
    if found is None:
        raise ValueError("the encoder has no word vectors of its own")
    return found


def word_input(
    words: tuple[str, ...], width: int, config: InputConfig, text_model: TextModel | None = None
) -> nn.Module:
    """The input stage of the text: a track's [B, T] ids -> [B, T, D].

    Args:
        words: the vocabulary.
        width: D.
        config: which stage.
        text_model: of a saved encoder; None where a text encoder is built from its own folder or the hub.

    Raises:
        UserError: the text encoder's model cannot be used, or is to give its CLS, or its pieces.
    """
    if config.text_encoder is None:
        return WordInput(len(words), width, config)
    given = {"cls": config.text_encoder.cls, "unit": config.text_encoder.unit == "piece"}
    if unfit := [setting for setting, is_given in given.items() if is_given]:
        raise UserError(
            f"input.text_encoder.{unfit[0]}: every step here is a word, which objectives ask for and frames are "
            f"brought to; leave {unfit[0]} out. The tower system.pairwise.text.encoder takes it"
        )
    encoder = TextEncoder(config.text_encoder, words, text_model)
    return nn.Sequential(OrderedDict(encoder=encoder, project=Linear(encoder.width, width)))


class FrameInput(nn.Module):
    """Frames of sound or picture -> vectors: standardised by the feature's constants, flattened, mapped, convolved."""

    def __init__(self, spec: FeatureSpec, width: int, config: FrameInputConfig) -> None:
        super().__init__()
        self.mean, self.std = spec.mean, spec.std
        size = prod(spec.shape)
        self.constant = Linear(size, width, bias=False) if config.normalize else None
        self.project: nn.Module
        if config.frame_hidden:
            self.project = nn.Sequential(
                Linear(size, config.frame_hidden), nn.ReLU(), Linear(config.frame_hidden, width)
            )
        else:
            self.project = Linear(size, width)
        self.convolution = (
            nn.Conv1d(width, width, config.convolution, padding=config.convolution // 2)
            if config.convolution > 1
            else None
        )

    def forward(self, track: Track) -> Tensor:
        """[B, T, *] values -> [B, T, D]."""
        weight = next(self.project.parameters())
        x = ((track.values.to(torch.float32) - self.mean) / self.std).flatten(2).to(weight.dtype)
        if self.constant is None:
            x = self.project(zero_hidden(x, track))
        else:
            mean, x = _normalize_in_sight(x, track)
            x = self.project(zero_hidden(x, track)) + self.constant(mean)
        if self.convolution is not None:
            # Padding is zeroed too, so that a clip's length in the batch changes nothing at its end.
            x = x * track.mask[..., None]
            x = x + torch.relu(self.convolution(x.transpose(1, 2)).transpose(1, 2))
        return x


def zero_hidden(x_BTD: Tensor, track: Track) -> Tensor:
    """Zero the steps that an objective hides (Khare et al. 2021, section 2.2: masked inputs are zeros)."""
    return x_BTD if track.hidden is None else x_BTD.masked_fill(track.hidden[..., None], 0.0)


def _normalize_in_sight(x_BTD: Tensor, track: Track) -> tuple[Tensor, Tensor]:
    """[B, 1, D] mean of a clip's real steps that are not hidden, and [B, T, D] with zero mean and, over all D, unit
    variance at those steps. Statistics over all steps would tell of the hidden ones."""
    in_sight = track.mask if track.hidden is None else track.mask & ~track.hidden
    mean = mean_pool(x_BTD, in_sight)[:, None]
    x_BTD = x_BTD - mean
    variance = mean_pool(x_BTD.square(), in_sight).mean(dim=-1)  # [B]
    return mean, x_BTD / (variance + 1e-6).sqrt()[:, None, None]
