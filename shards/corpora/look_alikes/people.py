"""Made-up people who speak: what the look-alikes of licensed corpora are filled with.

Legend: F frames at 25 fps, P pixels a side, S samples at 16 kHz.
"""

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.corpora.synthetic_render import FPS, SAMPLE_RATE_HZ, Floats, face, look, voice
from shards.corpora.synthetic_script import script
from shards.record import Word

PX = 64
"""Side of a face: as small as landmarks and crops still make sense of."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One sentence of a person."""

    words: tuple[Word, ...]
    duration_s: float
    frames: NDArray[np.uint8]
    """[F, P, P, 3] RGB."""
    samples: Floats
    """[S] in -1 to 1."""

    @property
    def text(self) -> str:
        """The words as a sentence."""
        return " ".join(word.text for word in self.words).capitalize() + "."


def utter(seed: int, speaker: str, key: str, mood: str | None = None) -> Utterance:
    """A sentence, 2 to 4 s long.

    Args:
        seed: of the corpus.
        speaker: face and voice are theirs.
        key: of the sentence.
        mood: neutral, happy, sad or angry; None draws one.
    """
    drawn = script(seed, key, "labelled", mood)
    return Utterance(
        words=drawn.words,
        duration_s=drawn.duration_s,
        frames=face(look(drawn, seed, speaker, key), PX),
        samples=voice(drawn, seed, speaker, key),
    )


def in_turn(utterances: Sequence[Utterance]) -> tuple[NDArray[np.uint8], Floats, list[float]]:
    """One recording of utterances without a pause between them.

    Returns:
        Frames [F, P, P, 3], samples [S], and the second at which each utterance starts.
    """
    frames = np.concatenate([utterance.frames for utterance in utterances])
    seconds = [len(utterance.frames) / FPS for utterance in utterances]
    starts = [0.0, *np.cumsum(seconds)[:-1].round(6).tolist()]
    samples = np.zeros(round(sum(seconds) * SAMPLE_RATE_HZ), np.float32)
    for start_s, utterance in zip(starts, utterances, strict=True):
        first = round(start_s * SAMPLE_RATE_HZ)
        part = utterance.samples[: len(samples) - first]
        samples[first : first + len(part)] = part
    return frames, samples, starts


def write_wav(path: Path, samples: Floats) -> None:
    """Mono, 16 bits, 16 kHz; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
