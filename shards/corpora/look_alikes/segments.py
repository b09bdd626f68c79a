"""What the look-alikes of CMU-MOSEI and CMU-MOSI share: recordings of several utterances, and `.csd` files of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from shards.corpora.look_alikes.people import Utterance, in_turn, utter
from shards.corpora.synthetic_render import Floats
from shards.corpora.synthetic_script import rng
from shards.record import Word

SENTIMENTS = {"happy": 7 / 3, "neutral": 0.0, "sad": -1.0, "angry": -8 / 3}
"""Means of three annotators, as the real ones."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A video of one person."""

    video: str
    moods: Sequence[str]
    utterances: Sequence[Utterance]
    starts: Sequence[float]
    """Second at which each utterance starts."""
    frames: NDArray[np.uint8]
    samples: Floats

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Start and end of each utterance."""
        return [
            (start, start + utterance.duration_s) for start, utterance in zip(self.starts, self.utterances, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A labelled segment."""

    start_s: float
    end_s: float
    mood: str
    text: str


def record(seed: int, video: str, moods: Sequence[str]) -> Recording:
    """A person who says one sentence in each of the moods."""
    utterances = [utter(seed, video, f"{video}/{number}", mood) for number, mood in enumerate(moods)]
    frames, samples, starts = in_turn(utterances)
    return Recording(video=video, moods=moods, utterances=utterances, starts=starts, frames=frames, samples=samples)


def rows_of(recording: Recording) -> list[Row]:
    """A segment for each utterance."""
    return [
        Row(start_s=start, end_s=end, mood=mood, text=utterance.text)
        for (start, end), mood, utterance in zip(
            recording.intervals, recording.moods, recording.utterances, strict=True
        )
    ]


def write_csd(
    path: Path, root: str, videos: Mapping[str, tuple[NDArray[np.generic], NDArray[np.float32]]], names: Sequence[str]
) -> None:
    """A computational sequence.

    Args:
        path: the file.
        root: name of the sequence.
        videos: video -> features [T, D] and intervals [T, 2].
        names: of the D columns.
    """
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in videos.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("features", data=features, compression="gzip")
            group.create_dataset("intervals", data=intervals, compression="gzip")
        for name, value in {"root name": root, "dimension names": list(names), "version": 1.0}.items():
            file.create_dataset(f"{root}/metadata/{name}", data=[json.dumps(value)], dtype=h5py.string_dtype())


def write_words(path: Path, recordings: Sequence[Recording]) -> None:
    """All words with their times, and the aligner's pauses between them."""
    videos = {}
    for recording in recordings:
        said: list[Word] = []
        for start_s, utterance in zip(recording.starts, recording.utterances, strict=True):
            said.append(Word("sp", start_s, start_s + utterance.words[0].start_s))
            said += [Word(word.text, start_s + word.start_s, start_s + word.end_s) for word in utterance.words]
        features = np.array([[word.text.encode()] for word in said], dtype="S32")
        videos[recording.video] = features, np.array([(word.start_s, word.end_s) for word in said], np.float32)
    write_csd(path, "words", videos, ["word"])


def shuffled(rows: Sequence[Row], seed: int, video: str) -> list[Row]:
    """The rows of a video in no order of time, as in the real files."""
    return [rows[place] for place in rng(seed, "rows", video).permutation(len(rows))]


def write_folds(path: Path, folds: Mapping[str, Sequence[str]]) -> None:
    """The SDK's Python file."""
    path.write_text("".join(f"standard_{split}_fold = {list(videos)!r}\n" for split, videos in folds.items()))
