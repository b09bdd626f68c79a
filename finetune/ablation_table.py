"""The rows of an ablation side by side: one report, and one file of predictions, out of those of every row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.ablation import AblationConfig
from finetune.config import FinetuneConfig
from triptych.evaluation import figures, predictions, results, tables
from triptych.evaluation.predictions import Predictions
from triptych.evaluation.results import Split, System
from triptych.protocols import registry
from triptych.protocols.protocol import Protocol


def write(ablation: AblationConfig, planned: Mapping[str, FinetuneConfig]) -> dict[str, Any]:
    """Write report.md, results.json, predictions.csv and figures/ beside the rows' folders; print the table.

    Returns:
        The content of results.json.

    Raises:
        UserError: the rows scored different clips.
    """
    folder = Path(planned[ablation.against].out).parent
    reports = [_named(name, results.read(Path(config.out) / "results.json")) for name, config in planned.items()]
    numbers = results.merge(reports)
    numbers["title"] = f"Ablation: {numbers['title']}"
    answers = _Answers.of(ablation, planned)
    numbers["differences"] = answers.differences(ablation.against, numbers["protocol"]["num_resamples"])
    facts = [report["protocol"]["facts"] for report in reports]
    shared = {name: said for name, said in facts[0].items() if all(one.get(name) == said for one in facts)}
    rows = {f"row {name}": f"`{' '.join(own)}`" if own else "as in the config" for name, own in ablation.rows.items()}
    numbers["protocol"] = {**numbers["protocol"], "facts": {**shared, **rows}}
    (folder / "figures").mkdir(exist_ok=True)
    figures.bars(numbers, folder / "figures" / "bars.png")
    (folder / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    answers.write(folder / "predictions.csv")
    (folder / "report.md").write_text(tables.markdown(numbers, {"bars.png": "scores"}))
    tables.show(numbers)
    print(f"report: {folder}/report.md")
    return numbers


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """What the rows say of the same clips."""

    protocol: Protocol
    given: Predictions
    """Of the row `against`, for the clips and their truth."""
    rows: Mapping[tuple[str, str], System]
    """Row and name in its own report -> the system by its title in the table; without constants."""

    @classmethod
    def of(cls, ablation: AblationConfig, planned: Mapping[str, FinetuneConfig]) -> "_Answers":
        """Read the rows' predictions.csv."""
        config = planned[ablation.against]
        protocol = registry.find(config.protocol, tuple(config.classes))
        classes = protocol.classes if protocol.kind == "classes" else ()
        given = predictions.read(Path(config.out) / "predictions.csv", kind=protocol.kind, classes=classes)
        rows = {}
        for name, one in planned.items():
            test = Split(keys=given.keys, truth=given.truth)
            own = results.systems_from(Path(one.out) / "predictions.csv", protocol, test)
            titles = _titles(name, {system.name: system.inputs for system in own})
            for system in own:
                if system.inputs != "-":
                    rows[name, system.name] = replace(system, name=titles[system.name])
        return cls(protocol=protocol, given=given, rows=rows)

    def write(self, path: Path) -> None:
        """One file of all rows by their names, for another table of these clips."""
        systems = {system.title: system for system in self.rows.values()}
        told = {title: system.predictions for title, system in systems.items()}
        inputs = {title: system.inputs for title, system in systems.items()}
        predictions.write(path, replace(self.given, systems=told, inputs=inputs))

    def differences(self, against: str, num_resamples: int) -> list[dict[str, Any]]:
        """Of the row `against` to each other one, for what was trained from the same weights."""
        compared = [
            (self.rows[against, kind].title, system.title)
            for (name, kind), system in self.rows.items()
            if name != against and (against, kind) in self.rows
        ]
        systems = {system.title: system.predictions for system in self.rows.values()}
        return results.differences(self.protocol, self.given.truth, systems, compared, num_resamples)


def _titles(row: str, systems: Mapping[str, str]) -> dict[str, str]:
    """System of a row's report -> its name in the table; constants keep theirs.

    Args:
        row: its name.
        systems: system -> its inputs, "-" of a constant.
    """
    trained = [name for name, inputs in systems.items() if inputs != "-"]
    return {name: name if name not in trained else row if len(trained) == 1 else f"{row}, {name}" for name in systems}


def _named(row: str, report: dict[str, Any]) -> dict[str, Any]:
    """A row's report with the row's name on what was trained there."""
    names = _titles(row, {one["system"]: one["inputs"] for one in report["systems"]})
    systems = [{**one, "system": names[one["system"]]} for one in report["systems"]]
    return {**report, "systems": systems, "differences": []}
