"""`python -m shards overlap SHARDS other=OTHER [out=exclude.txt] [column=NAME]`: the videos that two corpora share.

Corpora of talking faces are cut from the same public videos: an encoder that was pretrained on a clip of the test set
has seen it. SHARDS is what to pretrain on, OTHER what to evaluate on; each is one of

    a shard set        its folder or URL; compared by the property `video` of its clips
    a corpus           its config file, or the name of a shipped one with corpus.NAME.root=FOLDER behind it
    a list             .json with a list of ids or lists by split; .csv, column NAME or the first; else an id a line

The table says how much is shared. out=FILE gets the shared videos as SHARDS calls them, one a line, for
`python -m shards write CONFIG exclude=FILE`. A YouTube id is 11 letters, digits, '-' and '_'; the number of a segment
behind it, as in id[3] or id_3, does not count. Names of any other form are told and not compared: they cannot be said
to be shared or not.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from shards.corpora.config import CorpusConfig
from shards.reading.index import ShardSet
from shards.record import video_id
from shards.write import WriteConfig
from triptych.config import UserError, chosen, find, load
from triptych.files import write_atomically
from triptych.text_files import read_text

ALL = "all"
_CONFIGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class OverlapConfig:
    """What `python -m shards overlap SHARDS` compares with and writes."""

    other: str
    """Shard set, corpus config or list of the evaluation corpus."""
    out: str = "exclude.txt"
    """File that gets the shared videos, one a line."""
    column: str = ""
    """Of a csv list; the first one when empty."""


@dataclass(kw_only=True)
class Side:
    """What is counted of the videos of one of the two corpora, as it calls them."""

    clips: dict[str, Counter[str]] = field(default_factory=dict)
    """Split -> video -> clips."""
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    """(split, video) -> length; empty where no clip was opened."""
    nameless: int = 0
    """Clips without a video."""

    def add(self, split: str, video: str | None, seconds: float | None = None) -> None:
        """Count a clip."""
        if not video:
            self.nameless += 1
            return
        self.clips.setdefault(split, Counter())[video] += 1
        if seconds is not None:
            self.seconds[split, video] = self.seconds.get((split, video), 0.0) + seconds

    def videos(self) -> set[str]:
        """Of all splits, as they are called."""
        return {video for counted in self.clips.values() for video in counted}

    def ids(self) -> set[str]:
        """YouTube ids of all splits."""
        return {found for video in self.videos() if (found := video_id(video)) is not None}


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards overlap SHARDS other=OTHER [a.b=c ...]`; returns the exit status, 0."""
    corpus = [override for override in overrides if override.startswith("corpus.")]
    config = load(OverlapConfig, {}, [override for override in overrides if override not in corpus])
    overlap(target, config, corpus)
    return 0


def overlap(target: str, config: OverlapConfig, corpus: Sequence[str] = ()) -> list[str]:
    """Compare two corpora, print what they share and write the exclude list.

    Args:
        target: the corpus to pretrain on: shard set, corpus config or list.
        config: see OverlapConfig.
        corpus: `corpus.a.b=c` settings of the side that is a corpus config.

    Returns:
        The shared videos as the target calls them, sorted; `config.out` holds the same.

    Raises:
        UserError: a side cannot be read or has no YouTube id, `corpus` fits none or both of the sides, or `config.out`
            is one of them or cannot be written.
    """
    out, sides = Path(config.out), (target, config.other)
    if any(Path(side).exists() and out.exists() and out.samefile(side) for side in sides):
        raise UserError(f"out: {out} is one of the lists to compare; choose another file with out=FILE")
    configs = [side for side in sides if _is_config(side)]
    if corpus and len(configs) != 1:
        raise UserError(
            f"{corpus[0]}: {'neither' if not configs else 'each'} of the sides is a corpus config; write the settings "
            "into the files"
        )
    ours, theirs = (_read(side, config.column, corpus) for side in sides)
    shared = ours.ids() & theirs.ids()
    exclude = sorted(video for video in ours.videos() if video_id(video) in shared)
    console = Console()
    console.print(f"pretraining: {target}\nevaluation:  {config.other}", soft_wrap=True, markup=False)
    _print(console, {"pretraining": ours, "evaluation": theirs}, shared)
    try:
        write_atomically(out, "".join(f"{video}\n" for video in exclude).encode())
    except OSError as error:
        raise UserError(f"out: {out} cannot be written: {error.strerror}") from None
    console.print(f"exclude list: {out}, {len(exclude)} videos", soft_wrap=True, markup=False)
    return exclude


