"""Attention of one clip as a picture: what is seen, heard and said over seconds, and who attends to what. No torch.

Legend: H heads, T steps of the queries, S of the keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from shards.contact_sheet import DRAW, HEIGHTS, Clip

WIDTH, AXIS, NAME, ROW = 12.0, 0.5, 0.35, 0.2
"""Inches: of a picture, of the ticks under it, of a panel's title, and of a word."""
MAX_ROWS = 60
COLUMNS = 4
SQUARE, CURVES, WORDS = 2.6, 1.5, 0.45
COLOR = "Blues"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SPOKEN = {"text": "words", "audio": "sound", "video": "picture"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """The queries or the keys of an attention."""

    modality: str
    times: NDArray[np.float64]
    """[T, 2] seconds, start and end; NaN of a step that stands for the whole sequence (a CLS)."""

    @property
    def is_cls(self) -> bool:
        """Whether it is one step that stands for the whole sequence."""
        return len(self.times) == 1 and bool(np.isnan(self.times).all())


@dataclass(frozen=True, kw_only=True)
class Map:
    """What one layer of a stack attends to in one clip."""

    stack: str
    layer: int
    """The first is 1."""
    num_layers: int
    queries: Side
    keys: Side
    weights: NDArray[np.float64]
    """[H, T, S]; rows sum to 1."""

    @property
    def same_time(self) -> tuple[NDArray[np.float64], float] | None:
        """Weight that a query gives the keys of its own time, and the share of the keys that those are.

        Returns:
            [H], mean over the queries that share some time with a key and not with all; and what even attention would
            give. None where there is no such query: of a CLS, or of words without sound.
        """
        starts, ends = np.maximum.outer(*_edges(self, 0)), np.minimum.outer(*_edges(self, 1))
        together = starts < ends  # no NaN is
        asked = together.any(axis=1) & ~together.all(axis=1)
        if not asked.any():
            return None
        own = (self.weights * together).sum(axis=-1)[:, asked]
        return own.mean(axis=1), float(together[asked].mean())


def attention_figure(clip: Clip, maps: Sequence[Map], told: str = "") -> Figure:
    """The mean over the heads of each map, under what is seen, heard and said.

    Rows are words, and what they attend to lies on the axis in seconds; where frames or sound attend to words, each
    moment's weights are one above the other in the same way. A box is a word's own time. Where both sides are sound or
    picture, queries go downwards. Of a CLS there are curves of its weight a second, one for all that it attends to.

    Args:
        clip: with its media.
        maps: of the clip.
        told: what a reader must know, as a modality that is not there.
    """
    record = clip.record
    there = {"frames": record.has_video, "sound": record.has_audio, "words": bool(record.words)}
    above = [name for name, has in there.items() if has]
    below = _panels(maps)
    heights = [HEIGHTS[name] for name in above] + [NAME + _height(panel[0]) for panel in below]
    figure = Figure(figsize=(WIDTH, sum(heights, 0.6 + AXIS)), dpi=100, layout="constrained")
    title = f"{record.key}   {record.duration_s:.2f} s   {told}".rstrip()
    figure.suptitle(title, fontsize=10)
    if not heights:
        return figure
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for name, axis in zip(above, axes, strict=False):
        axis.set_yticks([])
        DRAW[name](axis, clip)
    for panel, axis in zip(below, axes[len(above) :], strict=True):
        axis.set_title(_title(panel), fontsize=9, loc="left")
        _draw(axis, clip, panel, [one.weights.mean(axis=0) for one in panel])
    axes[-1].set_xlim(0, record.duration_s)
    axes[-1].set_xlabel("seconds")
    return figure


def heads_figure(clip: Clip, maps: Sequence[Map]) -> Figure:
    """Each head of each map by itself; for how to read them see `attention_figure`."""
    panels = _panels(maps)
    columns = min(COLUMNS, max(len(one.weights) for one in maps))
    rows = [-(-len(panel[0].weights) // columns) for panel in panels]
    heights = [NAME + AXIS + rows * (NAME + _height(panel[0])) for rows, panel in zip(rows, panels, strict=True)]
    figure = Figure(figsize=(1.2 * WIDTH, sum(heights, 0.4)), dpi=100, layout="constrained")
    figure.suptitle(clip.record.key, fontsize=10)
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, panel, number in zip(parts, panels, rows, strict=True):
        part.suptitle(_name(panel), fontsize=9)
        axes = list(part.subplots(number, columns, sharex=True, sharey=True, squeeze=False).flat)
        num_heads = len(panel[0].weights)
        for head, axis in enumerate(axes[:num_heads]):
            _draw(axis, clip, panel, [one.weights[head] for one in panel])
            axis.set_title(f"head {head + 1}{_of_head(panel[0], head)}", fontsize=8)
            axis.set_xlim(0, clip.record.duration_s)
            axis.tick_params(labelbottom=True)
        for axis in axes[num_heads:]:
            axis.remove()
        part.supxlabel("seconds", fontsize=8)
    return figure


def _panels(maps: Sequence[Map]) -> list[list[Map]]:
    """Maps that share a panel: what one CLS attends to; any other map has one of its own."""
    found: dict[str, list[Map]] = {}
    for one in maps:
        found.setdefault(f"{one.queries.modality} CLS" if one.queries.is_cls else one.stack, []).append(one)
    return list(found.values())


def _height(one: Map) -> float:
    if one.queries.is_cls:
        return CURVES
    words = [len(side.times) for side in (one.queries, one.keys) if side.modality == "text"]
    return WORDS + ROW * min(max(words), MAX_ROWS) if words else SQUARE


def _name(panel: Sequence[Map]) -> str:
    first = panel[0]
    stacks = ", ".join(one.stack for one in panel)
    return f"{stacks}, layer {first.layer} of {first.num_layers}"


def _title(panel: Sequence[Map]) -> str:
    first = panel[0]
    who = SPOKEN.get(first.queries.modality, first.queries.modality)
    if first.queries.is_cls:
        return f"{_name(panel)}: attention of the CLS of the {who}, weight a second"
    whom = SPOKEN.get(first.keys.modality, first.keys.modality)
    scale = f"darkest {first.weights.mean(axis=0).max():.2f}, even {1 / len(first.keys.times):.2f}"
    return f"{_name(panel)}: attention of the {who} to the {whom} ({scale}{_own(first)})"


def _own(one: Map) -> str:
    if one.same_time is None:
        return ""
    shares, even = one.same_time
    return f"; at the same time {100 * shares.mean():.0f} %, even {100 * even:.0f} %"


def _of_head(one: Map, head: int) -> str:
    if one.queries.is_cls:
        return ""
    own = "" if one.same_time is None else f", at the same time {100 * one.same_time[0][head]:.0f} %"
    return f": darkest {one.weights[head].max():.2f}{own}"


def _draw(axis: Axes, clip: Clip, panel: Sequence[Map], weights: Sequence[NDArray[np.float64]]) -> None:
    """One panel, of [T, S] a map."""
    first = panel[0]
    axis.tick_params(labelsize=8)
    if first.queries.is_cls:
        _curves(axis, panel, weights)
    elif first.queries.modality == "text":
        _by_word(axis, clip, first.queries, first.keys, weights[0])
    elif first.keys.modality == "text":
        _by_word(axis, clip, first.keys, first.queries, weights[0].T)
    else:
        x, columns = _with_gaps(first.keys.times, weights[0])
        y, cells = _with_gaps(first.queries.times, columns.T)
        axis.pcolormesh(x, y, cells.T, cmap=COLOR, vmin=0, rasterized=True)
        axis.set_ylim(y[-1], y[0])
        axis.set_ylabel(f"{SPOKEN.get(first.queries.modality, first.queries.modality)}, s", fontsize=8)


def _by_word(axis: Axes, clip: Clip, words: Side, other: Side, values: NDArray[np.float64]) -> None:
    """[words, steps of the other side], a row a word."""
    number = len(words.times)
    x, cells = _with_gaps(other.times, values)
    axis.pcolormesh(x, np.arange(number + 1), cells, cmap=COLOR, vmin=0, rasterized=True)
    for row, (start, end) in enumerate(words.times):
        if np.isfinite(start):
            axis.add_patch(Rectangle((start, row), end - start, 1, fill=False, edgecolor="#D55E00", linewidth=1))
    texts = [word.text for word in clip.record.words or ()]
    named = range(0, number, -(-number // MAX_ROWS))
    axis.set_yticks([row + 0.5 for row in named], [texts[row] for row in named], fontsize=8)
    axis.set_ylim(number, 0)


def _curves(axis: Axes, panel: Sequence[Map], weights: Sequence[NDArray[np.float64]]) -> None:
    for number, (one, values) in enumerate(zip(panel, weights, strict=True)):
        timed = np.isfinite(one.keys.times).all(axis=1)
        label = SPOKEN.get(one.keys.modality, one.keys.modality)
        if not timed.all():
            label += f" (its CLS: {values[0, ~timed].sum():.2f})"
        edges, cells = _with_gaps(one.keys.times[timed], values[:, timed])
        density = np.nan_to_num(cells[0]) / np.diff(edges)
        axis.stairs(density, edges, color=LINES[number % len(LINES)], linewidth=1.2, label=label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper right", framealpha=0.8)


def _edges(one: Map, end: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return one.queries.times[:, end], one.keys.times[:, end]


def _with_gaps(
    times: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of cells in seconds, and [..., steps] with NaN between two steps that do not touch.

    A step ends at the latest where the next one starts: steps of sound are computed from more than their own part.
    """
    edges: list[float] = [float(times[0, 0])]
    columns: list[NDArray[np.float64]] = []
    for step, (start, end) in enumerate(times):
        if start > edges[-1] + 1e-6:
            edges.append(float(start))
            columns.append(np.full(values.shape[:-1], np.nan))
        until = min(end, times[step + 1, 0]) if step + 1 < len(times) else end
        edges.append(max(float(until), edges[-1] + 1e-6))
        columns.append(values[..., step])
    return np.array(edges), np.stack(columns, axis=-1)
