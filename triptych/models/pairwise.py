"""Franceschini et al. 2022, section III-A: one tower a modality and no fusion; what compares them is an objective.

Legend: B clips.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from triptych.batch import Batch
from triptych.config import check_one_of, chosen
from triptych.modalities import MODALITIES, FeatureSpec
from triptych.models.encoder import Encoded, Encoder
from triptych.models.saved import NONE_SAVED, SavedModels
from triptych.models.towers.extractor_towers import FabNetConfig, Wav2VecLargeConfig
from triptych.models.towers.image_model import ImageModelConfig
from triptych.models.towers.r2plus1d import R2Plus1DConfig
from triptych.models.towers.speech_encoder import SpeechEncoderConfig
from triptych.models.towers.st_gcn import StGcnConfig
from triptych.models.towers.stored import StoredConfig
from triptych.models.towers.tcn import TcnConfig
from triptych.models.towers.text_encoder import TextEncoderConfig
from triptych.models.towers.tower import Steps, Tower, TowerPlace
from triptych.models.towers.transformer_towers import FrameTowerConfig, TextTransformerConfig


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """The tower of the words; exactly one."""

    transformer: TextTransformerConfig | None = None
    encoder: TextEncoderConfig | None = None
    """A pretrained one, of transformers."""
    stored: StoredConfig | None = None
    """What a frozen one said, out of the shards."""

    def __post_init__(self) -> None:
        check_one_of(self, "text")


@dataclass(frozen=True, kw_only=True)
class AudioTowerConfig:
    """The tower of the sound; exactly one."""

    tcn: TcnConfig | None = None
    frames: FrameTowerConfig | None = None
    encoder: SpeechEncoderConfig | None = None
    """A pretrained one, of transformers, over `waveform`."""
    wav2vec_large: Wav2VecLargeConfig | None = None
    """SSE-FT's, over `waveform`."""
    stored: StoredConfig | None = None
    """What a frozen one said, out of the shards."""

    def __post_init__(self) -> None:
        check_one_of(self, "audio")


@dataclass(frozen=True, kw_only=True)
class VideoTowerConfig:
    """The tower of the picture; exactly one."""

    frames: FrameTowerConfig | None = None
    r2plus1d: R2Plus1DConfig | None = None
    st_gcn: StGcnConfig | None = None
    image: ImageModelConfig | None = None
    """A pretrained network of torchvision or timm, frame by frame."""
    fab_net: FabNetConfig | None = None
    """SSE-FT's, face by face."""
    stored: StoredConfig | None = None
    """What a frozen one said, out of the shards."""

    def __post_init__(self) -> None:
        check_one_of(self, "video")


@dataclass(frozen=True, kw_only=True)
class PairwiseConfig:
    """The towers; a modality that is left out has none."""

    text: TextTowerConfig | None = None
    audio: AudioTowerConfig | None = None
    video: VideoTowerConfig | None = None
    width: int = 512
    """Of every tower's pooled output, in front of any projection head. 0, for pretrained towers: no linear layer behind
    them, which would be random until it is trained; pooled is then the mean over the real steps."""

    def __post_init__(self) -> None:
        if all(getattr(self, modality) is None for modality in MODALITIES):
            raise ValueError(f"pairwise: give a tower to one or more of {', '.join(MODALITIES)}")

    def build(self, inputs: Mapping[str, FeatureSpec], words: tuple[str, ...], models: SavedModels) -> Encoder:
        """See SystemConfig."""
        return PairwiseEncoder(self, inputs, words, models)


class PairwiseEncoder(Encoder):
    """The towers side by side."""

    def __init__(
        self,
        config: PairwiseConfig,
        inputs: Mapping[str, FeatureSpec],
        words: tuple[str, ...],
        models: SavedModels = NONE_SAVED,
    ) -> None:
        """Build it.

        Args:
            config: settings.
            inputs: modality -> feature, for at least the modalities that have a tower.
            words: the vocabulary.
            models: of a saved encoder that has pretrained models of transformers.

        Raises:
            ValueError: a modality has no feature, or one that its tower does not take.
            UserError: a pretrained model cannot be used.
        """
        super().__init__()
        choices = {name: chosen(choice) for name in MODALITIES if (choice := getattr(config, name)) is not None}
        missing = set(choices) - set(inputs)
        if missing:
            raise ValueError(f"no feature is configured for {', '.join(sorted(missing))}")
        self.inputs = {name: inputs[name] for name in choices}
        self.words = words
        self.anchors = ()
        self.towers = nn.ModuleDict()
        for name, (tower, settings) in choices.items():
            if not config.width and not settings.pretrained:
                raise ValueError(f"width: 0 is for pretrained towers; {name}.{tower} needs its last layer")
            place = TowerPlace(spec=inputs[name], width=config.width, words=words, saved=models.of(name))
            self.towers[name] = settings.build(place)
        self.widths = {name: self.tower(name).width for name in choices}

    @property
    def sequence_widths(self) -> Mapping[str, int]:  # type: ignore[override]
        """See Encoder."""
        return {name: self.tower(name).sequence_width for name in self.inputs}

    @property
    def modalities_with_cls(self) -> tuple[str, ...]:
        """See Encoder."""
        return tuple(name for name in self.inputs if self.tower(name).has_cls)

    def most_steps(self, modality: str) -> int:
        """See Encoder."""
        return self.tower(modality).most_steps(self.inputs[modality].max_length)

    def encode(self, batch: Batch, *, fuse: bool = True, layers: bool = False) -> Encoded:
        """See Encoder.encode; nothing is fused in any case."""
        given = self.tracks(batch)
        kept: dict[str, list[Steps]] = {name: [] for name in given} if layers else {}
        outputs = {name: self.tower(name)(track, kept.get(name)) for name, track in given.items()}
        return Encoded(
            pooled={name: output.pooled for name, output in outputs.items()},
            present={name: track.present for name, track in given.items()},
            towers=outputs,
            layers={name: tuple(steps) for name, steps in kept.items()},
        )

    def tower(self, modality: str) -> Tower:
        """The tower of a modality in `inputs`."""
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower
