"""`python -m shards convert_pickle FILE.pkl out=FOLDER`: MMSA's and MulT's pickled features without the pickle.

The `.pkl` files of CMU-MOSEI and CMU-MOSI that go from hand to hand (MulT's mosei_senti_data.pkl, MMSA's
unaligned_50.pkl, ...) are programs: to load one is to run it. This reads the numbers, texts and arrays out of one,
without running anything it names, and writes what any program can read:

    FOLDER/segments.csv      a row a segment: split, arrays, video, clip, start_s, end_s, text, lengths, sentiment, ...
    FOLDER/arrays/train-000012/vision.npy    its row of each array: text, text_bert, audio, vision, as they are there

Then `python -m shards write mosei corpus.mosei.converted=FOLDER corpus.mosei.root=FOLDER out=SHARDS` makes shards of it
(or mosi): each sample has the arrays as given_vision.npy, ...

IEMOCAP's pickles have no ids: their rows belong to no utterance that could be named, and are refused.
"""

import csv
import io
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING
from rich.console import Console
from rich.progress import track

from shards.corpora import safe_pickle
from shards.corpora.mosei import COLUMNS
from shards.record import SPLITS
from triptych.config import UserError, load
from triptych.files import write_atomically
from triptych.refusals import move

ARRAYS = ("text", "text_bert", "audio", "vision")
LENGTHS = ("audio_lengths", "vision_lengths")
"""How many steps of an array are no padding; MMSA tells them, MulT does not."""
LABELS = ("regression_labels", "labels")
"""Of MMSA, of MulT."""
_ID = re.compile(r"(.+?)(?:\$_\$(\d+)|\[(\d+)\])")
_VIDEO = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class ConvertPickleConfig:
    """What is converted."""

    out: str = MISSING
    """Folder to make; refused where it exists."""
    max_gb: float = 32.0
    """A larger file is refused: it would be read into memory whole."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Convert the file; returns the exit status, 0.

    Raises:
        UserError: a file that cannot be read or is refused, or a folder that is there already or cannot be written.
    """
    config = load(ConvertPickleConfig, {}, overrides)
    counts = convert(Path(target), Path(config.out), int(config.max_gb * 1e9))
    told = ", ".join(f"{count} {split}" for split, count in counts.items())
    Console().print(f"{config.out}: {told} segments", soft_wrap=True, markup=False)
    return 0


def convert(source: Path, out: Path, max_bytes: int) -> dict[str, int]:
    """Write the folder, whole or not at all.

    Args:
        source: the pickle.
        out: must not exist yet.
        max_bytes: of the pickle.

    Returns:
        Split -> number of segments.

    Raises:
        UserError: see `run`.
    """
    if out.exists():
        raise UserError(f"out: {out} is there already; remove it, or choose another")
    splits = _splits(safe_pickle.load(source, max_bytes), source)
    scratch = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "arrays").mkdir(parents=True)
        rows = [row for split, values in splits.items() for row in _rows(split, values, scratch / "arrays", source)]
        text = io.StringIO()
        names = [name for name in _FIELDS if any(name in row for row in rows)]
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(scratch / "segments.csv", text.getvalue())
        move(scratch, out)
    except OSError as error:
        raise UserError(f"out: {out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {split: sum(row["split"] == split for row in rows) for split in splits}


_FIELDS = (
    *("split", "arrays", "video", "clip", "start_s", "end_s", "text", *LENGTHS),
    *(column.name for column in COLUMNS),
)


def _splits(content: Any, source: Path) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for split in SPLITS if isinstance(content, dict) else ():
        if isinstance(content.get(split), dict):
            found[split] = content[split]
    if len(found) < len(SPLITS):
        raise UserError(f"{source}: expected a dict of {', '.join(SPLITS)}, as MMSA and MulT write it")
    for split, values in found.items():
        if "id" not in values:
            raise UserError(
                f"{source}: {split} has no ids, as MulT's file of IEMOCAP: its rows belong to no utterance that could "
                "be named, and cannot be joined with anything. Use the corpus itself"
            )
    return found


def _rows(split: str, values: Mapping[str, Any], folder: Path, source: Path) -> Iterator[dict[str, Any]]:
    """The rows of segments.csv; the arrays are written on the way."""
    ids = _list(values["id"])
    name = next((name for name in LABELS if name in values), None)
    if name is None:
        raise UserError(f"{source}: {split} has neither {' nor '.join(LABELS)}")
    labels = _labels(values[name], len(ids), f"{source}: {name} of {split}")
    arrays = {key: values[key].values for key in ARRAYS if isinstance(values.get(key), safe_pickle.Stored)}
    texts = _list(values["raw_text"]) if "raw_text" in values else [None] * len(ids)
    if wrong := [key for key, array in arrays.items() if array.dtype.kind not in "fiub" or len(array) != len(ids)]:
        raise UserError(f"{source}: {wrong[0]} of {split} has not a row of numbers for each of the {len(ids)} ids")
    lengths = {key: _list(values[key]) for key in LENGTHS if key in values}
    for key, there in {**lengths, "raw_text": texts}.items():
        if len(there) != len(ids):
            raise UserError(f"{source}: {key} of {split} has {len(there)} rows for {len(ids)} ids")
    console = Console(stderr=True)
    for number in track(range(len(ids)), split, console=console, disable=not console.is_terminal):
        row: dict[str, Any] = {"split": split, "arrays": f"{split}-{number:06d}"}
        row |= _identified(ids[number], f"{source}: {split} row {number}")
        if texts[number] is not None:
            row["text"] = " ".join(str(texts[number]).split())
        row |= {column.name: float(value) for column, value in zip(COLUMNS, labels[number])}
        row |= {key: counts[number] for key, counts in lengths.items()}
        (folder / row["arrays"]).mkdir()
        for key, array in arrays.items():
            np.save(folder / row["arrays"] / f"{key}.npy", np.ascontiguousarray(array[number]), allow_pickle=False)
        yield row


def _list(value: Any) -> list[Any]:
    """An array or list, and the arrays in it, as lists."""
    plain = value.values.tolist() if isinstance(value, safe_pickle.Stored) else value
    if not isinstance(plain, list | tuple):
        return []
    return [_list(item) if isinstance(item, safe_pickle.Stored | list | tuple) else item for item in plain]


def _labels(value: Any, count: int, where: str) -> NDArray[np.float64]:
    """[N, 1] sentiment, or [N, 7] sentiment and emotions in MOSEI's order."""
    try:
        labels = np.asarray(_list(value), np.float64).reshape(count, -1)
    except (ValueError, TypeError):
        labels = np.empty((count, 0))
    if labels.shape[1] not in (1, len(COLUMNS)) or not np.isfinite(labels).all():
        raise UserError(f"{where}: expected 1 or {len(COLUMNS)} finite numbers a segment")
    return labels


def _identified(identity: Any, where: str) -> dict[str, str]:
    """[video, start, end] of MulT, "video$_$clip" of MMSA, or "video[clip]" of the SDK."""
    parts = [
        part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
        for part in (identity if isinstance(identity, list) else [identity])
    ]
    if len(parts) == 3:
        found = {"video": parts[0], "start_s": parts[1], "end_s": parts[2]}
        good = all(_is_finite(part) for part in parts[1:])
    else:
        match = _ID.fullmatch(parts[0]) if len(parts) == 1 else None
        found = {} if match is None else {"video": match[1], "clip": match[2] or match[3]}
        good = match is not None
    if not good or not _VIDEO.fullmatch(found["video"]):
        raise UserError(f"{where}: id {identity!r}; expected [video, start, end], video$_$clip or video[clip]")
    return found


def _is_finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
