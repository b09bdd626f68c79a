"""Log mel filter bank energies (LFBE), the sound input of Khare et al. 2021, section 3.1.

40 bands each 10 ms, five neighbours stacked: 200 numbers each 50 ms. Kaldi's definition throughout (Povey window of
25 ms, pre-emphasis .97, mel from 20 Hz to half the rate, samples in the range of 16-bit integers), without dither.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.media.decode import audio_of, decode_audio
from triptych.modalities import FeatureSpec

SAMPLE_RATE_HZ = 16000
WINDOW_MS = 25
HOP_MS = 10
STACK = 5

MEAN, STD = 15.0, 3.8
"""Over all values of the 700 GRID clips of the real sample (14.99, 3.79); seven VoxCeleb2-like clips: 18.0, 3.4."""

FLOOR = 5.0
"""Least log energy. Kaldi's dither of one 16-bit step gives silence 5.2 on average; without dither digital silence is
-15.9, so far from all speech that it alone would set a clip's mean and variance. One in a million of GRID's values lies
below."""


@dataclass(frozen=True, kw_only=True)
class LfbeConfig:
    """Log mel filter bank energies, stacked to 20 steps a second."""

    bands: int = 40

    def __post_init__(self) -> None:
        if not 1 <= self.bands <= 126:
            raise ValueError(f"lfbe.bands: {self.bands}; expected 1 to 126 (above, bands of 16 kHz sound are empty)")

    def build(self) -> "Lfbe":
        """The feature."""
        return Lfbe(self)


class Lfbe:
    """The feature; see the module."""

    def __init__(self, config: LfbeConfig) -> None:
        self.config = config
        self.spec = FeatureSpec(
            name="lfbe",
            modality="audio",
            version=1,
            rate_hz=1000 / (HOP_MS * STACK),
            shape=(STACK * config.bands,),
            dtype="float16",
            # the last of the five windows starts 4 hops after the step's start
            support_s=(0.0, ((STACK - 1) * HOP_MS + WINDOW_MS) / 1000),
            mean=MEAN,
            std=STD,
            settings=(
                ("bands", config.bands),
                ("floor", FLOOR),
                ("sample_rate_hz", SAMPLE_RATE_HZ),
                ("window", "povey"),
            ),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Log energies of a clip's sound.

        A step exists only where all of its 65 ms do: up to 64 ms at the end of the clip are left out rather than
        padded, and a clip shorter than 65 ms has no step.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, 5 * bands] float16, or None if the clip has no sound.

        Raises:
            shards.media.decode.DecodeError: the sound is damaged.
        """
        data = audio_of(members)
        samples = None if data is None else decode_audio(data, SAMPLE_RATE_HZ)
        if samples is None:
            return None
        energies = filter_bank(samples, self.config.bands)
        steps = len(energies) // STACK
        energies = np.maximum(energies, FLOOR)
        return energies[: steps * STACK].reshape(steps, STACK * self.config.bands).astype(np.float16)


def filter_bank(samples: np.ndarray, bands: int) -> np.ndarray:
    """Kaldi's log mel filter bank energies.

    Args:
        samples: [N] float32 in [-1, 1] at SAMPLE_RATE_HZ.
        bands: number of mel bands.

    Returns:
        [F, bands] float32, F = 1 + (N - 400) // 160; frame `f` is computed from samples 160 f to 160 f + 400 only.
    """
    if len(samples) < SAMPLE_RATE_HZ * WINDOW_MS // 1000:
        return np.zeros((0, bands), dtype=np.float32)
    import torch  # only here: whoever stores no sound, or only reads what is stored, does without torch
    from torchaudio.compliance.kaldi import fbank

    energies: np.ndarray = fbank(
        torch.from_numpy(samples * 32768.0)[None],
        sample_frequency=SAMPLE_RATE_HZ,
        frame_length=WINDOW_MS,
        frame_shift=HOP_MS,
        num_mel_bins=bands,
        dither=0.0,
        snip_edges=True,
    ).numpy()
    return energies