def _is_config(side: str) -> bool:
    path = Path(side)
    if path.is_file():
        return path.suffix.lower() in _CONFIGS
    if "://" in side or path.exists():
        return False
    if len(path.parts) > 1:
        raise UserError(f"{side}: is not there; expected a shard set, a corpus config or a list of video ids")
    return True


def _read(side: str, column: str, corpus: Sequence[str]) -> Side:
    path = Path(side)
    if _is_config(side):
        read = _of_corpus(side, corpus)
    elif path.is_file():
        read = _of_list(path, column)
    else:
        read = _of_shards(side)
    if not read.ids():
        seen = ", ".join(sorted(read.videos())[:3]) or "none"
        raise UserError(f"{side}: no video of it has a YouTube id, so that nothing can be compared; its videos: {seen}")
    return read


def _of_shards(location: str) -> Side:
    shard_set, side = ShardSet(location), Side()
    quiet = not Console(stderr=True).is_terminal
    for name in shard_set.splits:
        split = shard_set.split(name)
        for sample_id in track(range(len(split)), f"reading {name}", disable=quiet, transient=True):
            record = split.record(sample_id)
            side.add(name, record.source.get("video"), record.duration_s)
    return side


def _of_corpus(name: str, settings: Sequence[str]) -> Side:
    """All that the corpus finds, before anything is filtered."""
    side = Side()
    config: CorpusConfig = load(WriteConfig, find(name, "shards"), settings).corpus
    for clip in chosen(config)[1].clips():
        side.add(ALL, clip.source.get("video"))
    return side


def _of_list(path: Path, column: str) -> Side:
    side = Side()
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: the list cannot be read: {error}") from None
    if path.suffix.lower() == ".json":
        for split, names in _json_lists(path, text).items():
            for name in names:
                side.add(split, name)
        return side
    lines = text.splitlines()
    for name in _column(path, lines, column) if path.suffix.lower() == ".csv" else lines:
        if name.strip() and not name.startswith("#"):
            side.add(ALL, name.strip())
    return side


def _json_lists(path: Path, text: str) -> dict[str, list[str]]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    lists = content if isinstance(content, dict) else {ALL: content}
    for split, names in lists.items():
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{path}: {split}: expected a list of ids, or one for each split")
    return lists


def _column(path: Path, lines: Sequence[str], column: str) -> Iterator[str]:
    """One column of a csv file; its first line is a heading unless there is an id in it."""
    rows = [row for row in csv.reader(lines) if row]
    heading = [name.strip() for name in rows[0]] if rows else []
    if column and column not in heading:
        raise UserError(f"column: {path} has no {column!r}; there are {', '.join(heading)}")
    place = heading.index(column) if column else 0
    has_heading = column or (heading and video_id(heading[0]) is None)
    for row in rows[1 if has_heading else 0 :]:
        yield row[place] if place < len(row) else ""


def _print(console: Console, sides: Mapping[str, Side], shared: set[str]) -> None:
    table = Table(title=f"{len(shared)} shared videos")
    table.add_column("corpus")
    table.add_column("split")
    for heading in ("videos", "shared", "clips", "shared", "hours", "shared"):
        table.add_column(heading, justify="right")
    for name, side in sides.items():
        for split in side.clips:
            table.add_row(name, escape(split), *_cells(side, [split], shared))
        if len(side.clips) > 1:
            table.add_row(name, "all splits", *_cells(side, list(side.clips), shared))
    console.print(table)
    for name, side in sides.items():
        if unknown := sorted(video for video in side.videos() if video_id(video) is None):
            clips = sum(counted[video] for counted in side.clips.values() for video in unknown)
            says = f"{len(unknown)} names ({clips} clips) are no YouTube id and were not compared"
            console.print(f"{name}: {says}, first: {', '.join(unknown[:3])}", soft_wrap=True, markup=False)
        if side.nameless:
            console.print(f"{name}: {side.nameless} clips have no video", soft_wrap=True, markup=False)


def _cells(side: Side, splits: Collection[str], shared: set[str]) -> Iterator[str]:
    """Videos, clips and hours of some splits, each in all and shared."""
    clips = sum((side.clips[split] for split in splits), Counter[str]())
    names = {video: video_id(video) or video for video in clips}
    both = {video for video, name in names.items() if name in shared}
    yield str(len(set(names.values())))
    yield str(len({names[video] for video in both}))
    yield str(clips.total())
    yield str(sum(clips[video] for video in both))
    seconds = [(video, length) for (split, video), length in side.seconds.items() if split in splits]
    yield f"{sum(length for _, length in seconds) / 3600:.2f}" if seconds else "–"
    yield f"{sum(length for video, length in seconds if video in both) / 3600:.2f}" if seconds else "–"
