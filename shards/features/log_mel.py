"""Log mel spectrogram each 10 ms: the input of convolutional sound towers (Franceschini et al. 2022) and of AST's kind.

Kaldi's filter bank energies as in `shards.features.lfbe` (25 ms windows, natural logarithm, floored), not stacked. That
is what `fbank80` means in ASR toolkits. Whisper's and librosa's form is not offered: both subtract or clip by the
clip's own loudest value, so that one step would tell of sounds in another, hidden one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.features.lfbe import FLOOR, HOP_MS, SAMPLE_RATE_HZ, WINDOW_MS, filter_bank
from shards.media.decode import audio_of, decode_audio
from triptych.modalities import FeatureSpec

MEAN, STD = 14.1, 3.8
"""Over 80 bands of 120 GRID clips (14.13, 3.81); seven VoxCeleb2-like clips: 17.1, 3.5; with 128 bands 0.7 less."""

MAX_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """Log mel filter bank energies, 100 steps a second."""

    bands: int = 80
    """80 as most speech encoders have it; 128 as AST and Franceschini et al. have it (at 16 kHz one of the 128 covers
    no frequency of the transform and is always the floor)."""

    def __post_init__(self) -> None:
        if not 1 <= self.bands <= 128:
            raise ValueError(f"log_mel.bands: {self.bands}; expected 1 to 128 (above, many bands of 16 kHz are empty)")

    def build(self) -> "LogMel":
        """The feature."""
        return LogMel(self)


class LogMel:
    """The feature; see the module."""

    def __init__(self, config: LogMelConfig) -> None:
        self.config = config
        rate_hz = 1000 / HOP_MS
        self.spec = FeatureSpec(
            name="log_mel",
            modality="audio",
            version=1,
            rate_hz=rate_hz,
            shape=(config.bands,),
            dtype="float16",
            support_s=(0.0, WINDOW_MS / 1000),
            mean=MEAN,
            std=STD,
            max_length=round(MAX_SECONDS * rate_hz),
            settings=(
                ("bands", config.bands),
                ("floor", FLOOR),
                ("sample_rate_hz", SAMPLE_RATE_HZ),
                ("window", "povey"),
            ),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Log energies of a clip's sound.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, bands] float16; a step exists only where all of its 25 ms do. None if the clip has no sound.

        Raises:
            shards.media.decode.DecodeError: the sound is damaged.
        """
        data = audio_of(members)
        samples = None if data is None else decode_audio(data, SAMPLE_RATE_HZ)
        if samples is None:
            return None
        return np.maximum(filter_bank(samples, self.config.bands), FLOOR).astype(np.float16)
