"""Runs side by side, as one report to read, to paste and to check.

    python -m triptych.report FOLDER [FOLDER ...] [out=FOLDER] [title=TEXT]

A folder is a pretraining run or the report of a probe or a fine-tuning; each kind gets its table.

Pretraining runs whose configs differ in nothing but the seed and the name are seeds of one row: mean and 95 % interval
over them (Student's t), and the difference to the first row, seed by seed. Figures are those of the test split, which
a run reads once at its end (`evaluation.test: true`); where a run has none, its last ones on the validation split, and
the row says so. Evaluations of the same clips share one table.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from triptych.config import UserError, help_status, run_command
from triptych.evaluation import results, tables
from triptych.evaluation.markdown import table
from triptych.evaluation.scores import mean_interval
from triptych.training.run import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SEED_KEYS = ("name", "seed", "runs")


@dataclass(frozen=True)
class Run:
    """What a finished run left in its folder."""

    folder: Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    test: Mapping[str, float] | None

    @property
    def family(self) -> str:
        """The config without what may differ between seeds, as text."""
        return json.dumps({key: value for key, value in self.config.items() if key not in SEED_KEYS}, sort_keys=True)

    @property
    def split(self) -> str:
        """Where `figures` were measured."""
        return "valid" if self.test is None else "test"

    @property
    def figures(self) -> Mapping[str, float]:
        """Test figures, else the last ones on the validation split."""
        if self.test is not None:
            return self.test
        last: dict[str, float] = {}
        for line in self.metrics:
            last.update({key.removeprefix("valid/"): value for key, value in line.items() if key.startswith("valid/")})
        return last

    @property
    def train_s(self) -> float:
        """Seconds of all optimizer steps, from the mean of those that were logged."""
        times = self.curve("time_s")[1]
        return float(np.mean(times)) * self.metrics[-1]["step"]

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of a logged key."""
        rows = [(line["step"], line[key]) for line in self.metrics if key in line]
        return [step for step, _ in rows], [value for _, value in rows]


def read(folder: Path) -> Run:
    """A run's config, metrics and test figures.

    Raises:
        UserError: the folder is no run, or one that has logged nothing.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        lines = read_metrics(folder / "metrics.jsonl")
    except OSError as error:
        raise UserError(
            f"{folder}: no run here ({Path(str(error.filename)).name} is missing); give runs/<name>"
        ) from None
    if not isinstance(config, dict) or "seed" not in config:
        raise UserError(f"{folder}: no pretraining run (its config has no seed); of a fine-tuning give the out folder")
    if not any("time_s" in line for line in lines):
        raise UserError(f"{folder}: the run has logged no step yet")
    test = folder / "test.json"
    return Run(folder, config, lines, json.loads(test.read_text()) if test.exists() else None)


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """All numbers of the report as plain JSON types; a row a family of runs, in the order given.

    Raises:
        UserError: two runs of a family have the same seed, which would count one result twice.
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(run.family, []).append(run)
    rows = []
    for family in families.values():
        seeds = [run.config["seed"] for run in family]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"seed given twice: {', '.join(str(run.folder) for run in family)}")
        names = [name for name in family[0].figures if "/" in name and all(name in run.figures for run in family)]
        rows.append(
            {
                "row": _common_name([run.folder.name for run in family]),
                "seeds": seeds,
                "split": ", ".join(sorted({run.split for run in family})),
                "figures": {name: _spread([run.figures[name] for run in family]) for name in names},
                "steps": family[0].metrics[-1]["step"],
                "train_s": [run.train_s for run in family],
            }
        )
    return {"rows": rows, "differences": [_difference(row, rows[0]) for row in rows[1:]]}


def markdown(numbers: Mapping[str, Any]) -> list[str]:
    """Lines of `compare`'s tables."""
    names = list(dict.fromkeys(name for row in numbers["rows"] for name in row["figures"]))
    rows = []
    for row in numbers["rows"]:
        cells = [_cell(row["figures"].get(name)) for name in names]
        seconds = f"{np.mean(row['train_s']):.0f}"
        rows.append([row["row"], str(len(row["seeds"])), row["split"], *cells, str(row["steps"]), seconds])
    lines = table(["run", "seeds", "split", *names, "steps", "seconds a run"], "lrl" + "r" * (len(names) + 2), rows)
    lines += ["", "Mean over seeds [95 % interval of the mean, Student's t]. Losses in nats.", ""]
    if numbers["differences"]:
        lines += [f"Difference to {numbers['rows'][0]['row']}, seed by seed:", ""]
        rows = [
            [row["row"], *(_cell(row["figures"].get(name), "+") for name in names)] for row in numbers["differences"]
        ]
        lines += [*table(["run", *names], "l" + "r" * len(names), rows), ""]
    return lines


