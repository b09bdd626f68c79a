"""Attention of one clip as a picture: what is seen, heard and said over seconds, and who attends to what. No torch.

Legend: H heads, T steps of the queries, S of the keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from shards.media.decode import audio_of, video_of
from shards.pictures.contact_sheet import DRAW, HEIGHTS, Clip
from shards.record import Word

WIDTH, AXIS, NAME, ROW = 12.0, 0.5, 0.35, 0.2
"""Inches: of a picture, of the ticks under it, of a panel's title, and of a word."""
MAX_ROWS = 60
COLUMNS, CURVES_COLUMNS = 4, 2
"""Heads beside each other; curves have a legend."""
SQUARE, CURVES, WORDS = 2.6, 1.5, 0.45
COLOR = "Blues"
COLORS = {"text": "#D55E00", "audio": "#0072B2", "video": "#009E73"}
"""Of what is attended to; words and sound as in the panels above."""
SPOKEN = {"text": "words", "audio": "sound", "video": "picture"}
FAINT = 1 / 3
"""Of the darkest colour, at most, is what even attention has: a map without any preference must not look like one."""
SHORTEST_S = 0.02
"""Seconds that a curve takes a step for at least: a word of no length would be a peak that hides all others."""
NARROW = 0.12
"""Share of a bar that has no room for its name."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """The queries or the keys of an attention."""

    modality: str
    times: NDArray[np.float64]
    """[T, 2] seconds, start and end; NaN of a step that stands for the whole sequence (a CLS) or a whole modality."""
    names: tuple[str, ...] = ()
    """Of the steps, where they are modalities and no times."""

    @property
    def is_cls(self) -> bool:
        """Whether it is one step that stands for the whole sequence."""
        return not self.names and len(self.times) == 1 and not self.timed.any()

    @property
    def timed(self) -> NDArray[np.bool_]:
        """[T]: which steps have a time."""
        return np.asarray(np.isfinite(self.times).all(axis=1))

    def part(self, steps: NDArray[np.bool_]) -> "Side":
        """Some of its steps."""
        return replace(self, times=self.times[steps])


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
    picture, queries go downwards. Of a CLS there are curves of its weight a second, one for each modality that it
    attends to. Where whole modalities attend to each other, bars are divided as the weights are.

    Args:
        clip: with its media.
        maps: of the clip.
        told: what a reader must know, as a modality that is not there.
    """
    record = clip.record
    there = {  # shards of features alone have no media to show
        "frames": video_of(clip.members) is not None and record.has_video,
        "sound": audio_of(clip.members) is not None and record.has_audio,
        "words": bool(record.words),
    }
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
    if timed := axes[: len(axes) - sum(bool(panel[0].queries.names) for panel in below)].tolist():
        timed[-1].tick_params(labelbottom=True)
        timed[-1].set_xlabel("seconds")
    return figure


