"""Raw corpus -> shard set: every clip is opened, checked, written or accounted for.

python -m shards write CONFIG [a.b=c ...]               all of it
python -m shards write CONFIG check=true [a.b=c ...]    look for the clips, print and save the plan, open nothing
python -m shards write CONFIG part=3/40 [a.b=c ...]     the third of 40 shares, on as many machines at once
python -m shards merge OUT                              after all parts: the manifest, and the shards in their place

The plan, and what is written so far, lie in OUT/work until the merge. After a kill, the same command goes on: shards
that are done stay. slurm/shards.sbatch runs the parts as a job array.
"""

import logging
import math
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from shards.corpora.config import CorpusConfig
from shards.counts.label_counts import check_labels
from shards.divisions.split import SplitConfig, account, divide, print_split
from shards.features.config import FeaturesConfig, build
from shards.media.cut import from_start
from shards.media.media_form import StoreConfig
from shards.merge import merge
from shards.record import ClipRecord, Manifest, RawClip
from shards.writing.assign import check_unique, deal, read_exclude, select, set_aside, too_many_unusable
from shards.writing.pool import ChildPool, Failure
from shards.writing.probe import Job, Opened, encoded_anew, open_clip
from shards.writing.work_folder import Plan, PlannedShard, Work, as_identity, part_of
from shards.writing.write_planned import Sample, fill_part
from triptych.config import UserError, chosen, dump, find, load, to_dict

logger = logging.getLogger(__name__)

