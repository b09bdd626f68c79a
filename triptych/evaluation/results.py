"""An evaluation's numbers, predictions and figures: results.json, predictions.csv and report.md of every kind of
protocol, over one division of the clips or the folds of a cross-validation.

Legend: S runs of a system (seeds), N test clips (of series: recordings), C classes, E targets (emotions, or arousal and
valence), T steps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from triptych.config import UserError
from triptych.evaluation import conventions, figures, predictions, protocol_text, scores, tables
from triptych.evaluation.conventions import Column
from triptych.evaluation.entry import Entry, draws_of, entry_of
from triptych.evaluation.parts import Evaluation, Section, Split, System
from triptych.evaluation.predictions import Predictions
from triptych.evaluation.scores import Score
from triptych.evaluation.significance import Units
from triptych.files import write_atomically
from triptych.protocols.protocol import Protocol

__all__ = [
    "Evaluation",
    "Section",
    "Split",
    "System",
    "compute",
    "differences",
    "joined",
    "make_folder",
    "merge",
    "read",
    "systems_from",
    "write",
    "write_predictions",
]


def make_folder(folder: Path) -> None:
    """Make the folder of a report.

    Raises:
        UserError: it holds something: an older report is never mixed with a new one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is in use; give an empty or new folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The content of a results.json.

    Raises:
        UserError: it is none of linear_probe or finetune.
    """
    try:
        numbers: dict[str, Any] = json.loads(path.read_text())
        tables.table(numbers)
        tables.differences(numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a results.json of linear_probe or finetune ({error!r})") from None
    return numbers


def systems_from(path: Path, protocol: Protocol, test: Split) -> list[System]:
    """The systems of a file of predictions, as rows of this evaluation; without probabilities.

    Numbers of the truth may differ by what single precision loses.

    Args:
        path: a predictions.csv of finetune, or any file that `triptych.evaluation.predictions` reads.
        protocol: what is predicted.
        test: the clips that every system must have, in any order.

    Raises:
        UserError: it predicts something else, of other clips, or with another truth; names the first.
    """
    given = predictions.read(path, kind=protocol.kind, classes=protocol.classes if protocol.kind == "classes" else ())
    wanted = _names(protocol)
    if given.names != wanted:
        raise UserError(f"{path}: predicts {', '.join(given.names)}; {protocol.name} is about {', '.join(wanted)}")
    place = {key: index for index, key in enumerate(given.keys)}
    if odd := sorted(place.keys() ^ set(test.keys)):
        there = "not there" if odd[0] in test.keys else "not a test clip here"
        raise UserError(f"{path}: other clips: {len(odd)} of {len(test.keys)} differ, first {odd[0]!r}, {there}")
    order = np.array([place[key] for key in test.keys])
    for key, said, known in zip(test.keys, given.truth[order], test.truth):
        if np.shape(said) != np.shape(known) or not np.allclose(said, known, rtol=1e-6, atol=1e-6):
            raise UserError(f"{path}: clip {key!r} has another truth than here")
    return [
        System(
            name=title.removesuffix(f" ({given.inputs[title]})") if given.inputs[title] else title,
            inputs=given.inputs[title] or "not said",
            predictions=runs[:, order],
            note=f"from {'/'.join(path.parts[-2:])}",
        )
        for title, runs in given.systems.items()
    ]


def joined(table: Sequence[System], *files: Sequence[System]) -> list[System]:
    """The rows of a table and those of files; what is there already, as the constants of every file are, comes once.

    Systems of equal title that say something else are told apart by the number of their file, from 1.
    """
    rows = {system.title: system for system in table}
    for number, systems in enumerate(files, start=1):
        for system in systems:
            known = rows.get(system.title)
            if known is not None and _same(known.predictions, system.predictions):
                continue
            if known is not None:
                system = replace(system, name=f"{system.name}, file {number}")
            rows[system.title] = system
    return list(rows.values())


def _same(first: Units, second: Units) -> bool:
    """But for what a file's digits lose."""
    if first.shape != second.shape:
        return False
    pairs = [(first, second)] if first.dtype != object else zip(first.ravel(), second.ravel(), strict=True)
    return all(np.shape(one) == np.shape(two) and np.allclose(one, two, rtol=1e-6, atol=1e-6) for one, two in pairs)


