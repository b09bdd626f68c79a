"""Files like those of CMU-MOSEI: 7 videos, 29 segments.

What is known to be wrong with the real ones is here too: rows in no order, a segment that starts before 0
(-lookAlike1), one that overlaps two others and one that ends after the recording (127908), a video in no fold
(noFold_0006), a video whose recording is missing (lost-_0007), and a fold's video without labels (unlabelled0).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.corpora.look_alikes.people import write_wav
from shards.corpora.look_alikes.segments import (
    SENTIMENTS,
    Row,
    record,
    rows_of,
    shuffled,
    write_csd,
    write_folds,
    write_words,
)
from shards.corpora.mosei import COLUMNS
from shards.corpora.synthetic_render import write_media

MOODS = {
    "-lookAlike1": ("happy", "sad", "angry", "neutral"),
    "127908": ("sad", "happy", "neutral", "angry"),
    "_ends_in_3_": ("happy", "happy", "sad", "angry"),
    "lookAlike04": ("neutral", "sad", "angry", "happy"),
    "lookAlike05": ("angry", "sad", "happy", "neutral"),
    "noFold_0006": ("happy", "angry", "neutral", "sad"),
    "lost-_0007": ("sad", "neutral", "happy", "angry"),
}
FOLDS = {
    "train": ("-lookAlike1", "127908", "_ends_in_3_", "lost-_0007"),
    "valid": ("lookAlike04", "unlabelled0"),
    "test": ("lookAlike05",),
}
_EMOTIONS = {
    "happy": {"happy": 2.0, "surprise": 1 / 3},
    "sad": {"sad": 4 / 3, "fear": 1 / 3},
    "angry": {"anger": 3.0, "disgust": 1.0},
}


def make(folder: Path, seed: int) -> None:
    """Fill the folder; see shards.corpora.mosei for the layout."""
    recordings = [record(seed, video, moods) for video, moods in MOODS.items()]
    rows = {}
    for recording in recordings:
        rows[recording.video] = shuffled(_faulty(recording.video, rows_of(recording)), seed, recording.video)
    names = [column.name for column in COLUMNS]
    labels = {
        video: (
            np.array([_values(row.mood) for row in there], np.float32),
            np.array([(row.start_s, row.end_s) for row in there], np.float32),
        )
        for video, there in rows.items()
    }
    write_csd(folder / "CMU_MOSEI_Labels.csd", "All Labels", labels, names)
    write_words(folder / "CMU_MOSEI_TimestampedWords.csd", recordings)
    write_folds(folder / "cmu_mosei_std_folds.py", FOLDS)
    raw = folder / "Raw"
    for place in ("Videos/Full/Combined", "Transcript/Segmented/Combined"):
        (raw / place).mkdir(parents=True)
    for recording in recordings:
        video = recording.video
        lines = [
            # numbers have gaps, and are those of no other file
            f"{video}___{3 * number}___{row.start_s:.6f}___{row.end_s:.6f}___{row.text}\n"
            for number, row in enumerate(reversed(rows[video]))
        ]
        (raw / "Transcript/Segmented/Combined" / f"{video}.txt").write_text("".join(lines))
        if video != "lost-_0007":
            mp4 = raw / "Videos/Full/Combined" / f"{video}.mp4"
            write_media(recording.frames, recording.samples, mp4, None, independent=False)
            write_wav(raw / "Audio/Full/WAV_16000" / f"{video}.wav", recording.samples)


def _faulty(video: str, rows: Sequence[Row]) -> list[Row]:
    first, second, *_, last = rows
    if video == "-lookAlike1":
        return [replace(first, start_s=-0.4), *rows[1:]]
    if video == "127908":
        both = Row(start_s=first.start_s + 1, end_s=second.end_s - 1, mood="sad", text=f"{first.text} {second.text}")
        return [*rows[:-1], replace(last, end_s=last.end_s + 2), both]
    return list(rows)


def _values(mood: str) -> list[float]:
    emotions = _EMOTIONS.get(mood, {})
    return [SENTIMENTS[mood], *(emotions.get(column.name, 0.0) for column in COLUMNS[1:])]
