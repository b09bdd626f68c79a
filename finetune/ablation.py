"""Several fine-tunings that differ in a few settings, as the rows of one table; HELP is the command's."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from finetune.config import FinetuneConfig
from triptych import config as configs
from triptych.config import UserError, nearest

HELP = """usage: python -m finetune.ablation ROWS CONFIG [a.b=c ...]
       torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node N -m finetune.ablation ROWS CONFIG [a.b=c ...]

What does each part of a system bring? One fine-tuning a row, without that part, and one report of all of them: every
row's scores with their intervals, bars, and the paired difference of one row, the whole system, to each other.

ROWS is a file, or the name of one of configs/ablation/: names of rows, and what is overridden in each:

    rows:
      audio: [inputs=audio]
      without the product: [head.sse_ft.fusion=concatenation]
      full: []
    against: full

CONFIG and the overrides are those of `python -m finetune`; a row's own come last. out=<folder> gets report.md,
results.json, predictions.csv, figures/, and a folder for each row, which is what the fine-tuning leaves. The same
command goes on with what was interrupted; a row that is finished is not trained again, so that rows may be added later.
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
        0, or triptych.training.trainer.EXIT_REQUEUE where a signal stopped it.

    Raises:
        UserError: as `plan` and finetune.train.run, or a finished row of another config.
    """
    from finetune import ablation_table, train
    from triptych.training.distributed import read_launch

    planned = plan(ablation, source, overrides)
    unfinished = {name: config for name, config in planned.items() if not _finished(config, train.MAY_CHANGE)}
    is_main = read_launch(os.environ).rank == 0
    for name, config in unfinished.items():
        if is_main:
            print(f"row {name}")
        if code := train.run(config):
            return code
    if is_main:
        ablation_table.write(ablation, planned)
    return 0


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP, least=2)) is not None:
        return status
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


if __name__ == "__main__":
    configs.run_command(main)
