"""Files of predictions: one csv row a clip, or of series a step.

    key,split,kind,system,inputs,run,truth,prediction
    key,split,kind,system,inputs,run,truth_happy,prediction_happy,truth_sad,prediction_sad,...

`write` makes such files of every kind, and `read` reads them and those of others.

`truth` and `prediction` (or the pairs) must be there, the rest may be; other columns are not looked at. `kind` is the
same in every row:

    classes     names of classes, or their numbers
    sentiment   numbers in [-3, 3]
    emotions    0 or 1, one pair of columns an emotion
    series      numbers; a row a step, in order, and `key` is the recording

`system` and `inputs` name a system, `run` one of its seeds; each holds the same clips with the same truth.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError, nearest
from triptych.evaluation.significance import Units
from triptych.text_files import open_text

KINDS = ("classes", "sentiment", "emotions", "series")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a file says, with its clips in the order of its first run."""

    kind: str
    names: tuple[str, ...]
    """Classes, emotions, or dimensions of the series."""
    keys: tuple[str, ...]
    truth: Units
    """[N] class indices or sentiment, [N, E] emotions, [N] arrays [T, E] of series."""
    systems: Mapping[str, Units]
    """Title -> S runs, each as `truth`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Title -> what the system saw, where that is said; its title is then "name (inputs)"."""


@dataclass(frozen=True)
class _Row:
    line: int
    cells: Mapping[str, str]


@dataclass
class _Clip:
    line: int
    truth: list[list[float]]
    """[T, E], T = 1 unless it is a series."""
    prediction: list[list[float]]


_Run = dict[str, _Clip]


def read(path: Path, *, kind: str = "", split: str = "", classes: Sequence[str] = ()) -> Predictions:
    """Read a file of predictions.

    Args:
        path: the csv file.
        kind: one of KINDS; needed where the file does not say it.
        split: which rows, where the file has several splits.
        classes: names in order; otherwise those of the file's p_<class> columns, or all that occur, sorted.

    Raises:
        UserError: what is wrong, with file, line and column.
    """
    rows = _of_split(path, _rows(path), split)
    kind = _kind(path, rows, kind)
    targets = _targets(path, rows[0].cells, kind)
    names = _class_names(rows, classes) if kind == "classes" else targets
    systems: dict[str, dict[str, _Run]] = {}
    inputs: dict[str, str] = {}
    for row in rows:
        inputs[_title(row)] = row.cells.get("inputs", "")
        clips = systems.setdefault(_title(row), {}).setdefault(row.cells.get("run", ""), {})
        key = row.cells.get("key", str(len(clips) + 1))
        pair = [
            [_value(path, row, f"{side}_{name}" if name else side, kind, names) for name in targets or ("",)]
            for side in ("truth", "prediction")
        ]
        if key not in clips:
            clips[key] = _Clip(row.line, [pair[0]], [pair[1]])
        elif kind == "series":
            clips[key].truth.append(pair[0])
            clips[key].prediction.append(pair[1])
        else:
            raise UserError(f"{path}:{row.line}: column key: {key!r} is in line {clips[key].line} too")
    return replace(_gathered(path, kind, names or ("value",), systems), inputs=inputs)


