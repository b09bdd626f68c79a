"""Figures of an evaluation's report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from numpy.typing import NDArray


def bars(numbers: Mapping[str, Any], path: Path) -> None:
    """One bar a system for the protocol's metrics, with the bootstrap intervals.

    Args:
        numbers: `triptych.evaluation.results`.
        path: of the PNG.
    """
    systems, metrics = numbers["systems"], numbers["protocol"]["metrics"]
    figure = Figure(figsize=(7, 1.4 + 0.55 * len(systems)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(metrics)
    for position, name in enumerate(metrics):
        entries = [system["metrics"][name] for system in systems]
        values = np.array([entry["value"] for entry in entries])
        low, high = (np.array([entry[end] for entry in entries]) for end in ("low", "high"))
        places = np.arange(len(systems)) + (position - (len(metrics) - 1) / 2) * height
        errors = 100 * np.maximum([values - low, high - values], 0)
        axes.barh(places, 100 * values, height, xerr=errors, label=name, error_kw={"lw": 1})
    chance = 100 / len(numbers["protocol"]["classes"])
    axes.axvline(chance, color="grey", ls=":", lw=1, label="1 / number of classes")
    axes.set_yticks(np.arange(len(systems)), [f"{row['system']}\n{row['inputs']}" for row in systems], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="percent of test clips, 95 % intervals", title=numbers["title"])
    figure.legend(loc="outside lower center", ncols=len(metrics) + 1, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """Counts [C, C] as a shaded table; rows are the truth and are shaded by their own share."""
    size = 2.2 + 0.6 * len(classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=150)
