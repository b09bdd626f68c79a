"""Raw corpus -> shard set: every clip is opened, checked, written or accounted for.

python -m shards write configs/shards/grid.yaml corpus.voxceleb2.root=FOLDER out=FOLDER
"""

import errno
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from shards.corpora.config import CorpusConfig
from shards.features.config import FeaturesConfig, build
from shards.pool import ChildPool, Failure
from shards.probe import Job, Opened, npy, open_clip
from shards.record import SPLITS, ClipRecord, Manifest, RawClip
from shards.split import SplitConfig, draw
from shards.store import StoreConfig
from shards.summary import Tally, print_summary
from shards.tar import ShardWriter, remove_unfinished
from shards.words import Vocabulary
from triptych import provenance
from triptych.config import UserError, chosen, find, load, to_dict
from triptych.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """What `python -m shards write` does."""

    corpus: CorpusConfig
    out: str
    """Folder of the new shard set."""
    split: SplitConfig = field(default_factory=SplitConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Features to compute now and store; a run can also compute them from the media, with the same numbers."""
    store: StoreConfig = field(default_factory=StoreConfig)
    keep: dict[str, list[str]] = field(default_factory=dict)
    """Property of a clip's `source` -> values to keep; the other clips are counted as filtered."""
    samples_per_shard: int = 1000
    workers: int | None = None
    """Child processes that open clips; as many as the cores this process may use when not given."""
    timeout_s: float = 60.0
    """For one clip; the first one of a child also loads what its features need."""
    max_quarantined_share: float = 0.01
    """More unreadable clips than this share stop the writing: then something else is wrong than a few files."""

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard: {self.samples_per_shard}; expected 1 or more")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: {self.workers}; expected 1 or more")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s: {self.timeout_s}; expected more than 0")
        if not 0 <= self.max_quarantined_share <= 1:
            raise ValueError(f"max_quarantined_share: {self.max_quarantined_share}; expected 0 to 1")


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards write CONFIG [a.b=c ...]`; returns the exit status, 0."""
    write(load(WriteConfig, find(target, "shards"), overrides))
    return 0


def write(config: WriteConfig) -> Manifest:
    """Write a shard set and print what became of every clip.

    The same corpus and config give the same bytes, whatever the number of workers.

    Returns:
        The manifest, which is also on disk: it is written last, so a folder without it is not finished.

    Raises:
        UserError: the folder already holds a shard set, is being written to or is on a full disk; nothing or
            contradictions in the corpus; a split that would be empty; more unreadable clips than
            `max_quarantined_share`.
    """
    with _folder_of_its_own(Path(config.out)) as out:
        return _write(config, out)


def _write(config: WriteConfig, out: Path) -> Manifest:
    name, corpus = chosen(config.corpus)
    found = list(corpus.clips())
    _check_unique(found)
    kept, filtered = _filter(found, config.keep)
    splits = draw(kept, config.split)
    tallies, shards, quarantined = _write_clips(config, out, kept, splits)
    words = tallies["train"].vocabulary if "train" in tallies else Counter[str]()
    vocabulary = Vocabulary.from_counts(words)
    listed = vocabulary.to_bytes(words)
    write_atomically(out / "vocabulary.txt", listed)
    durations = {split: npy(np.array(tally.durations, dtype=np.float32)) for split, tally in tallies.items()}
    for split, content in durations.items():
        write_atomically(out / f"{split}.durations.npy", content)
    manifest = Manifest(
        corpus=name,
        created_by=_created_by(),
        split=to_dict(config.split),
        found=len(found),
        written=sum(tally.clips for tally in tallies.values()),
        filtered=filtered,
        quarantined=quarantined,
        shards=[shard for split in tallies for shard in shards[split].finish()],
        features=[feature.spec.to_json() for feature in build(config.features).values()],
        labels=_label_counts(tallies),
        counts=_total_counts(tallies),
        vocabulary_sha256=hashlib.sha256(listed).hexdigest(),
        durations_sha256={split: hashlib.sha256(content).hexdigest() for split, content in durations.items()},
    )
    assert manifest.found == manifest.written + sum(filtered.values()) + len(quarantined)
    write_atomically(out / "manifest.json", json.dumps(manifest.to_json(), indent=1).encode())
    print_summary(out, manifest, tallies, vocabulary_size=len(vocabulary.words))
    return manifest


@contextmanager
def _folder_of_its_own(out: Path) -> Iterator[Path]:
    """The folder without the rests of an interrupted writing, and locked: a second writer would delete the shards."""
    lock = out / ".lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f"{out}: another process is writing there; wait for it, or choose out=FOLDER") from None
            # a file system without locks cannot be asked
        try:
            if (out / "manifest.json").exists():
                raise UserError(f"{out}: there is a shard set already; remove the folder, or choose out=FOLDER")
            remove_unfinished(out)
            yield out
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            way_out = "nothing usable was written; make room and start again"
            raise UserError(f"{out}: {error.strerror}; {way_out}") from None
        finally:
            lock.unlink(missing_ok=True)


def _check_unique(clips: Sequence[RawClip]) -> None:
    counts = Counter(clip.key for clip in clips)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"{len(twice)} clips have the key of another one, first: {twice[0]}")


def _filter(clips: Sequence[RawClip], keep: dict[str, list[str]]) -> tuple[list[RawClip], dict[str, int]]:
    """Clips that `keep` lets through, and reason -> number of the others."""
    properties = sorted({name for clip in clips for name in clip.source})
    for name in keep:
        if name not in properties:
            raise UserError(f"keep.{name}: no clip has this property; there are {', '.join(properties)}")
    kept, filtered = [], Counter[str]()
    for clip in clips:
        reason = next(
            (f"{name}={clip.source.get(name)}" for name in keep if clip.source.get(name) not in keep[name]), None
        )
        if reason is None:
            kept.append(clip)
        else:
            filtered[reason] += 1
    if not kept:
        there = ", ".join(f"{reason} ({count})" for reason, count in sorted(filtered.items()))
        raise UserError(f"keep: nothing is left of {len(clips)} clips; keep one of the values there are: {there}")
    return kept, dict(sorted(filtered.items()))


def _write_clips(
    config: WriteConfig, out: Path, clips: Sequence[RawClip], splits: dict[str, str]
) -> tuple[dict[str, Tally], dict[str, ShardWriter], dict[str, str]]:
    """Open and write all clips: tallies and writers by split, and what was quarantined."""
    tallies = {split: Tally() for split in SPLITS if split in set(splits.values())}
    writers = {split: ShardWriter(out, split, config.samples_per_shard) for split in tallies}
    quarantined: dict[str, str] = {}
    ordered = _shuffled(clips, splits, config.split.seed)
    by_key = {clip.key: clip for clip in clips}
    pool: ChildPool[Job, Opened] = ChildPool(
        partial(open_clip, features=config.features, store=config.store),
        config.workers or len(os.sched_getaffinity(0)),
        config.timeout_s,
    )
    jobs = (Job(key=clip.key, video=clip.video, audio=clip.audio, attachments=clip.attachments) for clip in ordered)
    console = Console(stderr=True)
    bar = partial(track, total=len(ordered), console=console, disable=not console.is_terminal, transient=True)
    with closing(pool.run(jobs)) as results:  # an error ends the children at once
        for job, opened in bar(results, "writing"):
            if isinstance(opened, Failure):
                quarantined[job.key] = opened.reason
                _check_quarantine(quarantined, len(ordered), config, out)
                continue
            clip, split = by_key[job.key], splits[job.key]
            record = ClipRecord(
                key=clip.key,
                speaker=clip.speaker,
                split=split,
                duration_s=round(opened.duration_s, 6),
                has_audio=opened.has_audio,
                has_video=opened.has_video,
                words=clip.words,
                source=clip.source,
                labels=clip.labels,
            )
            tallies[split].add(record)
            text = json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True)
            writers[split].add(clip.key, {**opened.members, "json": text.encode()})
    if empty := [split for split, tally in tallies.items() if not tally.clips]:
        raise UserError(
            f"split: every clip of {', '.join(empty)} is unreadable; see {_save_quarantine(quarantined, out)}. Repair "
            "the files, or give the split a larger share or none (0)"
        )
    return tallies, writers, dict(sorted(quarantined.items()))


def _shuffled(clips: Sequence[RawClip], splits: dict[str, str], seed: int) -> list[RawClip]:
    """Split after split, mixed inside: neighbours in a shard should not all be of one speaker."""
    return sorted(
        clips,
        key=lambda clip: (SPLITS.index(splits[clip.key]), hashlib.sha256(f"{seed}:{clip.key}".encode()).digest()),
    )


def _check_quarantine(quarantined: dict[str, str], num_clips: int, config: WriteConfig, out: Path) -> None:
    if len(quarantined) <= config.max_quarantined_share * num_clips:
        return
    first = "; ".join(f"{key}: {reason}" for key, reason in list(quarantined.items())[:3])
    raise UserError(
        f"{len(quarantined)} clips so far cannot be read, more than max_quarantined_share "
        f"({config.max_quarantined_share:g}) of {num_clips}. First: {first}. All of them: "
        f"{_save_quarantine(quarantined, out)}. Nothing usable was written; repair the files, or raise "
        "max_quarantined_share"
    )


def _save_quarantine(quarantined: dict[str, str], out: Path) -> Path:
    path = out / "quarantined.json"
    write_atomically(path, json.dumps(quarantined, indent=1, ensure_ascii=False).encode())
    return path


def _label_counts(tallies: dict[str, Tally]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for tally in tallies.values():
        for label, classes in tally.labels.items():
            counts.setdefault(label, Counter()).update(classes)
    return {label: dict(sorted(classes.items())) for label, classes in sorted(counts.items())}


def _total_counts(tallies: dict[str, Tally]) -> dict[str, int]:
    total = Counter[str]()
    for tally in tallies.values():
        total.update(tally.counts())
    return dict(total)


def _created_by() -> str:
    """Version and, in a checkout, commit of this code."""
    parts = (provenance.version() or "unknown version", provenance.commit())
    return f"{provenance.PACKAGE} " + ", commit ".join(part for part in parts if part)