def heads_figure(clip: Clip, maps: Sequence[Map], told: str = "") -> Figure:
    """Each head of each map by itself; for how to read them and the arguments see `attention_figure`."""
    panels = _panels(maps)
    columns = [min(CURVES_COLUMNS if panel[0].queries.is_cls else COLUMNS, len(panel[0].weights)) for panel in panels]
    rows = [-(-len(panel[0].weights) // number) for panel, number in zip(panels, columns, strict=True)]
    heights = [NAME + AXIS + rows * (NAME + _height(panel[0])) for rows, panel in zip(rows, panels, strict=True)]
    figure = Figure(figsize=(1.2 * WIDTH, sum(heights, 0.4)), dpi=100, layout="constrained")
    figure.suptitle(f"{clip.record.key}   {told}".rstrip(), fontsize=10)
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, panel, number, across in zip(parts, panels, rows, columns, strict=True):
        part.suptitle(_name(panel) + (": the CLS" if panel[0].queries.is_cls else ""), fontsize=9)
        axes = list(part.subplots(number, across, sharex=True, sharey=True, squeeze=False).flat)
        num_heads = len(panel[0].weights)
        for head, axis in enumerate(axes[:num_heads]):
            _draw(axis, clip, panel, [one.weights[head] for one in panel])
            axis.set_title(f"head {head + 1}{_of_head(panel[0], head)}", fontsize=8)
            axis.set_xlim(0, clip.record.duration_s)
            axis.tick_params(labelbottom=not panel[0].queries.names)
            if head % across:
                axis.set_ylabel("")
        for axis in axes[num_heads:]:
            axis.remove()
        if not panel[0].queries.names:
            part.supxlabel("seconds", fontsize=8)
    return figure


def _panels(maps: Sequence[Map]) -> list[list[Map]]:
    """Maps that share a panel: what one CLS attends to; any other has one of its own. Those over time come first."""
    found: dict[tuple[str | int, ...], list[Map]] = {}
    for one in (part for whole in maps for part in _parts(whole)):
        shared = ("CLS", one.queries.modality, one.layer, one.num_layers)
        found.setdefault(shared if one.queries.is_cls else (one.stack,), []).append(one)
    return sorted(found.values(), key=lambda panel: bool(panel[0].queries.names))


def _parts(one: Map) -> list[Map]:
    """A map of steps and a CLS before them as two: what the CLS attends to, and what the others do."""
    timed = one.queries.timed
    if timed.all() or one.queries.is_cls or one.queries.names:
        return [one]
    return [
        replace(one, queries=one.queries.part(rows), weights=one.weights[:, rows])
        for rows in (~timed, timed)
        if rows.any()
    ]


def _height(one: Map) -> float:
    if one.queries.names:
        return WORDS + ROW * len(one.queries.names)
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
    if first.queries.names:
        return f"{_name(panel)}: attention of each modality, a row each, to all of them"
    who = _spoken(first.queries.modality)
    if first.queries.is_cls:
        return f"{_name(panel)}: attention of the CLS of the {who}, weight a second"
    timed = first.keys.timed
    to_cls = "" if timed.all() else f", to its CLS {first.weights[:, :, ~timed].sum(axis=-1).mean():.2f}"
    scale = f"darkest {_darkest(first, first.weights.mean(axis=0)):.2g}, even {1 / len(timed):.2g}{to_cls}"
    return f"{_name(panel)}: attention of the {who} to the {_spoken(first.keys.modality)} ({scale}{_own(first)})"


def _darkest(one: Map, weights: NDArray[np.float64]) -> float:
    """Weight that has the darkest colour, of [T, S]."""
    return max(float(weights[:, one.keys.timed].max()), min(1.0, 1 / len(one.keys.times) / FAINT))


def _spoken(modality: str) -> str:
    return SPOKEN.get(modality, modality)


def _own(one: Map) -> str:
    if one.same_time is None:
        return ""
    shares, even = one.same_time
    return f"; at the same time {100 * shares.mean():.0f} %, even {100 * even:.0f} %"


def _of_head(one: Map, head: int) -> str:
    if one.queries.is_cls or one.queries.names:
        return ""
    own = "" if one.same_time is None else f", at the same time {100 * one.same_time[0][head]:.0f} %"
    return f": darkest {_darkest(one, one.weights[head]):.2g}{own}"


def _draw(axis: Axes, clip: Clip, panel: Sequence[Map], weights: Sequence[NDArray[np.float64]]) -> None:
    """One panel, of [T, S] a map."""
    first = panel[0]
    axis.tick_params(labelsize=8)
    if first.queries.names:
        _bars(axis, first.queries.names, weights[0])
        return
    if first.queries.is_cls:
        _curves(axis, panel, weights, clip.record.duration_s)
        return
    timed = first.keys.timed
    queries, keys, values = first.queries, first.keys.part(timed), weights[0][:, timed]
    darkest = _darkest(first, weights[0])
    if queries.modality == "text":
        _by_word(axis, clip, queries, keys, values, darkest)
    elif keys.modality == "text":
        _by_word(axis, clip, keys, queries, values.T, darkest)
    else:
        x, columns = _with_gaps(keys.times, values)
        y, cells = _with_gaps(queries.times, columns.T)
        axis.pcolormesh(x, y, cells.T, cmap=COLOR, vmin=0, vmax=darkest, rasterized=True)
        axis.set_ylim(y[-1], y[0])
        axis.set_ylabel(f"{_spoken(queries.modality)}, s", fontsize=8)


def _by_word(axis: Axes, clip: Clip, words: Side, other: Side, values: NDArray[np.float64], darkest: float) -> None:
    """[words, steps of the other side], a row a word, or a piece of one."""
    number = len(words.times)
    x, cells = _with_gaps(other.times, values)
    axis.pcolormesh(x, np.arange(number + 1), cells, cmap=COLOR, vmin=0, vmax=darkest, rasterized=True)
    for row, (start, end) in enumerate(words.times):
        if np.isfinite(start):
            axis.add_patch(Rectangle((start, row), end - start, 1, fill=False, edgecolor="#D55E00", linewidth=1))
    texts = _texts(words, clip.record.words or ())
    named = range(0, number, -(-number // MAX_ROWS))
    axis.set_yticks([row + 0.5 for row in named], [texts[row] for row in named], fontsize=8)
    axis.set_ylim(number, 0)


def _texts(side: Side, words: Sequence[Word]) -> list[str]:
    """Of each row: its word; of the pieces of a word the first one has it."""
    if len(side.times) == len(words):
        return [word.text for word in words]
    ends_s = np.maximum.accumulate([word.end_s for word in words])
    number = np.minimum(np.searchsorted(ends_s, side.times.mean(axis=1), side="left"), len(words) - 1)
    return [words[one].text if row == 0 or one != number[row - 1] else "" for row, one in enumerate(number)]


def _curves(axis: Axes, panel: Sequence[Map], weights: Sequence[NDArray[np.float64]], duration_s: float) -> None:
    for one, values in zip(panel, weights, strict=True):
        timed, label = one.keys.timed, _spoken(one.keys.modality)
        if not timed.all():
            label += f" (its CLS: {values[0, ~timed].sum():.2f})"
        edges, cells = _with_gaps(one.keys.times[timed], values[:, timed])
        density = np.nan_to_num(cells[0]) / np.maximum(np.diff(edges), SHORTEST_S)
        axis.stairs(density, edges, color=COLORS.get(one.keys.modality, "0.3"), linewidth=1.2, label=label)
    axis.axhline(1 / duration_s, color="0.5", linewidth=1, linestyle=":", label="even over the clip")
    axis.margins(y=0.25)  # room for the legend above the curves
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper right", ncols=len(panel) + 1, framealpha=0.8)


def _bars(axis: Axes, names: Sequence[str], weights: NDArray[np.float64]) -> None:
    """[queries, keys] of whole modalities, a bar a query; its length is no time, though the axis is."""
    whole = axis.get_yaxis_transform()
    for row, shares in enumerate(weights):
        for name, share, end in zip(names, shares, np.cumsum(shares), strict=True):
            color = COLORS.get(name, "0.3")
            bar = Rectangle((end - share, row + 0.1), share, 0.8, color=color, alpha=0.35, transform=whole)
            axis.add_patch(bar)
            if share > NARROW:
                text = f"{_spoken(name)} {share:.2f}"
                axis.text(end - share / 2, row + 0.5, text, fontsize=8, ha="center", va="center", transform=whole)
    axis.set_yticks([row + 0.5 for row in range(len(names))], [_spoken(name) for name in names], fontsize=8)
    axis.set_ylim(len(names), 0)
    axis.tick_params(bottom=False, labelbottom=False)


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
