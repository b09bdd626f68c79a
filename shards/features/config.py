"""Which feature stands for which modality: a new one is a file beside this one and one line in `AudioFeature` or
`VideoFeature`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from shards.features.face_crops import FaceCropsConfig
from shards.features.faces import FacesConfig
from shards.features.fan_landmarks import FanLandmarksConfig
from shards.features.landmarks import LandmarksConfig
from shards.features.lfbe import LfbeConfig
from shards.features.log_mel import LogMelConfig
from shards.features.vgg16 import Vgg16Config
from shards.features.waveform import WaveformConfig
from triptych.config import check_one_of, chosen
from triptych.modalities import FeatureSpec


class Feature(Protocol):
    """Turns a clip's media into one modality's sequence; the same numbers when stored and on the fly."""

    spec: FeatureSpec

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """[T, *spec.shape] of spec.dtype from a sample's files (extension -> bytes); None if it lacks the stream.

        Raises:
            shards.media.decode.DecodeError: the media is damaged.
        """
        ...


@runtime_checkable
class BatchedFeature(Feature, Protocol):
    """A feature that is faster for many clips at a time: a network that wants full batches on a GPU."""

    def compute_many(self, clips: Sequence[Mapping[str, bytes]]) -> list[np.ndarray | None]:
        """As `compute` for each clip, equal up to the rounding that the feature states.

        Raises:
            shards.media.decode.DecodeError: the media of one of them is damaged.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class AudioFeature:
    """What stands for the sound; exactly one."""

    lfbe: LfbeConfig | None = None
    log_mel: LogMelConfig | None = None
    waveform: WaveformConfig | None = None

    def __post_init__(self) -> None:
        check_one_of(self, "audio")


@dataclass(frozen=True, kw_only=True)
class VideoFeature:
    """What stands for the picture; exactly one."""

    face_crops: FaceCropsConfig | None = None
    faces: FacesConfig | None = None
    vgg16: Vgg16Config | None = None
    landmarks: LandmarksConfig | None = None
    fan_landmarks: FanLandmarksConfig | None = None

    def __post_init__(self) -> None:
        check_one_of(self, "video")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The features of a shard set or a run; a modality that is left out has none. Words need no feature."""

    audio: AudioFeature | None = None
    video: VideoFeature | None = None


def build(config: FeaturesConfig) -> dict[str, Feature]:
    """Modality -> feature, for the modalities that the config names."""
    features: dict[str, Feature] = {}
    for modality in ("audio", "video"):
        choice = getattr(config, modality)
        if choice is not None:
            _, settings = chosen(choice)
            features[modality] = settings.build()
    return features
