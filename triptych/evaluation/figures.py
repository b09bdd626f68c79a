"""Figures of an evaluation's report: one PNG each, readable in grey and by the colour-blind.

Legend: S runs of a system, N clips or recordings, C classes, E targets, T steps, D features.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from numpy.typing import NDArray

from triptych.evaluation.class_scores import confusion
from triptych.evaluation.number_scores import concordance_correlation, correlation
from triptych.evaluation.predictions import Predictions

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#999999")
"""Okabe and Ito's, which the colour-blind tell apart; in place of their yellow, which white paper swallows, and their
black, which hides intervals, a dark red and a grey."""
MARKERS = "osD^vPX*"
MAX_RECORDINGS = 3
MAX_POINTS = 2000
"""Of an embedding: t-SNE of more takes minutes and covers itself."""


def draw(numbers: Mapping[str, Any], given: Predictions, titles: Sequence[str], folder: Path) -> dict[str, str]:
    """Every figure of a report, by its kind.

    Args:
        numbers: `triptych.evaluation.results`.
        given: what all systems said.
        titles: of the systems that are drawn clip by clip; the first where there is room for one.
        folder: of the files.

    Returns:
        File -> what it shows.
    """
    bars(numbers, folder / "bars.png")
    pictures = {"bars.png": "scores"}
    first = given.systems[titles[0]]
    if given.kind == "classes":
        panels = {title: _summed(given.truth, given.systems[title], len(given.names)) for title in titles}
        confusions(panels, given.names, _of_runs(first), folder / "confusion.png")
        pictures["confusion.png"] = "confusion"
    elif given.kind == "emotions":
        panels = {
            name: _summed(given.truth[:, index].astype(np.int64), first[:, :, index], 2)
            for index, name in enumerate(given.names)
        }
        title = "; ".join(filter(None, (titles[0], _of_runs(first))))
        confusions(panels, ("absent", "present"), title, folder / "confusion.png")
        pictures["confusion.png"] = "confusion"
    elif given.kind == "sentiment":
        scatter(given.truth, {title: given.systems[title][0] for title in titles}, folder / "scatter.png")
        pictures["scatter.png"] = "truth and prediction"
    else:
        series(given, titles[0], folder / "series.png")
        pictures["series.png"] = "truth and prediction over time"
    if (metric := _with_targets(numbers)) is not None:
        by_target(numbers, metric, titles, folder / "by_target.png")
        pictures["by_target.png"] = f"{metric}, one by one"
    return pictures


def bars(numbers: Mapping[str, Any], path: Path) -> None:
    """One bar a system for the protocol's metrics, with the bootstrap intervals; a panel for all that is percent, and
    one for each other.

    Args:
        numbers: `triptych.evaluation.results`.
        path: of the PNG.
    """
    systems, block = numbers["systems"], numbers["protocol"]
    percent = [name for name in block["metrics"] if name in block["percent"]]
    panels = [*([percent] if percent else []), *([name] for name in block["metrics"] if name not in percent)]
    widths = [5.0 if panel == percent else 3.0 for panel in panels]
    size = (2 + sum(widths), 1.6 + 0.3 * len(systems) * max(1.8, 0.6 * len(percent)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths, sharey=True)[0]
    for panel, axis in zip(panels, axes, strict=True):
        scale = 100 if panel == percent else 1
        height = 0.8 / len(panel)
        for position, name in enumerate(panel):
            entries = [system["metrics"][name] for system in systems]
            places = np.arange(len(systems)) + (position - (len(panel) - 1) / 2) * height
            values, errors = _values(entries, scale)
            color = COLORS[position % len(COLORS)]
            axis.barh(places, values, height, xerr=errors, color=color, label=name, error_kw={"lw": 1})
        if panel == percent:
            if block["classes"]:
                axis.axvline(100 / len(block["classes"]), color="black", ls=":", lw=1, label="1 / number of classes")
            axis.set(xlim=(0, 100), xlabel="percent")
        else:
            axis.set(xlabel=panel[0])
            axis.margins(x=0.1)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(np.arange(len(systems)), [f"{row['system']}\n{row['inputs']}" for row in systems], fontsize=8)
    axes[0].set_ylim(len(systems) - 0.4, -0.6)
    figure.suptitle(f"{numbers['title']}; 95 % intervals", fontsize=10)
    if percent:
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _with_targets(numbers: Mapping[str, Any]) -> str | None:
    """The metric that is told one by one: the selecting one, if it is."""
    block, (first, *_) = numbers["protocol"], numbers["systems"]
    names = [block["select"], *block["metrics"]]
    return next((name for name in names if "targets" in first["metrics"].get(name, {})), None)


def by_target(numbers: Mapping[str, Any], metric: str, titles: Sequence[str], path: Path) -> None:
    """A metric of each target (of classes: the recall of each) and their mean, with intervals; a colour a system: the
    constants, then the given ones, then others of the table, as many as there are colours.

    Args:
        numbers: `triptych.evaluation.results`.
        metric: one that has targets.
        titles: of the systems that must be there.
        path: of the PNG.
    """
    percent = metric in numbers["protocol"]["percent"]
    rows = {f"{row['system']} ({row['inputs']})": row for row in numbers["systems"]}
    constants = [title for title, row in rows.items() if row["inputs"] == "-"]
    chosen = list(dict.fromkeys([*constants, *titles, *rows]))[: len(COLORS)]
    targets = list(next(iter(rows.values()))["metrics"][metric].get("targets", {}))
    names = [*targets, "average"]
    figure = Figure(figsize=(max(7, 1.2 * len(names)), 3.6 + 0.2 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(chosen)
    for position, title in enumerate(sorted(chosen, key=list(rows).index)):
        entry = rows[title]["metrics"][metric]
        values, errors = _values([*entry["targets"].values(), entry], 100 if percent else 1)
        places = np.arange(len(names)) + (position - (len(chosen) - 1) / 2) * width
        axes.bar(places, values, width, yerr=errors, color=COLORS[position], label=title, error_kw={"lw": 1})
    axes.set_xticks(range(len(names)), names)
    axes.axvline(len(targets) - 0.5, color="grey", lw=0.8)
    axes.set(ylabel=f"{metric}, percent" if percent else metric, xlim=(-0.5, len(names) - 0.5))
    axes.set_title(f"{metric}, 95 % intervals; {len(chosen)} of {len(rows)} systems", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def confusions(matrices: Mapping[str, NDArray[np.int64]], classes: Sequence[str], title: str, path: Path) -> None:
    """Counts [C, C] as shaded tables, one panel each; rows are the truth and are shaded by their own share.

    Args:
        matrices: what the panel shows, as the modalities that a system saw -> counts.
        classes: C names.
        title: of the whole.
        path: of the PNG.
    """
    longest = max(map(len, classes))
    width = max(1.2 + 0.07 * longest + 0.5 * len(classes), 0.085 * max(map(len, matrices)))
    height = 1.1 + 0.06 * longest + 0.5 * len(classes)
    figure, panels = _panels(len(matrices), width, height)
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*matrix.shape):
            color = "white" if shares[row, column] > 0.6 else "black"
            size = 9 if matrix.max() < 10_000 else 7
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=size)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(classes)), classes, fontsize=8)
        axes.set_xlabel("prediction", fontsize=8)
        axes.set_ylabel("truth", fontsize=8)
        axes.set_title(name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def scatter(truth: NDArray[np.float64], runs: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Predicted against true numbers, one panel a system.

    Args:
        truth: [N]
        runs: title -> one run [N].
        path: of the PNG.
    """
    figure, panels = _panels(len(runs), 3.6, 3.9)
    values = np.concatenate([truth, *runs.values()])
    low, high = values.min() - 0.2, values.max() + 0.2
    for axes, (title, run) in zip(panels, runs.items(), strict=True):
        axes.axline((low, low), slope=1, color="black", lw=0.8, ls=":")
        axes.axhline(0, color="grey", lw=0.5)
        axes.axvline(0, color="grey", lw=0.5)
        axes.scatter(truth, run, s=8, alpha=0.4, color=COLORS[0], linewidths=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="truth", ylabel="prediction")
        axes.set_title(f"{title}\nr = {correlation(truth, run):.3f}", fontsize=9)
    figure.savefig(path, dpi=150)


