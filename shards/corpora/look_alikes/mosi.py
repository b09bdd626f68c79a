"""Files like those of CMU-MOSI: 5 videos, 22 segments.

What is known to be wrong with the real ones is here too: rows in no order, an interval that comes twice with two labels
(lookAlike-1), and a segment of no length (2LookAlike_).
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
from shards.corpora.synthetic_render import write_media

MOODS = {
    "lookAlike-1": ("happy", "sad", "angry", "neutral"),
    "2LookAlike_": ("sad", "happy", "neutral", "angry"),
    "lookAlike03": ("happy", "happy", "sad", "angry"),
    "lookAlike04": ("neutral", "sad", "angry", "happy"),
    "lookAlike05": ("angry", "sad", "happy", "neutral"),
}
FOLDS = {
    "train": ("lookAlike-1", "2LookAlike_", "lookAlike03"),
    "valid": ("lookAlike04",),
    "test": ("lookAlike05",),
}


def make(folder: Path, seed: int) -> None:
    """Fill the folder; see shards.corpora.mosi for the layout."""
    recordings = [record(seed, video, moods) for video, moods in MOODS.items()]
    rows = {recording.video: _faulty(recording.video, rows_of(recording)) for recording in recordings}
    labels = {}
    for video, there in rows.items():
        mixed = shuffled(there, seed, video)
        labels[video] = (
            np.array([[SENTIMENTS[row.mood]] for row in mixed], np.float32),
            np.array([(row.start_s, row.end_s) for row in mixed], np.float32),
        )
    write_csd(folder / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", labels, ["sentiment score"])
    write_words(folder / "CMU_MOSI_TimestampedWords.csd", recordings)
    write_folds(folder / "cmu_mosi_std_folds.py", FOLDS)
    raw, table = folder / "Raw", []
    for place in ("Video/Full", "Transcript/Segmented", "Labels"):
        (raw / place).mkdir(parents=True)
    for recording in recordings:
        video, lines = recording.video, []
        for number, row in enumerate(rows[video], start=1):
            lines.append(f"{number}_DELIM_{row.text}\n")
            table.append(f"{row.start_s:.6f},{row.end_s:.6f},{video},{number},{SENTIMENTS[row.mood]:.1f}\n")
        (raw / "Transcript/Segmented" / f"{video}.annotprocessed").write_text("".join(lines))
        write_media(recording.frames, recording.samples, raw / "Video/Full" / f"{video}.mp4", None, independent=False)
        write_wav(raw / "Audio/WAV_16000/Full" / f"{video}.wav", recording.samples)
    (raw / "Labels" / "OpinionLevelSentiment.csv").write_text("".join(table))


def _faulty(video: str, rows: Sequence[Row]) -> list[Row]:
    if video == "lookAlike-1":
        return [*rows, replace(rows[1], mood="neutral", text="Once more.")]
    if video == "2LookAlike_":
        return [*rows, replace(rows[2], end_s=rows[2].start_s, text="Uh.")]
    return list(rows)
