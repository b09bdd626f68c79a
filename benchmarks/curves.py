"""A figure of several runs over their optimizer steps, as one small picture.

    python benchmarks/curves.py OUT METRIC RUN [RUN ...] [label=TEXT ...]

OUT: a .svg or .png. METRIC: a key of metrics.jsonl, such as valid/recall_at_1/contrastive. Runs of one name but for
`-seed-N` at its end are one line, their mean, in a band from the lowest to the highest. Labels are those of the lines,
in the order of the runs; without them a line has its runs' name.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure  # not pyplot, which would look for a display

from triptych.config import UserError, nearest, run_command
from triptych.report import Run, read

INK = "#767676"
"""Of text and axes: 4.5 to 1 on white, 4.1 to 1 on GitHub's dark background; the picture itself has none."""
COLOURS = ("#2f81f7", "#d55e00", "#1a8a5a", "#b35fd0", "#8a7400", "#d6457f")
"""Each more than 3 to 1 on both."""
STYLES = ("-", "--", ":")
"""A round of colours each."""
SEED = re.compile(r"-seed-\d+$")


def curve(runs: Sequence[Run], metric: str) -> tuple[list[float], np.ndarray]:
    """Steps that all runs have, and [runs, steps] values.

    Raises:
        UserError: a run has no such figure, or they have no step in common.
    """
    rows: list[dict[float, float]] = []
    for run in runs:
        steps, values = run.curve(metric)
        if not steps:
            known = sorted({key for line in run.metrics for key in line})
            raise UserError(f"{run.folder}: has not logged {metric!r}.{nearest(metric, known)}")
        rows.append(dict(zip(steps, values, strict=True)))
    common = sorted(set.intersection(*(set(row) for row in rows)))
    if not common:
        raise UserError(f"{', '.join(str(run.folder) for run in runs)}: no step at which all have {metric!r}")
    return common, np.array([[row[step] for step in common] for row in rows])


def draw(lines: Mapping[str, Sequence[Run]], metric: str, out: Path) -> None:
    """Write the picture.

    Args:
        lines: label -> runs that differ in their seed.
        metric: key of metrics.jsonl.
        out: .svg or .png.

    Raises:
        UserError: as `curve`.
    """
    settings = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "curves", "font.size": 9}  # equal data give an equal file
    with matplotlib.rc_context(settings | fixed):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (label, runs) in enumerate(lines.items()):
            steps, values = curve(runs, metric)
            colour = COLOURS[number % len(COLOURS)]
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            axes.plot(steps, values.mean(axis=0), style, color=colour, label=label, lw=1.8, marker=".", ms=5)
            if len(runs) > 1:
                axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25, lw=0)
        axes.set(xlabel="optimizer step", ylabel=metric)
        axes.grid(color=INK, alpha=0.3, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        metadata = {"Date": None} if out.suffix == ".svg" else None
        figure.savefig(out, transparent=True, dpi=110, metadata=metadata)


def main(arguments: Sequence[str]) -> int:
    """The command; see the module."""
    labels = [argument.removeprefix("label=") for argument in arguments if argument.startswith("label=")]
    given = [argument for argument in arguments if not argument.startswith("label=")]
    if len(given) < 3:
        print(__doc__)
        return 2
    out, metric = Path(given[0]), given[1]
    if out.suffix not in (".svg", ".png"):
        raise UserError(f"{out}: a .svg or a .png is written")
    groups: dict[str, list[Run]] = {}
    for folder in map(Path, given[2:]):
        groups.setdefault(SEED.sub("", folder.name), []).append(read(folder))
    if labels and len(labels) != len(groups):
        raise UserError(f"{len(labels)} labels for {len(groups)} lines: {', '.join(groups)}")
    draw(dict(zip(labels or groups, groups.values(), strict=True)), metric, out)
    print(f"{out}: {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
