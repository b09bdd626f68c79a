"""Score a file of predictions under every convention, beside the trivial baselines.

    python -m triptych.score PREDICTIONS [against=OTHER] [a.b=c ...]

PREDICTIONS is predictions.csv of linear_probe or finetune, or any csv with columns truth and prediction. For the
latter say what they are:

    kind=classes      names or numbers of classes
    kind=sentiment    numbers in [-3, 3]
    kind=emotions     0 or 1, columns truth_happy,prediction_happy,truth_sad,...
    kind=series       numbers, a row a step; columns key (the recording), truth, prediction; or truth_arousal, ...

Printed, and written to scores.md and scores.json: every score that papers quote for this kind, with a 95 % bootstrap
interval over clips (of series: recordings) and who quotes it; what constants score on the same clips; with `against`,
the paired difference to the other file's predictions of the same clips, with its interval and p value.

    protocol=NAME     a benchmark of triptych.protocols: its classes, in its order, and its note
    split=NAME        which rows, where there is a column split with several
    system=TITLE      of PREDICTIONS, other=TITLE of OTHER: what is compared; otherwise what has the same title in
                      both files, or the only one of each. OTHER may be the same file
    out=FOLDER        otherwise <name of PREDICTIONS>-scores beside it
    num_resamples=N   of the bootstrap, 1000
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from triptych import config as configs
from triptych.config import UserError, nearest
from triptych.evaluation import predictions as files
from triptych.evaluation import scores
from triptych.evaluation.conventions import Column, Pairs, Sheet, sheets
from triptych.evaluation.entry import Entry, draws_of, entry_of
from triptych.evaluation.markdown import table
from triptych.evaluation.predictions import Predictions
from triptych.evaluation.scores import Score
from triptych.evaluation.significance import Units
from triptych.files import sha256, write_atomically
from triptych.protocols import registry


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What a scoring is told; see the module."""

    predictions: Path
    kind: str = ""
    split: str = ""
    protocol: str = ""
    against: str = ""
    system: str = ""
    other: str = ""
    out: str = ""
    num_resamples: int = 1000

    def __post_init__(self) -> None:
        if self.num_resamples < 100:
            raise ValueError(f"num_resamples: 100 or more, for the ends of a 95 % interval; given {self.num_resamples}")
        if (self.system or self.other) and not self.against:
            raise ValueError("system and other say what is compared: give against=OTHER_PREDICTIONS too")

    @property
    def folder(self) -> Path:
        """Where the scores are written."""
        return Path(self.out) if self.out else self.predictions.with_name(f"{self.predictions.stem}-scores")


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score the file, print the tables and write them.

    Returns:
        The content of scores.json.

    Raises:
        UserError: a file that cannot be read as predictions, or two that are not about the same clips.
    """
    classes, note = _protocol(config.protocol)
    given = files.read(config.predictions, kind=config.kind, split=config.split, classes=classes)
    pairs: Pairs = {}
    if config.against:
        names = given.names if given.kind == "classes" else ()
        other = files.read(Path(config.against), kind=given.kind, split=config.split, classes=names)
        pairs = _pairs(config, given, other)
    console = Console()
    filled = sheets(given, pairs)
    jobs = track(filled, "scoring", console=console, transient=True, disable=not console.is_terminal)
    numbers = {
        "predictions": str(config.predictions),
        "sha256": sha256(config.predictions),
        "against": config.against,
        "kind": given.kind,
        "split": config.split,
        "protocol": config.protocol,
        "note": note,
        "clips": len(given.keys),
        "num_resamples": config.num_resamples,
        "sheets": [_filled(sheet, config.num_resamples) for sheet in jobs],
    }
    config.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(config.folder / "scores.json", json.dumps(numbers, indent=2) + "\n")
    write_atomically(config.folder / "scores.md", "\n".join(markdown(numbers)) + "\n")
    if console.is_terminal:
        _show(numbers, console)
    else:
        print("\n".join(markdown(numbers)))
    print(f"written to {config.folder}/scores.md and scores.json")
    return numbers


def markdown(numbers: Mapping[str, Any]) -> list[str]:
    """Lines of scores.md."""
    lines = [f"# Scores of {numbers['predictions']}", "", *_facts(numbers), ""]
    for sheet in numbers["sheets"]:
        names = list(sheet["columns"])
        lines += [f"## {sheet['title']}", ""]
        for kind, rows in _tables(sheet):
            lines += table([kind, *names], "l" + "r" * len(names), ([title, *cells] for title, cells in rows))
            lines.append("")
        lines += [f"- {said}" for said in _quoted(sheet)]
        lines.append("")
    return lines


def _protocol(name: str) -> tuple[tuple[str, ...], str]:
    """Its classes and its note."""
    if not name:
        return (), ""
    found = registry.find(name)
    return found.classes if found.kind == "classes" else (), found.note


def _pairs(config: ScoreConfig, given: Predictions, other: Predictions) -> Pairs:
    """Who is compared with whom, the clips of `other` in the order of `given`."""
    where = f"{config.predictions} and {config.against}"
    if given.names != other.names:
        raise UserError(f"{where} predict other things: {', '.join(given.names)} and {', '.join(other.names)}")
    if odd := sorted(set(given.keys) ^ set(other.keys)):
        raise UserError(f"{where} are not about the same clips: {len(odd)} are in one only, as {odd[0]!r}")
    place = {key: index for index, key in enumerate(other.keys)}
    order = np.array([place[key] for key in given.keys])
    for key, mine, theirs in zip(given.keys, given.truth, other.truth[order]):
        if not np.array_equal(mine, theirs):
            raise UserError(f"{where} do not agree on the truth of clip {key!r}")
    firsts, seconds = list(given.systems), list(other.systems)
    for option, title, titles in (("system", config.system, firsts), ("other", config.other, seconds)):
        if title and title not in titles:
            raise UserError(f"{option}: no {title!r}.{nearest(title, titles)}")
    firsts, seconds = [config.system] if config.system else firsts, [config.other] if config.other else seconds
    if len(firsts) == len(seconds) == 1:
        chosen = [(firsts[0], seconds[0])]
    else:
        chosen = [(title, title) for title in firsts if title in seconds]
    if not chosen:
        raise UserError(
            f"{where} have no system of the same title; say system=TITLE and other=TITLE. "
            f"There are {', '.join(firsts)}; and {', '.join(seconds)}"
        )
    return {
        f"{first} − {second if second != first else 'the same, other file'}": (
            given.systems[first],
            other.systems[second][:, order],
        )
        for first, second in chosen
    }


def _filled(sheet: Sheet, num_resamples: int) -> dict[str, Any]:
    return {
        "title": sheet.title,
        "quoted": sheet.quoted,
        "columns": {column.name: {"quoted": column.quoted, "percent": column.percent} for column in sheet.columns},
        "systems": {
            title: {column.name: _entry(column.score, sheet.truth, runs, num_resamples) for column in sheet.columns}
            for title, runs in sheet.systems.items()
        },
        "differences": {
            title: {column.name: _difference(column, sheet.truth, pair, num_resamples) for column in sheet.columns}
            for title, pair in sheet.pairs.items()
        },
    }


def _entry(score: Score, truth: Units, runs: Units, num_resamples: int) -> Entry:
    return entry_of(score, truth, runs, draws_of(score, truth, runs, num_resamples))


def _difference(column: Column, truth: Units, pair: tuple[Units, Units], num_resamples: int) -> dict[str, Any]:
    try:
        found = scores.paired_bootstrap(column.score, truth, *pair, num=num_resamples)
    except ValueError as error:
        return {"undefined": str(error)}
    cell: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    if len(pair[0]) == len(pair[1]) > 1:
        runs = [[column.score(truth, run) for run in side] for side in pair]
        cell["wilcoxon_p"] = scores.wilcoxon_signed_rank(*runs)
    return cell


def _facts(numbers: Mapping[str, Any]) -> list[str]:
    clips = "recordings" if numbers["kind"] == "series" else "clips"
    lines = [
        f"{numbers['clips']} {clips}, {numbers['kind']}"
        + (f", split {numbers['split']}" if numbers["split"] else "")
        + (f", protocol {numbers['protocol']}: {numbers['note']}" if numbers["protocol"] else "")
        + f"; SHA-256 of the file `{numbers['sha256']}`",
        "",
        f"Accuracies and F1 in percent. In brackets: 95 % bootstrap interval over {clips}, "
        f"{numbers['num_resamples']} resamples; several runs of a system: their mean. Constants take their "
        "value (mean, median, majority) from the truth of these clips.",
    ]
    if numbers["against"]:
        lines += [
            "",
            f"Differences to {numbers['against']}: same {clips}, paired bootstrap, two-sided p; W: Wilcoxon's signed "
            "ranks over the runs, paired in their order.",
        ]
    return lines


def _tables(sheet: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Kind of table, and its rows as text."""
    tables = []
    for kind in ("systems", "differences"):
        rows = [
            (title, [_text(cells[name], column["percent"], kind) for name, column in sheet["columns"].items()])
            for title, cells in sheet[kind].items()
        ]
        tables += [(kind[:-1], rows)] if rows else []
    return tables