def compute(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of the report as plain JSON types; `results.json` is this."""
    _check(evaluation)
    console = Console()
    systems = track(evaluation.systems, "intervals", console=console, transient=True, disable=not console.is_terminal)
    return {
        "title": evaluation.title,
        "protocol": protocol_text.block(evaluation),
        "systems": [_system_block(system, evaluation) for system in systems],
        "differences": differences(
            evaluation.protocol,
            evaluation.splits["test"].truth,
            {system.title: system.predictions for system in evaluation.systems},
            evaluation.compared,
            evaluation.num_resamples,
        ),
    }


def write(evaluation: Evaluation, folder: Path, sections: Mapping[str, Section] | None = None) -> dict[str, Any]:
    """Write report.md, results.json, predictions.csv and figures/ into `folder`, which must exist; print the table.

    report.md comes last: where it is, everything is.

    Args:
        evaluation: the whole.
        folder: of the report.
        sections: name in results.json -> further tables, below the others.

    Returns:
        The content of results.json.
    """
    sections = sections or {}
    numbers = {**compute(evaluation), **{name: section.numbers for name, section in sections.items()}}
    (folder / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    given = write_predictions(evaluation, folder / "predictions.csv")
    (folder / "figures").mkdir(exist_ok=True)
    name = next(system.name for system in evaluation.systems if system.title == evaluation.drawn)
    titles = [evaluation.drawn, *(one.title for one in evaluation.systems if one.name == name)]
    pictures = figures.draw(numbers, given, tuple(dict.fromkeys(titles)), folder / "figures")
    report = tables.markdown(numbers, {**pictures, **evaluation.pictures})
    below = [line for one in sections.values() for line in tables.section(one.title, one.numbers, one.note)]
    write_atomically(folder / "report.md", "\n".join([report, *below]))
    tables.show(numbers)
    return numbers


def write_predictions(evaluation: Evaluation, path: Path) -> Predictions:
    """Write what every system says of every test clip, as csv, so that the table can be scored again."""
    test, protocol = evaluation.splits["test"], evaluation.protocol
    given = Predictions(
        kind=protocol.kind,
        names=_names(protocol),
        keys=test.keys,
        truth=test.truth,
        systems={system.title: system.predictions for system in evaluation.systems},
        inputs={system.title: system.inputs for system in evaluation.systems},
    )
    shares = {system.title: system.probabilities for system in evaluation.systems if system.probabilities is not None}
    predictions.write(path, given, folds=test.folds, probabilities=shares)
    return given


def merge(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One table out of several results.json about the same clips; a row that is the same in two comes once.

    Systems of equal name and inputs but other numbers (two encoders, each probed as `pretrained`) are told apart by the
    number of their report, from 1 in the order given.

    Raises:
        UserError: they scored different clips or other things of them, so that their rows do not belong side by side.
    """
    first = reports[0]
    systems: dict[str, Any] = {}
    compared = []
    for number, report in enumerate(reports, start=1):
        for what, part in (("different clips", "split_sha256"), ("by different metrics", "metrics")):
            if report["protocol"][part] != first["protocol"][part]:
                raise UserError(f"{first['title']} and {report['title']} scored {what}; report them one by one")
        titles = {}
        for row in report["systems"]:
            title = f"{row['system']} ({row['inputs']})"
            if systems.get(title, row) != row:
                row = {**row, "system": f"{row['system']}, report {number}"}
            titles[title] = f"{row['system']} ({row['inputs']})"
            systems[titles[title]] = row
        for row in report["differences"]:
            compared.append({**row, "first": titles[row["first"]], "second": titles[row["second"]]})
    return {
        "title": ", ".join(dict.fromkeys(report["title"] for report in reports)),
        "protocol": first["protocol"],
        "systems": list(systems.values()),
        "differences": compared,
    }


def differences(
    protocol: Protocol,
    truth: Units,
    systems: Mapping[str, Units],
    compared: Sequence[tuple[str, str]],
    num_resamples: int,
) -> list[dict[str, Any]]:
    """Paired differences in the protocol's metrics, first minus second, as results.json has them.

    Args:
        protocol: of any kind.
        truth: of the test clips.
        systems: title -> predictions of its runs, as System has them.
        compared: pairs of titles.
        num_resamples: of the bootstrap intervals.
    """
    rows = []
    for first, second in compared:
        row: dict[str, Any] = {"first": first, "second": second, "metrics": {}}
        for name in protocol.metrics:
            score = conventions.columns_of(protocol, name)[-1].score
            pair = systems[first], systems[second]
            try:
                value, low, high = scores.bootstrap_difference(score, truth, *pair, num=num_resamples)
                row["metrics"][name] = {"value": value, "low": low, "high": high}
            except ValueError as error:
                row["metrics"][name] = {"undefined": str(error)}
        rows.append(row)
    return rows


def _names(protocol: Protocol) -> tuple[str, ...]:
    """What `triptych.evaluation.predictions` calls names: classes, emotions or dimensions."""
    if protocol.kind == "classes":
        return protocol.classes
    return ("value",) if protocol.kind == "sentiment" else tuple(target.label for target in protocol.targets)


def _check(evaluation: Evaluation) -> None:
    """That what was given fits together.

    Raises:
        ValueError: it does not, or something is no finite number.
    """
    test = evaluation.splits["test"]
    for title, runs in [("the truth", test.truth[None]), *((one.title, one.predictions) for one in evaluation.systems)]:
        if runs.shape[1:] != test.truth.shape or len(test.keys) != len(test.truth):
            raise ValueError(f"{title}: {runs.shape} for {len(test.keys)} clips with truth {test.truth.shape}")
        for run in runs:
            for key, values, known in zip(test.keys, run, test.truth):
                if np.shape(values) != np.shape(known) or not np.isfinite(values).all():
                    raise ValueError(f"{title}: of {key} other steps than its truth has, or no finite number")
    if test.folds and len(test.folds) != len(test.keys):
        raise ValueError(f"{len(test.folds)} folds for {len(test.keys)} clips")


def _system_block(system: System, evaluation: Evaluation) -> dict[str, Any]:
    block: dict[str, Any] = {"system": system.name, "inputs": system.inputs, "note": system.note, "metrics": {}}
    for name in evaluation.protocol.metrics:
        columns = conventions.columns_of(evaluation.protocol, name)
        block["metrics"][name] = _metric(columns, system.predictions, evaluation)
    return block


def _metric(columns: Sequence[Column], runs: Units, evaluation: Evaluation) -> Entry:
    """A score's entry, with those of its targets in it."""
    *targets, whole = columns
    test = evaluation.splits["test"]
    draws = np.array(
        [draws_of(column.score, test.truth, runs, evaluation.num_resamples) for column in targets or columns]
    )
    if evaluation.protocol.kind == "classes":  # UA is over the classes that a resample has
        draws_of_whole = np.nansum(draws, axis=0) / np.maximum((~np.isnan(draws)).sum(axis=0), 1)
    else:
        draws_of_whole = draws.mean(axis=0)
    entry = _entry(whole.score, test, runs, draws_of_whole)
    if targets:
        entry["targets"] = {
            column.name: _entry(column.score, test, runs, own) for column, own in zip(targets, draws, strict=True)
        }
    return entry


def _entry(score: Score, test: Split, runs: Units, draws: NDArray[np.float64]) -> Entry:
    """With what several seeds and folds say."""
    entry = entry_of(score, test.truth, runs, draws)
    if "value" not in entry:
        return entry
    each = entry["runs"]
    if len(each) > 1:
        entry["std"] = float(np.std(each, ddof=1))
        entry["seeds_low"], entry["seeds_high"] = scores.mean_interval(each)[1:]
    if test.folds:
        entry["folds"] = _folds(score, test, runs)
    return entry


def _folds(score: Score, test: Split, runs: Units) -> Entry:
    """The score within each fold (mean over runs), and mean and standard deviation of those."""
    values: dict[str, float] = {}
    for fold in dict.fromkeys(test.folds):
        chosen = np.array([name == fold for name in test.folds])
        try:
            values[fold] = float(np.mean([score(test.truth[chosen], run[chosen]) for run in runs]))
        except ValueError as error:
            return {"undefined": f"fold {fold}: {error}"}
    each = list(values.values())
    return {"mean": float(np.mean(each)), "std": float(np.std(each, ddof=1)) if each[1:] else 0.0, "values": values}