_MEASURED_CLIPS = 200
_SHOWN_UNUSABLE = 20


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
    exclude: str | None = None
    """File of video ids or keys, one a line; their clips are counted as filtered."""
    min_confidence: float | None = None
    """Of a clip's words on average; clips below it, or without any, are counted as filtered."""
    samples_per_shard: int = 1000
    workers: int | None = None
    """Child processes that open clips; as many as the cores this process may use when not given."""
    timeout_s: float = 60.0
    """For one clip; the first one of a child also loads what its features need."""
    max_quarantined_share: float = 0.01
    """More unreadable clips than this share stop the writing: then something else is wrong than a few files. More that
    the corpus itself calls unusable (a file that its lists name is not there) stop it before anything is opened."""
    part: str | None = None
    """i/n: write the i-th of n shares of the shards, and leave the rest and the merge to others."""
    check: bool = False
    """Plan only."""
    retry: bool = False
    """Write shards with quarantined clips again, as after repairing the files."""

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard: {self.samples_per_shard}; expected 1 or more")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: {self.workers}; expected 1 or more")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s: {self.timeout_s}; expected more than 0")
        if not 0 <= self.max_quarantined_share <= 1:
            raise ValueError(f"max_quarantined_share: {self.max_quarantined_share}; expected 0 to 1")
        if self.min_confidence is not None and not math.isfinite(self.min_confidence):
            raise ValueError(f"min_confidence: {self.min_confidence}; expected a number")
        part_of(self.part)


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards write CONFIG [a.b=c ...]`; returns the exit status, 0."""
    config = load(WriteConfig, find(target, "shards"), overrides)
    if config.check:
        plan = prepare(config)
        _print_plan(config, Work(Path(config.out)), plan)
    elif config.part:
        write_part(config)
    else:
        write(config)
    return 0


def write(config: WriteConfig) -> Manifest:
    """Write a shard set and print what became of every clip.

    The same corpus and config give the same bytes, whatever the number of parts, workers and interruptions.

    Args:
        config: `part` and `check` are not looked at; see `write_part` and `prepare`.

    Returns:
        The manifest, which is also on disk: it is written last, so a folder without it is not finished.

    Raises:
        UserError: the folder already holds a shard set or another plan, is being written to or is on a full disk;
            nothing or contradictions in the corpus; a split that would be empty; more unreadable clips than
            `max_quarantined_share`.
    """
    out = Path(config.out)
    if not ((out / "manifest.json").exists() and Work(out).folder.exists()):  # else killed just before the end
        write_part(replace(config, part=None))
    return merge(out, config.max_quarantined_share)


def write_part(config: WriteConfig) -> None:
    """Write the shards of `config.part` (None: all) that are not written yet, and merge nothing.

    Raises:
        UserError: as of `write`.
    """
    work, plan, samples = Work(Path(config.out)), prepare(config), partial(_samples, config)
    fill_part(work, plan, samples, part=config.part, retry=config.retry, most_bad=config.max_quarantined_share)


def _samples(
    config: WriteConfig, shards: Iterator[tuple[PlannedShard, IO[str]]]
) -> Generator[tuple[str, Sample | Failure]]:
    """The clips of planned shards, opened by child processes."""
    work, workers = Work(Path(config.out)), config.workers or len(os.sched_getaffinity(0))
    pool: ChildPool[Job, Opened] = ChildPool(
        partial(open_clip, features=config.features, store=config.store), workers, config.timeout_s
    )
    opening: deque[tuple[RawClip, str]] = deque()

    def jobs() -> Iterator[Job]:
        for shard, file in shards:
            for clip in work.clips(shard, file):
                opening.append((clip, shard.split))
                yield Job.of(clip)

    with closing(pool.run(jobs())) as results:
        for _, opened in results:
            clip, split = opening.popleft()
            clip = from_start(clip)
            yield clip.key, opened if isinstance(opened, Failure) else _sample(clip, split, opened)


def _sample(clip: RawClip, split: str, opened: Opened) -> Sample:
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
        frames=opened.frames,
    )
    return Sample(record, {**opened.members, "json": record.to_bytes()})


def prepare(config: WriteConfig) -> Plan:
    """The plan of this config: that of the work folder, else of a scan of the corpus, which is saved there.

    Raises:
        UserError: the folder already holds a shard set or the plan of another config, or cannot be written; nothing
            or contradictions in the corpus; unless `config.check`, more unusable clips than `max_quarantined_share`.
    """
    identity, work = _identity(config), Work(Path(config.out))
    plan = work.prepare(identity, lambda: _scan(config, identity, work))
    if not config.check and (told := _too_many(config, plan)):
        raise UserError(f"{told}. ({work.folder} keeps what was found: remove it to look again)")
    return plan


def _too_many(config: WriteConfig, plan: Plan) -> str | None:
    return too_many_unusable(plan.quarantined, plan.num_clips, config.max_quarantined_share)


def _identity(config: WriteConfig) -> dict[str, Any]:
    """Field -> value of all that the shards depend on, as "split.seed": 0."""
    values = to_dict(config)
    for name in ("out", "workers", "timeout_s", "max_quarantined_share", "part", "check", "retry"):
        del values[name]
    if config.exclude is not None:
        values["exclude"] = (
            "names " + sha256("\n".join(sorted(read_exclude(Path(config.exclude)))).encode()).hexdigest()
        )
    return as_identity(values)


def _scan(config: WriteConfig, identity: dict[str, Any], work: Work) -> None:
    name, corpus = chosen(config.corpus)
    with Console(stderr=True).status("looking for clips"):  # silent where there is no terminal
        found = list(corpus.clips())
        check_unique(found)
        check_labels(found)
        exclude = None if config.exclude is None else read_exclude(Path(config.exclude))
        kept, filtered = select(found, keep=config.keep, exclude=exclude, min_confidence=config.min_confidence)
        kept, unusable = set_aside(kept)
        assigned = divide(kept, config.split)
        for leak in assigned.leaks:
            logger.warning("split %s: by design, %s", assigned.rule, leak)
        shards = list(deal(kept, assigned, config.split.seed, config.samples_per_shard))
        plan = Plan(
            identity=identity,
            corpus=name,
            split=account(assigned, to_dict(config.split)),
            features=[feature.spec.to_json() for feature in build(config.features).values()],
            max_quarantined_share=config.max_quarantined_share,
            found=len(found),
            filtered=filtered | {f"split: {reason}": number for reason, number in assigned.reasons.items()},
            quarantined=unusable,
            encoded_anew=dict(Counter(ending for clip in kept for ending in encoded_anew(clip))),
            shards=[PlannedShard(name=name, split=split, num_clips=len(clips)) for name, split, clips in shards],
        )
        if not config.check and (told := _too_many(config, plan)):
            raise UserError(told)  # nothing is kept: with the files put right, the next scan finds them
        again = dump(replace(config, part=None, check=False, retry=False))
        work.save(plan, ((name, clips) for name, _, clips in shards), again)


def _print_plan(config: WriteConfig, work: Work, plan: Plan) -> None:
    """What there is to write, and how large it will be about."""
    console = Console()
    done = sum(work.is_done(shard) for shard in plan.shards)
    told = f"{work.out}: {plan.corpus}, {done} of {len(plan.shards)} shards are written"
    console.print(told, soft_wrap=True, markup=False)
    table = Table()
    for column in ("split", "clips", "shards"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in dict.fromkeys(shard.split for shard in plan.shards):
        sizes = [shard.num_clips for shard in plan.shards if shard.split == split]
        table.add_row(split, str(sum(sizes)), str(len(sizes)))
    console.print(table)
    account = f"found {plan.found} = to write {plan.num_clips} + filtered {sum(plan.filtered.values())}"
    console.print(f"{account} + unusable {len(plan.quarantined)}")
    for reason, count in plan.filtered.items():
        console.print(f"  filtered: {count} with {reason}", markup=False)
    for key, reason in list(plan.quarantined.items())[:_SHOWN_UNUSABLE]:
        console.print(f"  unusable: {key}: {reason}", soft_wrap=True, markup=False)
    if len(plan.quarantined) > _SHOWN_UNUSABLE:
        console.print(f"  all of them: quarantined in {work.folder / 'plan.json'}", soft_wrap=True, markup=False)
    for ending, count in plan.encoded_anew.items():
        console.print(f"  encoded anew, for no reader looks for them: {count} {ending}", markup=False)
    if too_many := _too_many(config, plan):
        console.print(f"the writing will stop: {too_many}", soft_wrap=True, markup=False)
    print_split(console, plan.split)
    mean, measured = _mean_bytes(work, plan)
    console.print(f"files of about {mean * plan.num_clips / 1e9:.3g} GB, judging by {measured} clips; cuts not counted")
    console.print(f"write all: {work.command(plan)}", soft_wrap=True, markup=False)
    console.print(f"or a share of it: {work.command(plan)} part=i/n", soft_wrap=True, markup=False)


def _mean_bytes(work: Work, plan: Plan) -> tuple[float, int]:
    """Mean size of the files of the first shard's first clips, which are a random choice; and how many these are."""
    first = plan.shards[0]
    with (work.folder / f"{first.name}.jsonl").open() as file:
        clips = work.clips(first, file)[:_MEASURED_CLIPS]
    files = [path for clip in clips for path in clip.attachments.values()]
    for clip in clips:
        if clip.cut is None:  # else the file is the whole recording, of which many clips are cut
            files += [path for path in (clip.video, clip.audio) if path is not None]
    return sum(path.stat().st_size for path in files if path.exists()) / len(clips), len(clips)