def draw(runs: Sequence[Run], path: Path) -> None:
    """Validation curves of every loss, one line a run, one colour a family."""
    keys = sorted({key for run in runs for line in run.metrics for key in line if key.startswith("valid/loss/")})
    families = list(dict.fromkeys(run.family for run in runs))
    figure, axes = plt.subplots(1, max(1, len(keys)), figsize=(6 * max(1, len(keys)), 4), squeeze=False)
    for axis, key in zip(axes[0], keys, strict=False):
        for family in families:
            members = [run for run in runs if run.family == family]
            label = _common_name([run.folder.name for run in members])
            for index, run in enumerate(members):
                axis.plot(*run.curve(key), color=f"C{families.index(family)}", label=label if index == 0 else None)
        axis.set(xlabel="optimizer step", ylabel=f"{key.removeprefix('valid/loss/')}, nats", title="validation loss")
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """The command; see the module."""
    if (status := help_status(arguments, str(__doc__))) is not None:
        return status
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if unknown := set(options) - {"out", "title"}:
        raise UserError(f"no option {', '.join(sorted(unknown))}; there are out=FOLDER and title=TEXT")
    folders = [Path(argument) for argument in arguments if "=" not in argument]
    if not folders:
        raise UserError("give at least one folder of a run or an evaluation")
    if again := sorted({str(folder) for folder in folders if folders.count(folder) > 1}):
        raise UserError(f"given twice: {', '.join(again)}")
    evaluations = [folder for folder in folders if (folder / "results.json").is_file()]
    write(
        [read(folder) for folder in folders if folder not in evaluations],
        [results.read(folder / "results.json") for folder in evaluations],
        Path(options.get("out", "runs/report")),
        options.get("title", "Report"),
    )
    return 0


def write(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]], out: Path, title: str) -> None:
    """Write report.md, results.json and curves.png, and print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {"title": title}
    parts = [f"# {title}", ""]
    if runs:
        numbers["pretraining"] = compare(runs)
        parts += ["## Pretraining", "", *markdown(numbers["pretraining"]), "![validation loss](curves.png)", ""]
        draw(runs, out / "curves.png")
        _show(numbers["pretraining"])
    if evaluations:
        numbers["evaluation"] = results.merge(evaluations)
        parts += ["## Evaluation", "", *tables.table(numbers["evaluation"])]
        parts += tables.differences(numbers["evaluation"])
        parts += tables.details(numbers["evaluation"])
        tables.show(numbers["evaluation"])
    (out / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (out / "report.md").write_text("\n".join(parts) + "\n")
    print(f"written to {out}/report.md")


def _spread(values: Sequence[float]) -> dict[str, Any]:
    if len(values) < 2:
        return {"value": values[0], "runs": list(values)}
    mean, low, high = mean_interval(values)
    return {"value": mean, "low": low, "high": high, "runs": list(values)}


def _difference(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Per figure: this row minus the first, over the seeds that both have."""
    seeds = [seed for seed in row["seeds"] if seed in first["seeds"]]
    figures = {}
    for name in row["figures"]:
        if name in first["figures"] and seeds:
            pairs = [
                row["figures"][name]["runs"][row["seeds"].index(seed)]
                - first["figures"][name]["runs"][first["seeds"].index(seed)]
                for seed in seeds
            ]
            figures[name] = _spread(pairs)
    return {"row": row["row"], "figures": figures}


def _common_name(names: Sequence[str]) -> str:
    """What the names of a family's runs begin with, less the mark of the seed."""
    if len(names) == 1:
        return names[0]
    prefix = names[0]
    for name in names[1:]:
        while not name.startswith(prefix):
            prefix = prefix[:-1]
    return prefix.rstrip("-_.") or names[0]


def _cell(figure: Mapping[str, Any] | None, sign: str = "") -> str:
    if figure is None:
        return "–"
    text = f"{figure['value']:{sign}.3f}"
    return f"{text} [{figure['low']:{sign}.3f}, {figure['high']:{sign}.3f}]" if "low" in figure else text


def _show(numbers: Mapping[str, Any]) -> None:
    names = list(dict.fromkeys(name for row in numbers["rows"] for name in row["figures"]))
    table = Table("run", "seeds", "split", *names, title="Pretraining")
    for row in numbers["rows"]:
        table.add_row(
            row["row"], str(len(row["seeds"])), row["split"], *[_cell(row["figures"].get(name)) for name in names]
        )
    Console().print(table)


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
