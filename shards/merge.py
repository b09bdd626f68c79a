"""Reports of all planned shards -> one shard set.

python -m shards merge OUT [max_quarantined_share=0.02]

Refuses, with the command to run, while a shard is missing. Shards get their final names (numbers without a gap), and
vocabulary, durations and, last, the manifest are written; then OUT/work is removed. `write` without `part` merges too.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from shards.counts.summary import Tally, all_labels, print_summary
from shards.reading.index import load_manifest
from shards.record import Manifest, ShardInfo
from shards.words.words import Vocabulary
from shards.writing.probe import npy
from shards.writing.work_folder import Plan, Report, Work, full_disk_told, locked
from triptych.config import UserError, load
from triptych.files import write_atomically
from triptych.refusals import move, sync


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """What `python -m shards merge` can be told."""

    max_quarantined_share: float | None = None
    """Of all planned clips; that of the config which planned them when not given."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards merge OUT`; returns the exit status, 0."""
    merge(Path(target), load(MergeConfig, {}, overrides).max_quarantined_share)
    return 0


def merge(out: Path, max_quarantined_share: float | None = None) -> Manifest:
    """Make the shard set of what the parts wrote, and print what became of every clip.

    It may be killed and started again at any moment; of a merged shard set it only gives the manifest.

    Raises:
        UserError: nothing was planned, shards are missing or gone again, a split ended empty, more unreadable clips
            than `max_quarantined_share`, or another process is merging.
    """
    work = Work(out)
    plan = work.plan()
    if not (out / "manifest.json").exists() and plan is None:
        raise UserError(
            f"{out}: nothing to merge; `python -m shards write CONFIG out={out}`, or `features`, comes first"
        )
    with full_disk_told(out), (out / ".lock").open("w") as lock:
        if not locked(lock):
            raise UserError(f"{out}: another process is scanning or merging there; wait for it")
        try:
            if (out / "manifest.json").exists():
                Console().print(f"{out}: is merged already", soft_wrap=True, markup=False)
                manifest = load_manifest(out)
            else:
                assert plan is not None
                manifest = _merge(work, plan, max_quarantined_share)
            work.remove()
        finally:
            (out / ".lock").unlink(missing_ok=True)
    return manifest


def _merge(work: Work, plan: Plan, max_quarantined_share: float | None) -> Manifest:
    out, reports = work.out, _reports(work, plan)
    quarantined = {key: reason for report in reports for key, reason in report.quarantined.items()}
    share = plan.max_quarantined_share if max_quarantined_share is None else max_quarantined_share
    _check_quarantine(quarantined, share, plan, work)
    tallies = _tallies(plan, reports)
    if empty := [split for split, tally in tallies.items() if not tally.clips]:
        raise UserError(
            f"split: every clip of {', '.join(empty)} is unreadable; see {work.save_quarantine(quarantined)}. Repair "
            f"the files and run {work.command(plan)} retry=true, or remove {work.folder} and give the split a larger "
            "share or none (0)"
        )
    shards = _place(work, plan, [report.info for report in reports if report.info is not None])
    words = tallies["train"].vocabulary if "train" in tallies else Counter[str]()
    vocabulary = Vocabulary.from_counts(words)
    listed = vocabulary.to_bytes(words)
    write_atomically(out / "vocabulary.txt", listed)
    durations = {split: npy(np.array(tally.durations, dtype=np.float32)) for split, tally in tallies.items()}
    for split, content in durations.items():
        write_atomically(out / f"{split}.durations.npy", content)
    labels = all_labels(tallies.values()).to_json()
    manifest = Manifest(
        corpus=plan.corpus,
        created_by="; ".join(sorted({*plan.created_by, *(report.created_by for report in reports)})),
        split=plan.split,
        found=plan.found,
        written=sum(tally.clips for tally in tallies.values()),
        filtered=plan.filtered,
        quarantined=dict(sorted({**plan.quarantined, **quarantined}.items())),
        shards=shards,
        features=plan.features,
        labels=labels["classes"],
        numbers=labels["numbers"],
        counts=_total_counts(tallies),
        vocabulary_sha256=hashlib.sha256(listed).hexdigest(),
        durations_sha256={split: hashlib.sha256(content).hexdigest() for split, content in durations.items()},
    )
    assert manifest.found == manifest.written + sum(plan.filtered.values()) + len(manifest.quarantined)
    write_atomically(out / "manifest.json", json.dumps(manifest.to_json(), indent=1))
    print_summary(out, manifest, tallies, vocabulary_size=len(vocabulary.words), encoded_anew=plan.encoded_anew)
    return manifest


def _reports(work: Work, plan: Plan) -> list[Report]:
    """One of each shard."""
    reports = [work.report(shard) for shard in plan.shards]
    missing = [shard.name for shard, report in zip(plan.shards, reports, strict=True) if report is None]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{work.out}: {len(missing)} of {len(plan.shards)} shards are missing: {', '.join(missing[:5])}{more}. "
            f"Write them, with or without part=i/n: {work.command(plan)}"
        )
    return [report for report in reports if report is not None]


def _check_quarantine(quarantined: dict[str, str], share: float, plan: Plan, work: Work) -> None:
    if len(quarantined) <= share * plan.num_clips:
        return
    first = "; ".join(f"{key}: {reason}" for key, reason in list(quarantined.items())[:3])
    raise UserError(
        f"{len(quarantined)} clips cannot be read, more than max_quarantined_share ({share:g}) of {plan.num_clips}. "
        f"First: {first}. All of them: {work.save_quarantine(quarantined)}. Repair the files and run "
        f"{work.command(plan)} retry=true, or: python -m shards merge {work.out} max_quarantined_share=SHARE"
    )


def _tallies(plan: Plan, reports: Sequence[Report]) -> dict[str, Tally]:
    """By split; clips in the order of the shards."""
    tallies: dict[str, Tally] = {}
    for shard, report in zip(plan.shards, reports, strict=True):
        tallies.setdefault(shard.split, Tally()).update(report.tally)
    return tallies


def _place(work: Work, plan: Plan, planned: Sequence[ShardInfo]) -> list[ShardInfo]:
    """Move the shards out of the work folder under numbers without a gap: one without a readable clip has none.

    A tar is in one of two places, and its index stays in the work folder too, so that a killed merge can go on.
    """
    numbers = Counter[str]()
    placed = []
    for info in planned:
        stem = f"{info.split}-{numbers[info.split]:06d}"
        numbers[info.split] += 1
        here, there = work.folder / info.name, work.out / f"{stem}.tar"
        try:
            if here.exists():
                move(here, there)
            index = (work.folder / info.index).read_bytes()
            whole = there.stat().st_size == info.size and hashlib.sha256(index).hexdigest() == info.index_sha256
        except OSError:
            whole = False
        if not whole:
            raise UserError(
                f"{here}: the shard or its index is gone or of another size; remove "
                f"{here.with_suffix('.report.json')} and run {work.command(plan)}"
            )
        if there.name != info.name:
            index = json.dumps({**json.loads(index), "shard": there.name}).encode()
        write_atomically(work.out / f"{stem}.index.json", index)
        renamed = replace(info, name=there.name, index=f"{stem}.index.json")
        placed.append(replace(renamed, index_sha256=hashlib.sha256(index).hexdigest()))
    sync(work.out)
    return placed


def _total_counts(tallies: dict[str, Tally]) -> dict[str, int]:
    total = Counter[str]()
    for tally in tallies.values():
        total.update(tally.counts())
    return dict(total)
