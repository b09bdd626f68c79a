"""The distribution of each label as a picture: a row a label, a column a split. No torch."""

from collections import Counter
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would look for a display

from shards.counts.label_counts import Distribution
from shards.counts.summary import Tally
from shards.pictures.label_tables import (
    bin_edges,
    binned,
    bounds,
    class_labels,
    classes_of,
    form_has_steps,
    number_labels,
)

MAX_CLASSES = 24
MAX_VALUES = 60
"""A number with more different values is drawn in bins: thirds of a point, as annotators' means are, would make a comb
of any bins that are finer than a point."""
MAX_BINS = 50
COLOR, MEAN = "#3b75af", "#c0392b"


def label_figure(tallies: Mapping[str, Tally]) -> Figure | None:
    """Shares of the classes, or of the values, in each split; None where no clip has a label.

    Args:
        tallies: split -> counts.
    """
    classes, numbers = class_labels(tallies), number_labels(tallies)
    rows = [*classes, *numbers]
    if not rows:
        return None
    heights = [0.9 + 0.24 * min(len(classes_of(name, tallies)), MAX_CLASSES + 1) for name in classes]
    heights += [2.1] * len(numbers)
    figure = Figure(figsize=(2 + 4 * len(tallies), sum(heights)), dpi=100, layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for name, part in zip(rows, parts, strict=True):
        part.supylabel(name, fontsize=11, fontweight="bold")
        axes = part.subplots(1, len(tallies), sharex=True, sharey=True, squeeze=False)[0]
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
        if name in classes:
            _draw_classes(axes, name, tallies)
        else:
            _draw_numbers(axes, name, tallies)
    return figure


def _draw_classes(axes: list[Axes], name: str, tallies: Mapping[str, Tally]) -> None:
    every = classes_of(name, tallies)
    shown = every[:MAX_CLASSES]
    names = [*shown, f"{len(every) - len(shown)} more"] if len(every) > len(shown) else shown
    for axis, (split, tally) in zip(axes, tallies.items(), strict=True):
        counts = tally.labels.classes.get(name, Counter[str]())
        heights = [counts[value] for value in shown]
        if len(names) > len(shown):
            heights.append(counts.total() - sum(heights))
        shares = [100 * count / max(1, counts.total()) for count in heights]
        axis.barh(range(len(names)), shares, 0.75, color=COLOR)
        for place, (share, count) in enumerate(zip(shares, heights, strict=True)):
            axis.text(share, place, f" {count:,}", va="center", fontsize=8, color="0.3")
        axis.set_title(f"{split}: {counts.total():,} of {tally.clips:,} clips", fontsize=9)
        axis.set_xlabel("percent of labelled clips", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.12)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)


def _draw_numbers(axes: list[Axes], name: str, tallies: Mapping[str, Tally]) -> None:
    found = {split: tally.labels.numbers[name] for split, tally in tallies.items() if name in tally.labels.numbers}
    values = sorted({value for one in found.values() for value in one.histogram})
    edges = bin_edges(*bounds(found), MAX_BINS)
    steps, highest = form_has_steps(found), 0.0
    for axis, (split, tally) in zip(axes, tallies.items(), strict=True):
        one = found.get(split, Distribution())
        title = f"{split}: {one.clips:,} of {tally.clips:,} clips" + (f", {one.values:,} steps" if steps else "")
        if one.values:
            if len(values) <= MAX_VALUES:
                heights = [100 * one.histogram[value] / one.values for value in values]
                axis.vlines(values, 0, heights, color=COLOR, linewidth=3)
            else:
                heights = [100 * count / one.values for count in binned(one, edges)]
                axis.bar(edges[:-1], heights, edges[1] - edges[0], align="edge", color=COLOR)
            highest = max(highest, *heights)
            axis.axvline(one.mean, color=MEAN, linewidth=1, linestyle="--")
            title += f"\nmean {one.mean:.3f}, sd {one.deviation:.3f}"
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0].set_ylim(0, 1.05 * highest)
    margin = 0.03 * (edges[-1] - edges[0])
    axes[0].set_xlim(edges[0] - margin, edges[-1] + margin)
    axes[0].set_ylabel(f"percent of {'steps' if steps else 'clips'}", fontsize=8)