def _text(cell: Mapping[str, Any], percent: bool, kind: str) -> str:
    if "value" not in cell:
        return "undefined"
    form = ("+" if kind == "differences" else "") + (".1f" if percent else ".3f")
    value, *ends = (
        f"{(100 if percent else 1) * cell[name]:{form}}" for name in ("value", "low", "high") if name in cell
    )
    text = f"{value} [{', '.join(ends)}]" if ends else value
    text += f" p {cell['p']:.3f}" if "p" in cell else ""
    return text + (f" W {cell['wilcoxon_p']:.3f}" if "wilcoxon_p" in cell else "")


def _quoted(sheet: Mapping[str, Any]) -> list[str]:
    """Who prints what, and why a cell is missing."""
    lines = [f"{sheet['title']}: {sheet['quoted']}"] if sheet["quoted"] else []
    lines += [f"{name}: {column['quoted']}" for name, column in sheet["columns"].items() if column["quoted"]]
    for cells in (*sheet["systems"].values(), *sheet["differences"].values()):
        for name, cell in cells.items():
            said = f"{name}, where there is no {'interval' if 'value' in cell else 'value'}: {cell.get('undefined')}"
            if "undefined" in cell and said not in lines:
                lines.append(said)
    return lines


def _show(numbers: Mapping[str, Any], console: Console) -> None:
    console.print("\n".join(_facts(numbers)), markup=False)
    for sheet in numbers["sheets"]:
        for kind, rows in _tables(sheet):
            table = Table(title=sheet["title"], title_justify="left")
            table.add_column(kind)
            for name in sheet["columns"]:
                table.add_column(name, justify="right")
            for title, cells in rows:
                table.add_row(Text(title), *map(Text, cells))
            console.print(table)
        console.print("\n".join(_quoted(sheet)), markup=False, highlight=False)


def main(arguments: Sequence[str]) -> int:
    """The command; see the module."""
    if (status := configs.help_status(arguments, str(__doc__))) is not None:
        return status
    path, *overrides = arguments
    score(configs.load(ScoreConfig, {"predictions": path}, overrides))
    return 0


if __name__ == "__main__":
    configs.run_command(lambda: main(sys.argv[1:]))
