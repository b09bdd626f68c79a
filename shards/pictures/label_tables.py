"""The distribution of each label over the splits, as tables of text. No torch."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

from rich.markup import escape
from rich.table import Table

from shards.counts.label_counts import Distribution
from shards.counts.summary import Tally

MAX_CLASSES = 40
MAX_BINS = 12
BAR = 6
"""Characters of the longest bar."""


def label_tables(tallies: Mapping[str, Tally]) -> Iterator[Table]:
    """The tables of all labels, by name: one of a class, two of a number or a series.

    Args:
        tallies: split -> counts.
    """
    for name in class_labels(tallies):
        yield _classes_table(name, tallies)
    for name in number_labels(tallies):
        found = {split: tally.labels.numbers[name] for split, tally in tallies.items() if name in tally.labels.numbers}
        yield _figures_table(name, tallies, found)
        yield _histogram_table(name, found)


def class_labels(tallies: Mapping[str, Tally]) -> list[str]:
    """Those that are classes, by name."""
    return sorted({name for tally in tallies.values() for name in tally.labels.classes})


def number_labels(tallies: Mapping[str, Tally]) -> list[str]:
    """Those that are numbers or series, by name."""
    return sorted({name for tally in tallies.values() for name in tally.labels.numbers})


def classes_of(name: str, tallies: Mapping[str, Tally]) -> list[str]:
    """The classes of a label over all splits, most frequent first."""
    total = Counter[str]()
    for tally in tallies.values():
        total.update(tally.labels.classes.get(name, {}))
    return sorted(total, key=lambda value: (-total[value], value))


def bin_edges(low: float, high: float, most: int) -> list[float]:
    """Bounds of at most `most` bins that hold all of [low, high], each as wide as 1, 2 or 5 times a power of ten.

    Bins are centred on multiples of their width, so that 0 is the middle of one: with a width of 1, the bins of a
    sentiment in [-3, 3] are its seven classes.
    """
    exponent = math.floor(math.log10((high - low) / most)) if high > low else 0
    while True:
        for digit in (1, 2, 5):
            width = float(f"{digit}e{exponent}")
            first, last = math.floor(low / width + 0.5), math.floor(high / width + 0.5)
            if last - first < most:
                return [(number - 0.5) * width for number in range(first, last + 2)]
        exponent += 1


def binned(distribution: Distribution, edges: list[float]) -> list[int]:
    """How many values are in each bin, its lower bound included; as exact as the histogram (see `bin_of`)."""
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value, count in distribution.histogram.items():
        place = math.floor((value - edges[0]) / width + 1e-9)  # 0.3 is in the bin that begins at 0.3
        counts[min(max(place, 0), len(counts) - 1)] += count
    return counts


def bounds(found: Mapping[str, Distribution]) -> tuple[float, float]:
    """The least and the greatest value over all splits."""
    return min(one.low for one in found.values()), max(one.high for one in found.values())


def _classes_table(name: str, tallies: Mapping[str, Tally]) -> Table:
    classes = classes_of(name, tallies)
    counts = {split: tally.labels.classes.get(name, Counter[str]()) for split, tally in tallies.items()}
    labelled = {split: count.total() for split, count in counts.items()}
    table = Table(title=f"{escape(name)} (clips, share of the split's labelled clips)")
    table.add_column("class")
    for split in tallies:
        table.add_column(split, justify="right")
    for value in classes[:MAX_CLASSES]:
        table.add_row(escape(value), *(_share(counts[split][value], labelled[split]) for split in tallies))
    if more := classes[MAX_CLASSES:]:
        sums = {split: sum(counts[split][value] for value in more) for split in tallies}
        table.add_row(f"{len(more)} more classes", *(_share(sums[split], labelled[split]) for split in tallies))
    without = {split: tally.clips - labelled[split] for split, tally in tallies.items()}
    if any(without.values()):
        table.add_section()
        table.add_row("without", *map(str, without.values()))
    return table


def _figures_table(name: str, tallies: Mapping[str, Tally], found: Mapping[str, Distribution]) -> Table:
    form = next(iter(found.values())).form
    table = Table(title=f"{escape(name)}, {form}")
    headings = ["clips", "without", *(["steps"] if form_has_steps(found) else []), "mean", "sd", "min", "max"]
    table.add_column("split")
    for heading in headings:
        table.add_column(heading, justify="right")
    for split, tally in tallies.items():
        one = found.get(split, Distribution())
        steps = [str(one.values)] if form_has_steps(found) else []
        figures = (one.mean, one.deviation, one.low, one.high) if one.values else ()
        table.add_row(
            split, str(one.clips), str(tally.clips - one.clips), *steps, *(f"{value:.3f}" for value in figures)
        )
    return table


def form_has_steps(found: Mapping[str, Distribution]) -> bool:
    """Whether the label is a series."""
    return any(one.rate_hz is not None for one in found.values())


def _histogram_table(name: str, found: Mapping[str, Distribution]) -> Table:
    names, counts = _rows(found)
    shares = {split: [count / found[split].values for count in counts[split]] for split in found}
    most = max(max(of) for of in shares.values())
    table = Table()
    table.add_column(escape(name), justify="right", no_wrap=True)
    for split in found:
        table.add_column(split, no_wrap=True)
    for place, shown in enumerate(names):
        cells = []
        for split in found:
            count, share = counts[split][place], shares[split][place]
            cells.append(
                f"{count:{len(str(max(counts[split])))}d} {100 * share:3.0f} % {'█' * round(BAR * share / most)}"
            )
        table.add_row(shown, *cells)
    return table


def _rows(found: Mapping[str, Distribution]) -> tuple[list[str], dict[str, list[int]]]:
    """The names of a histogram's rows, and the counts of each split: of values where there are few, else of bins."""
    values = sorted({value for one in found.values() for value in one.histogram})
    if len(values) <= MAX_BINS:
        return [f"{value:g}" for value in values], {
            split: [one.histogram[value] for value in values] for split, one in found.items()
        }
    low, high = bounds(found)
    edges = bin_edges(low, high, MAX_BINS)
    names = [f"{max(start, low):.4g} to {min(stop, high):.4g}" for start, stop in pairwise(edges)]
    return names, {split: binned(one, edges) for split, one in found.items()}


def _share(count: int, of: int) -> str:
    return f"{count} {100 * count / of:5.1f} %" if of else str(count)
