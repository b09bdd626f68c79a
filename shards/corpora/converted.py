"""The folder that `python -m shards convert_pickle` makes, as clips without media: labels, text, splits and arrays.

The arrays are attachments, given_vision.npy and so on: as the pickle had them, with its padding.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from shards.corpora.segments import INSTANT_S, Column, segment_key
from shards.record import SPLITS, RawClip
from shards.transcripts.spread import spread
from triptych.config import UserError
from triptych.text_files import open_text

WORD_S = 0.4
"""For each word where a file has no times: 150 words a minute, as people speak. `source.word_times` says guessed."""


def clips(folder: Path, columns: Sequence[Column]) -> Iterator[RawClip]:
    """All rows as clips, by key: <video>/<start>_<end> in milliseconds as of the labels themselves, or
    <video>/clip-<clip>.

    Raises:
        UserError: the folder is not what the command makes.
    """
    path = folder / "segments.csv"
    try:
        with open_text(path, newline="") as file:
            found = [_clip(row, folder, columns) for row in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; make it with convert_pickle") from None
    except UserError:
        raise
    except (KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not as convert_pickle writes it: {error}") from None
    seen = Counter[str]()
    for clip in sorted(found, key=lambda clip: (clip.key, list(clip.labels.values()))):
        seen[clip.key] += 1
        yield clip if seen[clip.key] == 1 else replace(clip, key=f"{clip.key}_{seen[clip.key]}")


def _clip(row: dict[str, str], folder: Path, columns: Sequence[Column]) -> RawClip:
    video, text = row["video"], row.get("text") or None
    if row["split"] not in SPLITS or Path(row["arrays"]).name != row["arrays"]:
        raise ValueError(f"split {row['split']}, arrays {row['arrays']}")
    labels = {column.name: float(row[column.name]) for column in columns if row.get(column.name)}
    if not all(map(math.isfinite, labels.values())):
        raise ValueError(f"a label of {video} is no number")
    source = {"video": video, "split": row["split"]}
    if row.get("start_s"):
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
        key = segment_key(video, start_s, end_s)
        source |= {"start_s": f"{start_s:.3f}", "end_s": f"{end_s:.3f}"}
        duration_s, word_times = max(INSTANT_S, end_s - max(0.0, start_s)), "spread"
    else:
        key, source["clip"] = f"{video}/clip-{row['clip']}", row["clip"]
        duration_s, word_times = WORD_S * max(1, len((text or "").split())), "guessed"
    if text is not None:
        source["word_times"] = word_times
    return RawClip(
        key=key,
        speaker=video,
        attachments={f"given_{path.name}": path for path in sorted((folder / "arrays" / row["arrays"]).glob("*.npy"))},
        duration_s=round(duration_s, 6),
        words=None if text is None else spread(text, 0.0, duration_s),
        source=source,
        labels=labels,
    )
