"""The sound as it is, in steps of a few milliseconds: the input of towers that learn their own filters.

A step is a row of consecutive samples, so that a batch pads, masks and counts time as with every other feature, and
`values.flatten(1)` is the waveform again. The default of 320 samples at 16 kHz is the hop of wav2vec 2.0 and its
relatives: one step of the mask for one vector of theirs. Tzirakis et al. 2021 take 2205 samples at 22,050 Hz (0.1 s,
one label): `waveform: {sample_rate_hz: 22050, step_samples: 2205, max_s: 180}`.

Better computed while reading than stored: float16 takes four times the room of VoxCeleb2's m4a.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.media.decode import audio_of, decode_audio
from triptych.modalities import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class WaveformConfig:
    """Mono samples between -1 and 1."""

    sample_rate_hz: int = 16000
    step_samples: int = 320
    max_s: float = 60.0
    """Longer clips are cut here, and counted."""

    def __post_init__(self) -> None:
        if not 1000 <= self.sample_rate_hz <= 48000:
            raise ValueError(f"waveform.sample_rate_hz: {self.sample_rate_hz}; expected 1000 to 48000")
        if not 1 <= self.step_samples <= self.sample_rate_hz:
            raise ValueError(f"waveform.step_samples: {self.step_samples}; expected 1 to a second's samples")
        if not self.step_samples / self.sample_rate_hz <= self.max_s <= 600:
            raise ValueError(f"waveform.max_s: {self.max_s}; expected at least one step and at most 600 s")

    def build(self) -> "Waveform":
        """The feature."""
        return Waveform(self)


class Waveform:
    """The feature; see the module."""

    def __init__(self, config: WaveformConfig) -> None:
        self.config = config
        rate_hz = config.sample_rate_hz / config.step_samples
        self.spec = FeatureSpec(
            name="waveform",
            modality="audio",
            version=1,
            rate_hz=rate_hz,
            shape=(config.step_samples,),
            dtype="float16",  # 11 bits of each sample: the rounding lies 70 dB below it, however quiet it is
            support_s=(0.0, 1 / rate_hz),
            max_length=int(config.max_s * rate_hz),
            settings=(
                ("max_s", config.max_s),
                ("sample_rate_hz", config.sample_rate_hz),
                ("step_samples", config.step_samples),
            ),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """A clip's samples.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, step_samples] float16 in [-1, 1]; samples at the end that fill no whole step are left out. None if the
            clip has no sound.

        Raises:
            shards.media.decode.DecodeError: the sound is damaged.
        """
        data = audio_of(members)
        samples = None if data is None else decode_audio(data, self.config.sample_rate_hz)
        if samples is None:
            return None
        steps = len(samples) // self.config.step_samples
        whole = samples[: steps * self.config.step_samples]
        return whole.reshape(steps, self.config.step_samples).astype(np.float16)
