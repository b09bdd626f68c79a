"""What is in a shard set, as tables and two pictures.

python -m shards show FOLDER [num=4] [clips=key1,key2] [out=FILE]

Tables: clips, hours and words of each split, the distribution of each label (classes with their shares; mean, spread
and histogram of numbers and of the steps of series), and what was left out and why.

contact_sheet.png: frames, sound, words and series of a few clips on one axis in seconds, to see whether they line up.
labels.png, beside it: the distribution of each label in each split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from shards.counts.summary import Tally, splits_table
from shards.divisions.split import print_split
from shards.pictures.contact_sheet import Clip, contact_sheet
from shards.pictures.label_figure import label_figure
from shards.pictures.label_tables import label_tables
from shards.reading.cache import CacheConfig
from shards.reading.index import ShardSet, Split
from shards.record import Manifest
from triptych.config import UserError, load

TOP_WORDS = 20
MAX_QUARANTINED = 20


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """What the pictures show, and where they go."""

    num: int = 4
    """Clips of the contact sheet, spread evenly over the training split; 0 draws no picture."""
    clips: str = ""
    """Keys, separated by commas, in place of `num`."""
    out: str = ""
    """The contact sheet; contact_sheet.png in the shard set's folder when empty, or here where that is a URL. The
    labels' picture is beside it."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Print the tables and draw the pictures.

    Args:
        target: the folder or URL of the shard set.
        overrides: of ShowConfig.

    Returns:
        The exit status, 0.

    Raises:
        UserError: no shard set, damaged bytes, a key that is not there, or a picture that cannot be written.
    """
    config = load(ShowConfig, {}, overrides)
    shard_set, console = ShardSet(target, config.cache), Console()
    splits = {name: shard_set.split(name) for name in shard_set.splits}
    tallies = _count(splits, quiet=not console.is_terminal)
    _print_splits(console, shard_set, tallies)
    _print_words_and_labels(console, tallies)
    _print_left_out(console, shard_set.manifest)
    if config.num > 0 or config.clips:
        out = _picture(target, config)
        sheet = contact_sheet(_choose(splits, config))
        if sheet is None:
            console.print("no contact sheet: these clips have neither picture, sound, words nor series")
        else:
            _save(console, "contact sheet", sheet, out)
        if (labels := label_figure(tallies)) is not None:
            _save(console, "labels", labels, out.with_name(f"labels{out.suffix}"))
    return 0


def _save(console: Console, what: str, figure: Figure, out: Path) -> None:
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:  # matplotlib refuses an unknown file ending with ValueError
        raise UserError(f"{out}: the picture cannot be written ({error}); choose another with out=FILE") from None
    console.print(f"{what}: {out}", soft_wrap=True, markup=False)


def _picture(target: str, config: ShowConfig) -> Path:
    if config.out:
        return Path(config.out)
    return Path("contact_sheet.png") if "://" in target else Path(target) / "contact_sheet.png"


def _count(splits: Mapping[str, Split], *, quiet: bool) -> dict[str, Tally]:
    tallies = {name: Tally() for name in splits}
    for name, split in splits.items():
        for sample_id in track(range(len(split)), f"reading {name}", disable=quiet, transient=True):
            tallies[name].add(split.record(sample_id))
    return tallies


def _choose(splits: Mapping[str, Split], config: ShowConfig) -> list[Clip]:
    """The clips by key, else spread over the first split."""
    if config.clips:
        places = {key: (split, number) for split in splits.values() for number, key in enumerate(split.keys)}
        keys = [key.strip() for key in config.clips.split(",")]
        for key in keys:
            if key not in places:
                raise UserError(f"clips: no clip has the key {key!r}; a key looks like {next(iter(places))!r}")
        chosen = [places[key] for key in keys]
    else:
        split = next(iter(splits.values()))
        count = min(config.num, len(split))
        chosen = [(split, number * len(split) // count) for number in range(count)]
    return [Clip(split.record(number), split.read(number)) for split, number in chosen]


def _print_splits(console: Console, shard_set: ShardSet, tallies: Mapping[str, Tally]) -> None:
    manifest = shard_set.manifest
    title = f"{shard_set.location}: {manifest.corpus}, split by {manifest.split.get('by')}"
    console.print(title, soft_wrap=True, markup=False)
    print_split(console, manifest.split)
    console.print(splits_table(tallies))
    for name, tally in tallies.items():
        seconds = tally.durations
        span = f"{min(seconds):.2f} to {max(seconds):.2f} s, median {median(seconds):.2f} s"
        console.print(f"clips of {name} last {span}", markup=False)
    stored = [f"{spec['name']} ({spec['modality']}, version {spec['version']})" for spec in manifest.features]
    console.print(f"stored features: {', '.join(stored) or 'none'}", markup=False)


def _print_words_and_labels(console: Console, tallies: Mapping[str, Tally]) -> None:
    words = next(iter(tallies.values())).vocabulary
    top = ", ".join(
        f"{word} {count}" for word, count in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP_WORDS]
    )
    console.print(f"most frequent of {len(words)} words in {next(iter(tallies))}: {top or 'none'}", markup=False)
    for table in label_tables(tallies):
        console.print(table)


def _print_left_out(console: Console, manifest: Manifest) -> None:
    filtered, quarantined = sum(manifest.filtered.values()), manifest.quarantined
    console.print(
        f"found {manifest.found} = written {manifest.written} + filtered {filtered} + quarantined {len(quarantined)}"
    )
    if not filtered and not quarantined:
        return
    table = Table(title="left out")
    for heading in ("clip", "why"):
        table.add_column(heading)
    for reason, number in manifest.filtered.items():
        table.add_row(f"{number} clips filtered", escape(reason))
    for key, reason in list(quarantined.items())[:MAX_QUARANTINED]:
        table.add_row(escape(key), escape(reason))
    if len(quarantined) > MAX_QUARANTINED:
        table.add_row(f"{len(quarantined) - MAX_QUARANTINED} more", "see manifest.json")
    console.print(table)
