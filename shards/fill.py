"""Planned shards -> tars and reports in the work folder: clips are opened by child processes, and written here."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

from shards.pool import ChildPool, Failure
from shards.probe import Job, Opened
from shards.progress import progress
from shards.record import ClipRecord
from shards.summary import Tally
from shards.tar import ShardWriter
from shards.work import Plan, PlannedShard, Report, Work
from triptych import provenance
from triptych.config import UserError

EARLY_MIN, EARLY_TIMES = 50, 3
"""A writing stops before `max_quarantined_share` of the whole is used up if there are 50 bad clips and they are three
times the share of those opened so far. Clips come in random order, so that these are a fair sample: with a million
clips, a missing mount is noticed after fifty of them and not after ten thousand, and one bad clip among the first ten
stops nothing."""


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
            f"First: {first}. All of them: {self.work.save_quarantine(self.reasons)}. Repair the files and run this "
            "again with retry=true, or raise max_quarantined_share; shards that are done stay"
        )


class _Shard:
    """A planned shard that is being written. Its list of clips stays locked until it is done.

    Args:
        work: where.
        shard: which.
    """

    def __init__(self, work: Work, shard: PlannedShard, created_by: str) -> None:
        self.work, self.shard, self.created_by = work, shard, created_by
        self._claim = ExitStack()
        file = self._claim.enter_context(work.claim(shard))
        work.remove_unfinished(shard)
        self.clips = {clip.key: clip for clip in work.clips(shard, file)}
        self.left = len(self.clips)
        self._tar = ShardWriter(work.folder, shard.name, shard.split)
        self._tally = Tally()
        self._quarantined: dict[str, str] = {}

    def add(self, key: str, opened: Opened | Failure) -> None:
        """Write a clip, or note why it cannot be."""
        self.left -= 1
        if isinstance(opened, Failure):
            self._quarantined[key] = opened.reason
            return
        clip = self.clips[key]
        record = ClipRecord(
            key=clip.key,
            speaker=clip.speaker,
            split=self.shard.split,
            duration_s=round(opened.duration_s, 6),
            has_audio=opened.has_audio,
            has_video=opened.has_video,
            words=clip.words,
            source=clip.source,
            labels=clip.labels,
        )
        self._tally.add(record)
        text = json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True)
        self._tar.add(clip.key, {**opened.members, "json": text.encode()})

    def finish(self) -> None:
        """Put the tar in its place, then the report, then give up the lock."""
        with self._claim:
            report = Report(
                info=self._tar.finish(),
                quarantined=self._quarantined,
                tally=self._tally,
                created_by=self.created_by,
            )
            self.work.save_report(self.shard, report)

    def release(self) -> None:
        """Give up the lock of a shard that is not done."""
        self._claim.close()


def fill(work: Work, todo: Sequence[PlannedShard], pool: ChildPool[Job, Opened], quarantine: Quarantine) -> None:
    """Open and write the clips of these shards.

    One pool opens them all, so that its children go on with the next shard while the last clips of one are slow, and a
    thread hashes and syncs the shard before.

    Raises:
        UserError: too many clips are unreadable, or another process is writing one of the shards.
    """
    created_by = _created_by()
    writing: deque[_Shard] = deque()

    def jobs() -> Iterator[Job]:
        for planned in todo:
            shard = _Shard(work, planned, created_by)
            writing.append(shard)
            for clip in shard.clips.values():
                yield Job(key=clip.key, video=clip.video, audio=clip.audio, attachments=clip.attachments)

    total = quarantine.opened + sum(shard.num_clips for shard in todo)
    finishing: Future[None] | None = None
    try:
        with (
            ThreadPoolExecutor(1) as finisher,
            closing(pool.run(jobs())) as results,  # an error ends the children at once
            progress("writing", total, done=quarantine.opened) as advance,
        ):
            for job, opened in results:
                quarantine.count(job.key, opened.reason if isinstance(opened, Failure) else None)
                writing[0].add(job.key, opened)
                advance()
                if not writing[0].left:
                    if finishing is not None:
                        finishing.result()
                    finishing = finisher.submit(writing.popleft().finish)
            if finishing is not None:
                finishing.result()
    finally:
        for shard in writing:  # some are left after an error
            shard.release()


def _created_by() -> str:
    """Version and, in a checkout, commit of this code."""
    parts = (provenance.version() or "unknown version", provenance.commit())
    return f"{provenance.PACKAGE} " + ", commit ".join(part for part in parts if part)