def series(given: Predictions, title: str, path: Path) -> None:
    """Truth and prediction over time of the first run, for recordings spread over the list, a column a target.

    Args:
        given: of series.
        title: of the system.
        path: of the PNG.
    """
    last = len(given.keys) - 1
    shown = list(dict.fromkeys(round(last * part / (MAX_RECORDINGS - 1)) for part in range(MAX_RECORDINGS)))
    size = (1 + 4 * len(given.names), 0.8 + 2.1 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(shown), len(given.names), squeeze=False)
    for row, recording in zip(panels, shown, strict=True):
        truth, said = given.truth[recording], given.systems[title][0, recording]
        for target, axes in enumerate(row):
            axes.plot(truth[:, target], color="black", lw=1.5, label="truth")
            axes.plot(said[:, target], color=COLORS[5], lw=1, label="prediction")
            ccc = concordance_correlation(truth[:, target], said[:, target])
            axes.set_title(f"{given.keys[recording]}, {given.names[target]}: CCC {ccc:.3f}", fontsize=8)
            axes.set_xlabel("step", fontsize=8)
            axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def learning_curve(
    lines: Mapping[str, Mapping[float, Mapping[str, Any]]], metric: str, percent: bool, path: Path
) -> None:
    """A score over the share of training clips that are labelled: mean and interval, one line a system.

    Args:
        lines: title -> share in (0, 1] -> entry of results.json (value, low, high).
        metric: its name.
        percent: whether it is printed as such.
        path: of the PNG.
    """
    figure = Figure(figsize=(6.5, 4.2 + 0.2 * math.ceil(len(lines) / 2)), layout="constrained")
    axes = figure.subplots()
    for position, (title, points) in enumerate(lines.items()):
        shares = sorted(points)
        values, errors = _values([points[share] for share in shares], 100 if percent else 1)
        color, marker = COLORS[position % len(COLORS)], MARKERS[position % len(MARKERS)]
        places = np.array(shares) * 1.015 ** (position - (len(lines) - 1) / 2)  # so that intervals do not hide others
        axes.errorbar(places, values, errors, color=color, marker=marker, ms=5, lw=1.5, capsize=2, label=title)
    shares = sorted({share for points in lines.values() for share in points})
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
    axes.minorticks_off()
    axes.set(xlabel="labelled share of the training clips", ylabel=f"{metric}, percent" if percent else metric)
    axes.set_title(f"{metric} on test, 95 % intervals", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def embedding(features: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Features in two dimensions, coloured by class: 50 principal components, then t-SNE, with a fixed seed.

    Neighbours mean something there, distances between groups do not. Of many clips a part is drawn.

    Args:
        features: [N, D], N of 5 or more; standardise them before.
        labels: [N] index of `names`; others (UNLABELLED) are left out.
        names: C classes.
        path: of the PNG.
    """
    from sklearn.decomposition import PCA  # slow to import
    from sklearn.manifold import TSNE

    known = np.flatnonzero((labels >= 0) & (labels < len(names)))
    if len(known) > MAX_POINTS:
        known = np.random.default_rng(0).permutation(known)[:MAX_POINTS]
    rows, classes = features[known], labels[known]
    reduced = PCA(min(50, *rows.shape), random_state=0).fit_transform(rows)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes: Axes = figure.subplots()
    for index, name in enumerate(names):
        own = places[classes == index]
        color = COLORS[index % len(COLORS)]
        marker = MARKERS[(index + index // len(COLORS)) % len(MARKERS)]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=18,
            alpha=0.75,
            color=color,
            marker=marker,
            linewidths=0,
            label=f"{name} ({len(own)})",
        )
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"t-SNE of {len(known)} of {len(labels)} clips", fontsize=10)
    figure.legend(loc="outside right center", fontsize=8, frameon=False, markerscale=1.5)
    figure.savefig(path, dpi=150)


def _panels(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """That many panels in rows of three at most, each of this size in inches."""
    columns = min(number, 3)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[number:]:
        axes.remove()
    return figure, panels[:number]


def _of_runs(runs: NDArray[np.int64]) -> str:
    return f"{len(runs)} runs added up" if len(runs) > 1 else ""


def _summed(truth: NDArray[np.int64], runs: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Confusions of S runs [S, N] together."""
    return np.sum([confusion(truth, run, num_classes) for run in runs], axis=0)


def _values(entries: Sequence[Mapping[str, Any]], scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values, NaN where undefined, and how far their intervals reach, [2, len]."""
    values = np.array([entry.get("value", math.nan) for entry in entries])
    low, high = (
        np.array([entry.get(end, entry.get("value", math.nan)) for entry in entries]) for end in ("low", "high")
    )
    return scale * values, scale * np.maximum([values - low, high - values], 0)
