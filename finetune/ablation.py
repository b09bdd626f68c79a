"""Several fine-tunings that differ in a few settings, as the rows of one table; HELP is the command's."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from finetune.config import FinetuneConfig
from triptych import config as configs
from triptych.config import UserError, nearest

HELP = """usage: python -m finetune.ablation ROWS CONFIG [a.b=c ...]
       torchrun --standalone --nproc-per-node N -m finetune.ablation ROWS CONFIG [a.b=c ...]

What does each part of a system bring? One fine-tuning a row, without that part, and one report of all of them: every
row's scores with their intervals, bars, and the paired difference of one row, the whole system, to each other.

ROWS is a file, or the name of one of configs/ablation/: names of rows, and what is overridden in each:

    rows:
      audio: [inputs=audio]
      without the product: [head.sse_ft.fusion=concatenation]
      full: []
    against: full

CONFIG and the overrides are those of `python -m finetune`; a row's own come last. out=<folder> gets report.md,
results.json, figures/, and a folder for each row, which is what the fine-tuning leaves. The same command goes on with
what was interrupted; a row that is finished is not trained again, so that rows may be added later.
"""


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """A file of configs/ablation/."""

    rows: dict[str, list[str]] = field(default_factory=dict)
    """Name -> `a.b=c` overrides of the fine-tuning's config, in the order of the table."""
    against: str
    """The row whose difference to each other one is told, clip by clip."""

    def __post_init__(self) -> None:
        if self.against not in self.rows:
            raise ValueError(f"against: no row {self.against!r}.{nearest(self.against, self.rows)}")
        folders = [folder_of(name) for name in self.rows]
        if not all(folders) or len(set(folders)) < len(folders):
            raise ValueError(f"rows: two of them would have the same folder, or none: {', '.join(folders)}")


def folder_of(row: str) -> str:
    """Name of a row's folder: its letters and digits, and hyphens."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in row.lower()).split())


def plan(ablation: AblationConfig, source: Path, overrides: Sequence[str]) -> dict[str, FinetuneConfig]:
    """Row -> its fine-tuning.

    Args:
        ablation: the rows.
        source: of the fine-tuning's config.
        overrides: of all rows.

    Raises:
        UserError: a config that cannot be; names the row.
    """
    planned = {}
    for name, own in ablation.rows.items():
        try:
            config = configs.load(FinetuneConfig, source, [*overrides, *own])
        except UserError as error:
            raise UserError(f"row {name!r}: {error}") from None
        planned[name] = replace(config, out=str(Path(config.out) / folder_of(name)))
    return planned


def run(ablation: AblationConfig, source: Path, overrides: Sequence[str]) -> int:
    """Train every row that is not finished, and write the report.

    Returns:
        0, or triptych.trainer.EXIT_REQUEUE where a signal stopped it.

    Raises:
        UserError: as `plan` and finetune.train.run, or a finished row of another config.
    """
    from finetune import train
    from triptych.distributed import read_launch

    planned = plan(ablation, source, overrides)
    unfinished = {name: config for name, config in planned.items() if not _finished(config, train.MAY_CHANGE)}
    is_main = read_launch(os.environ).rank == 0
    for name, config in unfinished.items():
        if is_main:
            print(f"row {name}")
        if code := train.run(config):
            return code
    if is_main:
        write(ablation, planned)
    return 0


def write(ablation: AblationConfig, planned: Mapping[str, FinetuneConfig]) -> dict[str, Any]:
    """Write report.md, results.json and figures/ beside the rows' folders; print the table.

    Returns:
        The content of results.json.

    Raises:
        UserError: the rows scored different clips.
    """
    from triptych import evaluation, evaluation_report, figures

    folder = Path(planned[ablation.against].out).parent
    reports = [_named(name, evaluation.read(Path(config.out) / "results.json")) for name, config in planned.items()]
    numbers = evaluation.merge(reports)
    numbers["title"] = f"Ablation: {numbers['title']}"
    numbers["differences"] = _differences(ablation, planned, numbers)
    facts = [report["protocol"]["facts"] for report in reports]
    shared = {name: said for name, said in facts[0].items() if all(one.get(name) == said for one in facts)}
    rows = {f"row {name}": f"`{' '.join(own)}`" if own else "as in the config" for name, own in ablation.rows.items()}
    numbers["protocol"] = {**numbers["protocol"], "facts": {**shared, **rows}}
    (folder / "figures").mkdir(exist_ok=True)
    figures.bars(numbers, folder / "figures" / "bars.png")
    (folder / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    (folder / "report.md").write_text(evaluation_report.markdown(numbers, {"bars.png": "scores"}))
    evaluation_report.show(numbers)
    print(f"report: {folder}/report.md")
    return numbers


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if len(arguments) < 2 or {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0 if arguments else 2
    ablation = configs.load(AblationConfig, configs.find(arguments[0], "ablation"))
    return run(ablation, configs.find(arguments[1], "finetune"), arguments[2:])


def _finished(config: FinetuneConfig, may_change: Sequence[str]) -> bool:
    """Whether a row has its report.

    Raises:
        UserError: it has one of another config.
    """
    folder = Path(config.out)
    if not (folder / "report.md").exists():
        return False
    before, now = (yaml.safe_load(text) for text in ((folder / "config.yaml").read_text(), configs.dump(config)))
    changed = [key for key in now if key not in may_change and before.get(key) != now[key]]
    if changed:
        raise UserError(
            f"{folder}: is finished, with another {', '.join(changed)}; give another out, or remove that folder"
        )
    return True


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


def _differences(
    ablation: AblationConfig, planned: Mapping[str, FinetuneConfig], numbers: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Of the row `against` to each other one, for what was trained from the same weights."""
    from triptych import evaluation, predictions
    from triptych.evaluation import Split
    from triptych.protocols import registry

    config = planned[ablation.against]
    protocol = registry.find(config.protocol, tuple(config.classes))
    classes = protocol.classes if protocol.kind == "classes" else ()
    given = predictions.read(Path(config.out) / "predictions.csv", kind=protocol.kind, classes=classes)
    test = Split(keys=given.keys, truth=given.truth)
    systems, by_kind = {}, {}
    for name, one in planned.items():
        own = evaluation.systems_from(Path(one.out) / "predictions.csv", protocol, test)
        titles = _titles(name, {system.name: system.inputs for system in own})
        for system in own:
            if system.inputs != "-":
                title = f"{titles[system.name]} ({system.inputs})"
                systems[title] = system.predictions
                by_kind[name, system.name] = title
    compared = [
        (by_kind[ablation.against, kind], title)
        for (name, kind), title in by_kind.items()
        if name != ablation.against and (ablation.against, kind) in by_kind
    ]
    resamples = numbers["protocol"]["num_resamples"]
    return evaluation.differences(protocol, test.truth, systems, compared, resamples)


if __name__ == "__main__":
    configs.run_command(main)