def write(
    path: Path,
    given: Predictions,
    *,
    folds: Sequence[str] = (),
    probabilities: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """Write predictions, row by row; `read` gives them back equal.

    Args:
        path: of the csv file.
        given: of any kind.
        folds: of the clips of a cross-validation, for a column `fold`.
        probabilities: of classes: title -> [S, N, C], for columns p_<class>; empty for a system that has none.
    """
    choice = given.kind == "classes"
    names = given.names if given.kind in ("emotions", "series") else ("",)
    pairs = [f"{side}_{name}" if name else side for name in names for side in ("truth", "prediction")]
    columns = [f"p_{name}" for name in given.names] if choice else []
    head = ["system", "inputs", "run", "key", "kind", *(["fold"] if folds else []), *pairs, *columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for title, runs in given.systems.items():
            inputs = given.inputs.get(title, "")
            name = title.removesuffix(f" ({inputs})") if inputs else title
            rows = (probabilities or {}).get(title)
            for number, run in enumerate(runs):
                for index, key in enumerate(given.keys):
                    before = [name, inputs, number, key, given.kind, *folds[index : index + 1]]
                    shares = [""] * len(columns) if rows is None else [f"{share:.6f}" for share in rows[number, index]]
                    for cells in _cells(given, given.truth[index], run[index]):
                        writer.writerow([*before, *cells, *shares])


def _cells(given: Predictions, truth: Any, prediction: Any) -> Iterator[list[str]]:
    """Cells of a clip's rows: truth and prediction in turn."""
    if given.kind == "classes":
        yield [given.names[int(truth)], given.names[int(prediction)]]
        return
    steps = zip(truth, prediction) if given.kind == "series" else [(truth, prediction)]
    for pair in steps:
        pairs = zip(*(np.atleast_1d(side) for side in pair), strict=True)
        yield [f"{value:.0f}" if given.kind == "emotions" else repr(float(value)) for both in pairs for value in both]


def _title(row: _Row) -> str:
    system, inputs = row.cells.get("system") or "predictions", row.cells.get("inputs", "")
    return f"{system} ({inputs})" if inputs else system


def _rows(path: Path) -> list[_Row]:
    try:
        with open_text(path, newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise UserError(f"{path}:1: column {twice[0]!r} is there twice")
            rows = []
            for cells in reader:
                if len(cells) != len(header):
                    if not cells:
                        continue  # a blank line, as editors leave one at the end
                    raise UserError(f"{path}:{reader.line_num}: {len(cells)} columns, the header has {len(header)}")
                rows.append(_Row(reader.line_num, dict(zip(header, cells))))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a csv file of predictions") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from None
    if not rows:
        raise UserError(f"{path}: no rows; the first line is the header")
    return rows


def _of_split(path: Path, rows: list[_Row], split: str) -> list[_Row]:
    found = sorted({row.cells["split"] for row in rows if "split" in row.cells})
    if split and split not in found:
        raise UserError(f"{path}: column split: no {split!r}.{nearest(split, found)}")
    if not split and len(found) > 1:
        raise UserError(f"{path}: column split: has {', '.join(found)}; say which, as split={found[0]}")
    return [row for row in rows if not split or row.cells["split"] == split]


def _kind(path: Path, rows: list[_Row], given: str) -> str:
    if given and given not in KINDS:
        raise UserError(f"kind: no {given!r}.{nearest(given, KINDS)}")
    said = rows[0].cells.get("kind", "")
    for row in rows:
        if row.cells.get("kind", "") != said or said not in ("", *KINDS):
            raise UserError(f"{path}:{row.line}: column kind: one of {', '.join(KINDS)}, the same in every row")
    if given and said and given != said:
        raise UserError(f"{path}: says kind {said}; kind={given} does not fit")
    if not (given or said) and any(name.startswith("p_") for name in rows[0].cells):
        return "classes"  # what linear_probe and finetune write
    if not (given or said):
        raise UserError(f"{path}: does not say what it predicts; give kind={'|'.join(KINDS)}")
    return given or said


def _targets(path: Path, header: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """Names of the pairs of columns; none where they are `truth` and `prediction`."""
    there = "there are " + ", ".join(header)
    if kind == "series" and "key" not in header:
        raise UserError(f"{path}:1: no column 'key', which names the recording; {there}")
    named = tuple(name.removeprefix("truth_") for name in header if name.startswith("truth_"))
    wanted = [f"prediction_{name}" for name in named]
    if kind in ("classes", "sentiment") or (kind == "series" and not named):
        named, wanted = (), ["truth", "prediction"]
    elif not named:
        wanted = ["truth_<name>"]
    for name in wanted:
        if name not in header:
            raise UserError(f"{path}:1: no column {name!r}; {there}")
    return named


def _class_names(rows: list[_Row], given: Sequence[str]) -> tuple[str, ...]:
    if given:
        return tuple(given)
    if named := tuple(name.removeprefix("p_") for name in rows[0].cells if name.startswith("p_")):
        return named
    found = {row.cells[side] for row in rows for side in ("truth", "prediction")} - {""}
    return tuple(sorted(found, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def _value(path: Path, row: _Row, column: str, kind: str, names: tuple[str, ...]) -> float:
    text = row.cells[column].strip()
    where = f"{path}:{row.line}: column {column}:"
    if kind == "classes":
        if text not in names:
            raise UserError(f"{where} no class {text!r}.{nearest(text, names)}")
        return names.index(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where} {text!r} is no finite number; leave clips without the label out")
    if kind == "emotions" and value not in (0, 1):
        raise UserError(f"{where} {text!r} is not 0 or 1; apply the threshold first (truth: intensity > 0)")
    return value


def _gathered(path: Path, kind: str, names: tuple[str, ...], systems: Mapping[str, Mapping[str, _Run]]) -> Predictions:
    first: _Run = next(iter(next(iter(systems.values())).values()))
    for title, runs in systems.items():
        for run, clips in runs.items():
            where = f"{path}: {title}{f' run {run}' if run else ''}"
            if odd := sorted(first.keys() ^ clips.keys()):
                raise UserError(f"{where}: other clips than the first system of the file, as {odd[0]!r}")
            for key, clip in clips.items():
                if clip.truth != first[key].truth:
                    raise UserError(
                        f"{path}:{clip.line}: column truth: {key!r} has another truth than in line {first[key].line}"
                    )
    stacked = {title: list(_arrays(kind, first, runs)) for title, runs in systems.items()}
    return Predictions(
        kind=kind,
        names=names,
        keys=tuple(first),
        truth=_array(kind, [clip.truth for clip in first.values()]),
        systems={title: np.stack(arrays) for title, arrays in stacked.items()},
    )


def _arrays(kind: str, first: _Run, runs: Mapping[str, _Run]) -> Iterator[Units]:
    for clips in runs.values():
        yield _array(kind, [clips[key].prediction for key in first])


def _array(kind: str, clips: list[list[list[float]]]) -> Units:
    if kind == "series":
        units = np.empty(len(clips), dtype=object)
        for index, steps in enumerate(clips):
            units[index] = np.asarray(steps, dtype=np.float64)
        return units
    array = np.asarray([steps[0] for steps in clips])
    array = array.astype(np.float64 if kind == "sentiment" else np.int64)
    return array if kind == "emotions" else array[:, 0]
