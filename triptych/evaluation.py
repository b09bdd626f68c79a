"""The report of an evaluation: one table with intervals, the protocol it rests on, predictions and figures.

Legend: S runs of a system (seeds), N test clips, C classes.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triptych import figures, scores
from triptych.config import UserError
from triptych.protocols.protocol import METRICS, Protocol
from triptych.protocols.splits import split_sha256
from triptych.scores import Classes


@dataclass(frozen=True, kw_only=True)
class System:
    """What one system said of the test clips."""

    name: str
    inputs: str
    """What it saw: modality names joined by '+', or '-' for a constant."""
    probabilities: NDArray[np.float64]
    """[S, N, C]"""
    note: str = ""
    """Settings chosen for it on the validation split."""

    @property
    def title(self) -> str:
        """Name and inputs: unique in a report."""
        return f"{self.name} ({self.inputs})"

    @property
    def predictions(self) -> Classes:
        """[S, N] most probable class."""
        return self.probabilities.argmax(axis=-1).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split as the evaluation used it."""

    keys: tuple[str, ...]
    truth: Classes
    """[N] class index of `keys`."""
    left_out: int = 0
    """Clips of the split without the label, or of a class that the protocol leaves out."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything a report says."""

    title: str
    protocol: Protocol
    splits: Mapping[str, Split]
    """train, valid and test."""
    split_rule: Mapping[str, Any]
    """The manifest's account of how the splits were drawn."""
    systems: Sequence[System]
    compared: Sequence[tuple[str, str]] = ()
    """Titles of systems whose paired difference is wanted (first - second)."""
    drawn: str
    """Title of the system whose confusions are drawn."""
    num_resamples: int = 1000
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further lines of the protocol block."""


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
        table(numbers)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a results.json of linear_probe or finetune ({error!r})") from None
    return numbers


def majority(splits: Mapping[str, Split], num_classes: int) -> System:
    """The trivial system: always the most common class of the training split."""
    shares = np.bincount(splits["train"].truth, minlength=num_classes) / len(splits["train"].truth)
    rows = np.broadcast_to(shares, (1, len(splits["test"].keys), num_classes))
    return System(name="majority class", inputs="-", probabilities=rows)


def results(evaluation: Evaluation) -> dict[str, Any]:
    """All numbers of the report as plain JSON types; `results.json` is this."""
    truth = evaluation.splits["test"].truth
    metrics = evaluation.protocol.metrics
    return {
        "title": evaluation.title,
        "protocol": _protocol_block(evaluation),
        "systems": [_system_block(system, truth, metrics, evaluation.num_resamples) for system in evaluation.systems],
        "differences": _differences(evaluation),
    }


def write(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Write report.md, results.json, predictions.csv and figures/ into `folder`, which must exist; print the table.

    Returns:
        The content of results.json.
    """
    numbers = results(evaluation)
    (folder / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (folder / "report.md").write_text(markdown(numbers))
    _write_predictions(evaluation, folder / "predictions.csv")
    (folder / "figures").mkdir(exist_ok=True)
    figures.bars(numbers, folder / "figures" / "bars.png")
    drawn = next(system for system in evaluation.systems if system.title == evaluation.drawn)
    matrix = sum(
        scores.confusion(evaluation.splits["test"].truth, run, len(evaluation.protocol.classes))
        for run in drawn.predictions
    )
    path = folder / "figures" / "confusion.png"
    figures.confusion(np.asarray(matrix), evaluation.protocol.classes, drawn.title, path)
    show(numbers)
    return numbers


def table(numbers: Mapping[str, Any]) -> list[str]:
    """Lines of the table of systems, and how to read it."""
    names = numbers["protocol"]["metrics"]
    lines = [
        f"| system | inputs | {' | '.join(names)} | chosen on valid |",
        "|---|---|" + "---:|" * len(names) + "---|",
    ]
    for row in numbers["systems"]:
        cells = [_cell(row["metrics"][name]) for name in names]
        lines.append(f"| {row['system']} | {row['inputs']} | {' | '.join(cells)} | {row['note']} |")
    return [*lines, "", f"Percent. {_reading(numbers)}", ""]


def differences(numbers: Mapping[str, Any]) -> list[str]:
    """Lines of the table of paired differences; none where nothing was compared."""
    names = numbers["protocol"]["metrics"]
    if not numbers["differences"]:
        return []
    lines = ["### Paired differences, same test clips", "", f"| difference | {' | '.join(names)} |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in numbers["differences"]:
        cells = [_signed(row["metrics"][name]) for name in names]
        lines.append(f"| {row['first']} − {row['second']} | {' | '.join(cells)} |")
    return [*lines, "", "An interval without 0: other clips of these speakers would likely show a difference too.", ""]


def markdown(numbers: Mapping[str, Any]) -> str:
    """`results` as a report: tables, pictures, protocol block."""
    pictures = ["![scores](figures/bars.png)", "", "![confusion](figures/confusion.png)", ""]
    lines = [f"# {numbers['title']}", "", *table(numbers), *differences(numbers), *pictures]
    return "\n".join([*lines, *_protocol_markdown(numbers["protocol"]), ""])


def merge(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One table out of several results.json about the same clips; a row that is the same in two comes once.

    Systems of equal name and inputs but other numbers (two encoders, each probed as `pretrained`) are told apart by the
    number of their report, from 1 in the order given.

    Raises:
        UserError: they scored different clips, so that their rows do not belong side by side.
    """
    first = reports[0]
    systems: dict[str, Any] = {}
    compared = []
    for number, report in enumerate(reports, start=1):
        if report["protocol"]["split_sha256"] != first["protocol"]["split_sha256"]:
            raise UserError(f"{first['title']} and {report['title']} scored different clips; report them one by one")
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


def _system_block(system: System, truth: Classes, metrics: Sequence[str], num_resamples: int) -> dict[str, Any]:
    block: dict[str, Any] = {"system": system.name, "inputs": system.inputs, "note": system.note, "metrics": {}}
    for name in metrics:
        runs = [METRICS[name](truth, run) for run in system.predictions]
        low, high = scores.bootstrap_interval(METRICS[name], truth, system.predictions, num=num_resamples)
        entry = {"value": float(np.mean(runs)), "low": low, "high": high, "runs": runs}
        if len(runs) > 1:
            entry["std"] = float(np.std(runs, ddof=1))
            entry["seeds_low"], entry["seeds_high"] = scores.mean_interval(runs)[1:]
        block["metrics"][name] = entry
    return block


def _differences(evaluation: Evaluation) -> list[dict[str, Any]]:
    by_title = {system.title: system for system in evaluation.systems}
    truth = evaluation.splits["test"].truth
    rows = []
    for first, second in evaluation.compared:
        pair = by_title[first].predictions, by_title[second].predictions
        row: dict[str, Any] = {"first": first, "second": second, "metrics": {}}
        for name in evaluation.protocol.metrics:
            value, low, high = scores.bootstrap_difference(METRICS[name], truth, *pair, num=evaluation.num_resamples)
            row["metrics"][name] = {"value": value, "low": low, "high": high}
        rows.append(row)
    return rows


def _protocol_block(evaluation: Evaluation) -> dict[str, Any]:
    protocol = evaluation.protocol
    target = protocol.targets[0]
    counts = {}
    for name, split in evaluation.splits.items():
        per_class = np.bincount(split.truth, minlength=len(protocol.classes)).tolist()
        counts[name] = {
            "clips": len(split.keys),
            "left_out": split.left_out,
            "classes": dict(zip(protocol.classes, per_class)),
        }
    return {
        "name": protocol.name,
        "label": protocol.label,
        "classes": list(protocol.classes),
        "counted_as": {said: name for said, name in target.counted_as.items() if name in target.classes},
        "metrics": list(protocol.metrics),
        "selection": f"by {protocol.select} on valid; the test split was scored once, after every choice",
        "split_rule": dict(evaluation.split_rule),
        "split_sha256": split_sha256({name: split.keys for name, split in evaluation.splits.items()}),
        "splits": counts,
        "num_resamples": evaluation.num_resamples,
        "facts": dict(evaluation.facts),
        "note": protocol.note,
    }


def _protocol_markdown(block: Mapping[str, Any]) -> list[str]:
    classes = block["classes"]
    told = {name: "; ".join(said) if isinstance(said, list) else said for name, said in block["split_rule"].items()}
    rule = ", ".join(f"{name} {said}" for name, said in told.items() if said != "")
    merged = "".join(f"; {said} counts as {name}" for said, name in block.get("counted_as", {}).items())
    lines = [
        "## Protocol",
        "",
        f"- protocol: {block['name']}; label `{block['label']}`; "
        + ", ".join(f"{index} = {name}" for index, name in enumerate(classes))
        + merged,
        f"- split: {rule or 'as found'}; SHA-256 of the sorted (key, split) list `{block['split_sha256']}`",
        f"- selection: {block['selection']}",
        f"- intervals: 95 %, percentile bootstrap over test clips, {block['num_resamples']} resamples",
        *(f"- {name}: {value}" for name, value in block["facts"].items()),
        *([f"- note: {block['note']}"] if block["note"] else []),
        "",
        f"| split | clips | {' | '.join(classes)} | left out |",
        "|---|" + "---:|" * (len(classes) + 2),
    ]
    for name, count in block["splits"].items():
        cells = " | ".join(str(count["classes"][label]) for label in classes)
        lines.append(f"| {name} | {count['clips']} | {cells} | {count['left_out']} |")
    return [*lines, "", "Left out: clips without the label, or of a class that is not listed."]


def _reading(numbers: Mapping[str, Any]) -> str:
    text = "In brackets: 95 % bootstrap interval over test clips."
    if any("std" in row["metrics"][name] for row in numbers["systems"] for name in row["metrics"]):
        text += " Where there are several seeds: mean ± standard deviation over seeds."
    return text + " WA is the overall accuracy, UA the mean recall over classes."


def _cell(entry: Mapping[str, Any]) -> str:
    spread = f" ± {100 * entry['std']:.1f}" if "std" in entry else ""
    return f"{100 * entry['value']:.1f}{spread} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def _signed(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['value']:+.1f} [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"


def show(numbers: Mapping[str, Any]) -> None:
    """Print the table of systems and their paired differences."""
    names = numbers["protocol"]["metrics"]
    table = Table(title=numbers["title"])
    table.add_column("system")
    table.add_column("inputs")
    for name in names:
        table.add_column(f"{name} %", justify="right")
    for row in numbers["systems"]:
        table.add_row(
            row["system"], row["inputs"], *(_cell(row["metrics"][name]).replace("[", r"\[") for name in names)
        )
    console = Console()
    console.print(table)
    for row in numbers["differences"]:
        figures_text = ", ".join(f"{name} {_signed(row['metrics'][name])}" for name in names)
        console.print(f"{row['first']} − {row['second']}: {figures_text}", markup=False)


def _write_predictions(evaluation: Evaluation, path: Path) -> None:
    classes, test = evaluation.protocol.classes, evaluation.splits["test"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "inputs", "run", "key", "truth", "prediction", *(f"p_{name}" for name in classes)])
        for system in evaluation.systems:
            for run, (rows, predictions) in enumerate(zip(system.probabilities, system.predictions)):
                for key, truth, prediction, row in zip(test.keys, test.truth, predictions, rows):
                    probabilities = [f"{value:.6f}" for value in row]
                    names = [classes[truth], classes[prediction]]
                    writer.writerow([system.name, system.inputs, run, key, *names, *probabilities])
