"""`python -m shards show FOLDER [num=4] [clips=key1,key2] [out=FILE]`: what is in a shard set, as tables and a picture.

The picture, the contact sheet, puts frames, sound and words of a few clips on one axis in seconds: whether they line up
is seen at a glance, and by no test.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from shards.cache import CacheConfig
from shards.decode import DecodeError, audio_of, decode_audio, decode_video, video_of
from shards.index import ShardSet, Split
from shards.record import SPLITS, ClipRecord, Manifest
from shards.summary import Tally, splits_table
from triptych.config import UserError, load

NUM_FRAMES = 10
SLACK_S = 0.1
SAMPLE_RATE_HZ = 16000
TOP_WORDS = 20
MAX_QUARANTINED = 20


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """What the contact sheet shows."""

    num: int = 4
    """Clips, spread evenly over the training split; 0 draws no sheet."""
    clips: str = ""
    """Keys, separated by commas, in place of `num`."""
    out: str = ""
    """The picture; contact_sheet.png in the shard set's folder when empty, or here where that is a URL."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""


@dataclass(frozen=True)
class Clip:
    """One clip of the sheet."""

    record: ClipRecord
    members: Mapping[str, bytes]


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Print the tables and draw the contact sheet.

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
    splits = {name: shard_set.split(name) for name in SPLITS if any(s.split == name for s in shard_set.manifest.shards)}
    tallies = _count(splits, quiet=not console.is_terminal)
    _print_splits(console, shard_set, tallies)
    _print_words_and_labels(console, shard_set.manifest, tallies)
    _print_left_out(console, shard_set.manifest)
    if config.num > 0 or config.clips:
        out = _picture(target, config)
        try:
            contact_sheet(_choose(splits, config)).savefig(out)
        except (OSError, ValueError) as error:  # matplotlib refuses an unknown file ending with ValueError
            if isinstance(error, UserError):
                raise
            raise UserError(f"{out}: the picture cannot be written ({error}); choose another with out=FILE") from None
        console.print(f"contact sheet: {out}", soft_wrap=True, markup=False)
    return 0


def _picture(target: str, config: ShowConfig) -> Path:
    if config.out:
        return Path(config.out)
    return Path("contact_sheet.png") if "://" in target else Path(target) / "contact_sheet.png"


def contact_sheet(clips: Sequence[Clip]) -> Figure:
    """Frames, sound and words of each clip under one axis in seconds."""
    figure = Figure(figsize=(14, 3.6 * len(clips)), dpi=100, layout="constrained")
    for part, clip in zip(figure.subfigures(len(clips), 1, squeeze=False)[:, 0], clips, strict=True):
        record = clip.record
        labels = ", ".join(f"{name}: {value}" for name, value in record.labels.items())
        part.suptitle(
            f"{record.key}   speaker {record.speaker}   {record.split}   {record.duration_s:.2f} s   {labels}",
            fontsize=10,
        )
        frames, sound, words = part.subplots(3, 1, sharex=True, height_ratios=(3, 1.6, 0.8))
        _draw_frames(frames, clip)
        _draw_sound(sound, clip)
        _draw_words(words, record)
        words.set_xlim(0, record.duration_s)
        words.set_xlabel("seconds")
        for axis in (sound, words):  # where a word starts is read off all three
            for word in record.words or ():
                axis.axvline(word.start_s, color="0.75", linewidth=0.6, zorder=0)
    return figure


def _count(splits: Mapping[str, Split], *, quiet: bool) -> dict[str, Tally]:
    tallies = {name: Tally() for name in splits}
    for name, split in splits.items():
        for sample_id in track(range(len(split)), f"reading {name}", disable=quiet, transient=True):
            tallies[name].add(_record(split, sample_id))
    return tallies


def _record(split: Split, sample_id: int) -> ClipRecord:
    return ClipRecord.from_json(json.loads(split.read(sample_id, ("json",))["json"]))


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
    return [Clip(_record(split, number), split.read(number)) for split, number in chosen]


def _draw_frames(axis: Axes, clip: Clip) -> None:
    axis.set_yticks([])
    data = video_of(clip.members)
    # a clip is as long as its longer stream: without the slack, a picture 10 ms shorter than its sound loses a frame
    step_s = max(clip.record.duration_s - SLACK_S, SLACK_S) / NUM_FRAMES
    try:
        frames = None if data is None else decode_video(data, 1 / step_s)
    except DecodeError as error:
        _say(axis, str(error))
        return
    if frames is None:
        _say(axis, "no picture")
        return
    for step, frame in enumerate(frames):  # a frame's left edge is its time
        axis.imshow(frame, extent=(step * step_s, (step + 0.96) * step_s, 0, 1), aspect="auto")
    axis.set_ylim(0, 1)


def _draw_sound(axis: Axes, clip: Clip) -> None:
    axis.set_yticks([])
    data = audio_of(clip.members)
    try:
        samples = None if data is None else decode_audio(data, SAMPLE_RATE_HZ)
    except DecodeError as error:
        _say(axis, str(error))
        return
    if samples is None:
        _say(axis, "no sound")
        return
    axis.plot(np.arange(len(samples)) / SAMPLE_RATE_HZ, samples, linewidth=0.4, color="tab:blue")
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-3)
    axis.set_ylim(-peak, peak)


def _draw_words(axis: Axes, record: ClipRecord) -> None:
    axis.set_yticks([])
    axis.set_ylim(0, 1)
    if not record.words:
        _say(axis, "no transcript" if record.words is None else "nothing spoken")
        return
    for word in record.words:
        axis.axvspan(word.start_s, word.end_s, 0.05, 0.95, color="tab:orange", alpha=0.35)
        axis.text((word.start_s + word.end_s) / 2, 0.5, word.text, ha="center", va="center", fontsize=9, clip_on=True)


def _say(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="0.4")


def _print_splits(console: Console, shard_set: ShardSet, tallies: Mapping[str, Tally]) -> None:
    manifest = shard_set.manifest
    title = f"{shard_set.location}: {manifest.corpus}, split by {manifest.split.get('by')}"
    console.print(title, soft_wrap=True, markup=False)
    console.print(splits_table(tallies))
    for name, tally in tallies.items():
        seconds = tally.durations
        span = f"{min(seconds):.2f} to {max(seconds):.2f} s, median {median(seconds):.2f} s"
        console.print(f"clips of {name} last {span}", markup=False)
    stored = [f"{spec['name']} ({spec['modality']}, version {spec['version']})" for spec in manifest.features]
    console.print(f"stored features: {', '.join(stored) or 'none'}", markup=False)


def _print_words_and_labels(console: Console, manifest: Manifest, tallies: Mapping[str, Tally]) -> None:
    words = next(iter(tallies.values())).vocabulary
    top = ", ".join(
        f"{word} {count}" for word, count in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP_WORDS]
    )
    console.print(f"most frequent of {len(words)} words in {next(iter(tallies))}: {top or 'none'}", markup=False)
    for label, classes in manifest.labels.items():
        table = Table(title=label)
        table.add_column("class")
        for name in tallies:
            table.add_column(name, justify="right")
        for value in classes:
            table.add_row(
                escape(value), *(str(tally.labels.classes.get(label, Counter())[value]) for tally in tallies.values())
            )
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
