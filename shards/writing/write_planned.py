"""Planned shards -> tars and reports in the work folder, whatever their samples are made of."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO

from rich.console import Console

from shards.counts.summary import Tally, lacking
from shards.progress import progress
from shards.record import ClipRecord
from shards.writing.pool import Failure
from shards.writing.tar import ShardWriter
from shards.writing.work_folder import Plan, PlannedShard, Report, Work, full_disk_told, part_of
from triptych import provenance
from triptych.config import UserError
from triptych.modalities import FeatureSpec

EARLY_MIN, EARLY_TIMES = 50, 3
"""A writing stops before `max_quarantined_share` of the whole is used up if there are 50 bad clips and they are three
times the share of those opened so far. Clips come in random order, so that these are a fair sample: with a million
clips, a missing mount is noticed after fifty of them and not after ten thousand, and one bad clip among the first ten
stops nothing."""


@dataclass(frozen=True)
class Sample:
    """What is written of a clip."""

    record: ClipRecord
    members: Mapping[str, bytes]
    """Extension -> bytes of its files."""


Samples = Callable[[Iterator[tuple[PlannedShard, IO[str]]]], Generator[tuple[str, Sample | Failure]]]
"""Planned shards, each with its locked list of clips -> key and sample, or why there is none, of each of their clips in
the order of the shards. Taking the next shard locks it."""


class Quarantine:
    """The clips of this process's shards that could not be read; stops the writing when they are too many.

    Args:
        work: where the list of them is saved then.
        plan: all that is to be written, by all parts.
        share: of all planned clips that may be unreadable.
        reports: of the shards that were done before, by name.
    """

    def __init__(self, work: Work, plan: Plan, share: float, reports: Mapping[str, Report]) -> None:
        self.work, self.num_clips, self.share = work, plan.num_clips, share
        self.reasons = {key: reason for report in reports.values() for key, reason in report.quarantined.items()}
        self.opened = sum(report.tally.clips + len(report.quarantined) for report in reports.values())

    def count(self, key: str, reason: str | None) -> None:
        """Note a clip; None: it can be read."""
        self.opened += 1
        if reason is None:
            return
        self.reasons[key] = reason
        bad = len(self.reasons)
        if bad > self.share * self.num_clips:
            self._stop(f"of {self.num_clips}")
        if bad >= EARLY_MIN and bad > EARLY_TIMES * self.share * self.opened:
            self._stop(f"by far: of the {self.opened} opened so far")

    def _stop(self, of: str) -> None:
        first = "; ".join(f"{key}: {reason}" for key, reason in list(self.reasons.items())[:3])
        raise UserError(
            f"{len(self.reasons)} clips so far cannot be read, more than max_quarantined_share ({self.share:g}) {of}. "
            f"First: {first}. All of them: {self.work.save_quarantine(self.reasons)}. Repair the files or "
            "raise timeout_s, and run this again with retry=true, or raise max_quarantined_share; shards that are done "
            "stay"
        )


class _Shard:
    """A planned shard that is being written. Its list of clips stays locked until it is done.

    Args:
        work: where.
        shard: which.
        may_lack: features that a clip need not have.
    """

    def __init__(self, work: Work, shard: PlannedShard, may_lack: Sequence[FeatureSpec]) -> None:
        self.work, self.shard, self.may_lack = work, shard, may_lack
        self._claim = ExitStack()
        self.file = self._claim.enter_context(work.claim(shard))
        work.remove_unfinished(shard)
        self.left = shard.num_clips
        self._tar = ShardWriter(work.folder, shard.name, shard.split)
        self._tally = Tally(lacking=Counter({spec.name: 0 for spec in may_lack}))
        self._quarantined: dict[str, str] = {}

    def add(self, key: str, sample: Sample | Failure) -> None:
        """Write a clip, or note why it cannot be."""
        self.left -= 1
        if isinstance(sample, Failure):
            self._quarantined[key] = sample.reason
            return
        self._tally.add(sample.record, lacking(sample.record, sample.members, self.may_lack))
        self._tar.add(key, sample.members)

    def finish(self, created_by: str) -> None:
        """Put the tar in its place, then the report, then give up the lock."""
        with self._claim:
            report = Report(
                info=self._tar.finish(),
                quarantined=self._quarantined,
                tally=self._tally,
                created_by=created_by,
            )
            self.work.save_report(self.shard, report)

    def release(self) -> None:
        """Give up the lock of a shard that is not done."""
        self._claim.close()


def fill(work: Work, plan: Plan, todo: Sequence[PlannedShard], samples: Samples, quarantine: Quarantine) -> None:
    """Write the clips of these shards.

    `samples` sees them all at once, so that its child processes go on with the next shard while the last clips of one
    are slow; and a thread hashes and syncs the shard before.

    Raises:
        UserError: too many clips are unreadable, or another process is writing one of the shards.
    """
    created_by = _created_by()
    may_lack = [spec for spec in map(FeatureSpec.from_json, plan.features) if spec.optional]
    writing: deque[_Shard] = deque()

    def claimed() -> Iterator[tuple[PlannedShard, IO[str]]]:
        for planned in todo:
            shard = _Shard(work, planned, may_lack)
            writing.append(shard)
            yield planned, shard.file

    total = quarantine.opened + sum(shard.num_clips for shard in todo)
    finishing: Future[None] | None = None
    try:
        with (
            ThreadPoolExecutor(1) as finisher,
            closing(samples(claimed())) as results,  # an error ends its children at once
            progress("writing", total, done=quarantine.opened) as advance,
        ):
            for key, sample in results:
                quarantine.count(key, sample.reason if isinstance(sample, Failure) else None)
                writing[0].add(key, sample)
                advance(1)
                if not writing[0].left:
                    if finishing is not None:
                        finishing.result()
                    finishing = finisher.submit(writing.popleft().finish, created_by)
            if finishing is not None:
                finishing.result()
        assert not writing, "fewer samples than planned"
    finally:
        for shard in writing:  # some are left after an error
            shard.release()


def fill_part(work: Work, plan: Plan, samples: Samples, *, part: str | None, retry: bool, most_bad: float) -> None:
    """Write those shards of a part that are not written yet, and say so.

    Args:
        work: where the plan lies.
        plan: all shards.
        samples: what they are made of.
        part: "i/n", or None for all.
        retry: write shards with quarantined clips again.
        most_bad: share of all planned clips that may be unreadable.

    Raises:
        UserError: as of `fill`, or a full disk.
    """
    number, of = part_of(part)
    mine = plan.shards[number - 1 :: of]
    with full_disk_told(work.out):
        reports = work.reports(mine, retry=retry)
        quarantine = Quarantine(work, plan, most_bad, reports)
        if todo := [shard for shard in mine if shard.name not in reports]:
            fill(work, plan, todo, samples, quarantine)
    if part:
        bad = f"{len(quarantine.reasons)} of {quarantine.opened} clips quarantined"
        console = Console()
        console.print(f"part {part}: {len(mine)} shards are written, {bad}", markup=False, soft_wrap=True)
        console.print(f"after all parts: python -m shards merge {work.out}", markup=False, soft_wrap=True)


def _created_by() -> str:
    """Version and, in a checkout, commit of this code."""
    parts = (provenance.version() or "unknown version", provenance.commit())
    return f"{provenance.PACKAGE} " + ", commit ".join(part for part in parts if part)
