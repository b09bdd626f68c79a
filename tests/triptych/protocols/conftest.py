"""Clips that a split may look at, without a corpus."""

from dataclasses import dataclass, field
from itertools import product

import pytest


@dataclass(frozen=True)
class Clip:
    key: str
    speaker: str
    source: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def clip() -> type[Clip]:
    return Clip


@pytest.fixture(scope="session")
def ravdess_names() -> list[Clip]:
    """The 1440 clips of the audio-visual speech part: 60 trials of 24 actors."""
    clips = []
    for actor in range(1, 25):
        for emotion, intensity, statement, repetition in product(range(1, 9), (1, 2), (1, 2), (1, 2)):
            if emotion == 1 and intensity == 2:
                continue
            take = f"01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
            clips.append(Clip(f"01-{take}", f"actor-{actor:02d}", {"take": take}))
    assert len(clips) == 1440
    return clips
