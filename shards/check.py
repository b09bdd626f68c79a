"""`python -m shards check FOLDER`: is every byte what was written, and does the manifest account for every clip?

Reads the tars twice over: by the index, as training does, and by their own headers, as anybody else does. Of some
clips, says how sound, picture and words lie in time (`shards.counts.offsets`), which is no error: a person must look.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from shards.counts import offsets
from shards.counts.summary import Tally, all_labels, without
from shards.divisions.split import misplaced
from shards.features.words import WORDS
from shards.media.decode import OTHER_MEDIA
from shards.reading import npy
from shards.reading.headers import header_problems
from shards.reading.index import DamagedShard, ShardSet, check_size, first_lost, load_index, load_manifest, read_member
from shards.reading.storage import Folder
from shards.record import SPLITS, ClipRecord, Manifest, ShardIndex, ShardInfo
from shards.words.words import Vocabulary
from triptych.config import UserError
from triptych.labels import form_of
from triptych.modalities import FeatureSpec

CHECKS = {
    "accounting": "found = written + quarantined + filtered, written = clips of all shards",
    "shards": "each tar is there, whole, and has its SHA-256",
    "indexes": "each index is there and has its SHA-256",
    "members": "each file of each clip has its CRC-32",
    "headers": "the tar's own headers agree with the index",
    "records": "each clip's JSON is a record of this key and split",
    "media": "no clip has a picture or a sound in a form that no reader looks for",
    "features": "each stored feature has its dtype and shape, and no clip lacks one that it must have",
    "splits": "no key comes twice, no group is on two sides",
    "totals": "words, seconds, labels and missing streams are as counted in the manifest",
    "durations": "each split's durations.npy has its SHA-256 and the seconds of the clips in their order",
    "vocabulary": "vocabulary.txt has its SHA-256 and the words of the training split",
}
IN_A_SHARD = {"members", "headers", "records", "media", "features", "splits"}
MANIFEST = "manifest.json"
SHOWN_PER_SHARD = 5
MAX_THREADS = 8


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written."""

    check: str
    """A key of CHECKS."""
    where: str
    what: str


@dataclass
class Found:
    """What was seen in one shard, or in all of them."""

    problems: list[Problem] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Of all clips that the index lists."""
    records: list[ClipRecord] = field(default_factory=list)
    """Of the clips whose JSON is good."""
    cut: Counter[str] = field(default_factory=Counter)
    """Feature -> clips longer than its max_length, which reading cuts."""
    lacking: Counter[str] = field(default_factory=Counter)
    """Optional feature -> clips that have the medium and not the feature (a picture without a face)."""

    incomplete: set[str] = field(default_factory=set)
    """Checks that something bad kept from being made everywhere: what was not looked at is not called good."""

    def add(self, check: str, where: str, what: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(check, where, what))


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Check a shard set and print what is good and what is bad, and where.

    Args:
        target: its folder.
        overrides: none are known.

    Returns:
        The exit status: 0 if everything is as it was written, else 1.

    Raises:
        UserError: the folder is no shard set, or its manifest cannot be read.
    """
    if overrides:
        raise UserError(f"check: takes one folder; unexpected: {' '.join(overrides)}")
    if "://" in target:
        raise UserError(
            f"{target}: check reads a folder: run it where the set lies, before it is uploaded; shards of a URL are "
            "verified by their SHA-256 whenever they are downloaded"
        )
    console, folder = Console(), Path(target)
    manifest = load_manifest(folder)
    found = inspect(folder, manifest, quiet=not console.is_terminal)
    bad = Counter(problem.check for problem in found.problems)
    console.print(
        f"{folder}: {len(found.keys)} clips read in {len(manifest.shards)} shards", soft_wrap=True, markup=False
    )
    table = Table()
    for heading in ("check", "result", "says"):
        table.add_column(heading)
    for check, says in CHECKS.items():
        result = "[yellow]incomplete[/]" if check in found.incomplete else "[green]ok[/]"
        table.add_row(check, f"[red]bad: {bad[check]}[/]" if bad[check] else result, says)
    console.print(table)
    for name, number in (+found.cut).items():
        console.print(f"{number} clips are longer than {name} keeps; reading cuts them")
    for name, number in (+found.lacking).items():
        console.print(f"{number} clips have the medium of {name}, but nothing in it to make {name} of")
    if not found.problems:  # only bytes that are whole are decoded
        for offset in offsets.of_folder(folder, quiet=not console.is_terminal):
            for sentence in offset.told():
                console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    _print_problems(console, found.problems)
    return 1 if found.problems else 0


def inspect(folder: Path, manifest: Manifest, *, quiet: bool) -> Found:
    """Everything that `run` prints."""
    specs = [FeatureSpec.from_json(fields) for fields in manifest.features]
    found, keys, groups = Found(), Counter[str](), dict[str, set[str]]()
    tallies = {split: Tally() for split in SPLITS}
    by = str(manifest.split.get("by"))
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        shards = pool.map(lambda info: _check_shard(folder, info, specs), manifest.shards)
        for shard in track(shards, "checking", total=len(manifest.shards), disable=quiet):
            found.problems += shard.problems
            found.keys += shard.keys
            found.cut += shard.cut
            found.lacking += shard.lacking
            found.incomplete |= shard.incomplete
            for record in shard.records:
                if record.split in tallies:
                    tallies[record.split].add(record)
                if (group := _group(record, by)) is not None:
                    groups.setdefault(group, set()).add(record.split)
                if (told := misplaced(record, by)) is not None:
                    found.add("splits", record.key, told)
    keys.update(found.keys)
    _check_accounting(manifest, found)
    _check_splits(manifest, keys, groups, found)
    all_there = not found.problems  # with clips missing, totals and words would only repeat it
    _check_vocabulary(folder, manifest, tallies["train"] if all_there else None, found)
    if all_there:
        _check_totals(manifest, tallies, found)
        _check_durations(folder, tallies, found)
    else:
        found.incomplete |= {"totals", "durations", "vocabulary"}
    return found


def _check_shard(folder: Path, info: ShardInfo, specs: Sequence[FeatureSpec]) -> Found:
    found, path = Found(), folder / info.name
    try:
        with path.open("rb") as tar:
            head = tar.read(512)
            if head[257:262] != b"ustar":
                lost = ""
                with suppress(DamagedShard):  # an index that is damaged, too, does not matter here
                    lost = first_lost(Folder(folder), info, 0)
                found.add("shards", info.name, f"is not a tar; it starts with {head[:40]!r}{lost}")
                found.incomplete |= IN_A_SHARD | {"indexes"}
                return found
            _check_content(folder, info, found)
            try:
                index = load_index(Folder(folder), info)
            except DamagedShard as error:
                found.add("indexes", info.name, str(error))
                found.incomplete |= IN_A_SHARD
                return found
            for problem in header_problems(path, index):
                found.add("headers", info.name, problem)
            for key, listed in index.samples.items():
                found.keys.append(key)
                members = _members(tar, index, key, found)
                record = _check_sample(info, key, listed, members, found)
                if record is not None:
                    found.records.append(record)
                    for spec in specs:
                        name = f"{spec.name}.npy"
                        if name in members or name not in listed:  # a damaged one is named already
                            _check_feature(info.name, record, members, spec, found)
    except OSError as error:
        found.add("shards", info.name, f"cannot be read ({error.strerror})")
        found.incomplete |= IN_A_SHARD | {"indexes"}
    return found


def _check_content(folder: Path, info: ShardInfo, found: Found) -> None:
    try:
        check_size(Folder(folder), info)
    except DamagedShard as error:
        found.add("shards", info.name, str(error))
        return
    with (folder / info.name).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != info.sha256:
            found.add("shards", info.name, "its bytes are not those that were written (SHA-256 differs)")


def _members(tar: io.BufferedReader, index: ShardIndex, key: str, found: Found) -> dict[str, bytes]:
    members = {}
    for extension, member in index.samples[key].items():
        try:
            members[extension] = read_member(tar, f"{key}.{extension}", member.offset, member.size, member.crc32)
        except DamagedShard as error:
            found.add("members", index.shard, str(error))
    return members


def _check_sample(
    info: ShardInfo, key: str, listed: Collection[str], members: Mapping[str, bytes], found: Found
) -> ClipRecord | None:
    """The clip's record, if it is good."""
    if "json" not in listed:
        found.add("records", info.name, f"{key}: has no JSON")
    if "json" not in members:  # not listed, or damaged and already named
        found.incomplete |= {"records", "media", "features", "splits"}
        return None
    try:
        record = ClipRecord.from_json(json.loads(members["json"]))
        for value in record.labels.values():
            form_of(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found.add("records", info.name, f"{key}: its JSON is no record ({error})")
        return None
    if (record.key, record.split) != (key, info.split):
        found.add("records", info.name, f"{key}: says that it is {record.key} of {record.split}")
    if lost := [extension for extension in listed if extension in OTHER_MEDIA]:
        told = f"{key}: .{', .'.join(lost)} is read by nobody, and was stored by an older version; write the clip again"
        found.add("media", info.name, told)
    found.cut[WORDS.name] += int(len(record.words or ()) > WORDS.max_length)
    return record


def _check_feature(
    shard: str, record: ClipRecord, members: Mapping[str, bytes], spec: FeatureSpec, found: Found
) -> None:
    name, times = f"{record.key}.{spec.name}.npy", members.get(f"{spec.name}.times.npy")
    content = members.get(f"{spec.name}.npy")
    if content is None:
        has_medium = {"audio": record.has_audio, "video": record.has_video}.get(spec.modality, False)
        if has_medium and spec.optional:
            found.lacking[spec.name] += 1
        elif has_medium:
            found.add("features", shard, f"{name}: is not there, and the clip has {spec.modality}")
        return
    try:
        values = npy.from_bytes(content)
    except ValueError as error:
        found.add("features", shard, f"{name}: cannot be read ({error})")
        return
    if values.dtype != np.dtype(spec.dtype) or values.shape[1:] != spec.shape:
        expected = f"{spec.dtype} {['T', *spec.shape]}"
        found.add("features", shard, f"{name}: holds {values.dtype} {list(values.shape)}, expected {expected}")
    found.cut[spec.name] += int(len(values) > spec.max_length)
    if spec.is_timed:
        _check_times(shard, f"{record.key}.{spec.name}.times.npy", times, len(values), found)


def _check_times(shard: str, name: str, content: bytes | None, num_steps: int, found: Found) -> None:
    try:
        times = npy.from_bytes(content or b"")
    except ValueError as error:
        found.add("features", shard, f"{name}: cannot be read ({error})")
        return
    if times.dtype != np.float32 or times.shape != (num_steps, 2):
        expected = f"expected float32 {[num_steps, 2]}"
        found.add("features", shard, f"{name}: holds {times.dtype} {list(times.shape)}, {expected}")


def _group(record: ClipRecord, split_by: str) -> str | None:
    """What the clip must share its split with; read off the record, not taken from the code that drew the split."""
    rule, _, number = split_by.partition(":")
    if rule == "speaker":
        return record.speaker
    if rule == "video":
        return record.source.get("video")
    if rule == "transcript_prefix" and record.words:
        return " ".join(word.text.lower() for word in record.words[: int(number)])
    return None


def _check_accounting(manifest: Manifest, found: Found) -> None:
    filtered, quarantined = sum(manifest.filtered.values()), len(manifest.quarantined)
    if manifest.found != manifest.written + quarantined + filtered:
        account = f"written {manifest.written} + quarantined {quarantined} + filtered {filtered}"
        found.add("accounting", MANIFEST, f"found {manifest.found} is not {account}")
    in_shards = sum(shard.num_samples for shard in manifest.shards)
    if manifest.written != in_shards:
        found.add("accounting", MANIFEST, f"written {manifest.written}, but its shards hold {in_shards} clips")


def _check_splits(manifest: Manifest, keys: Counter[str], groups: Mapping[str, set[str]], found: Found) -> None:
    for shard in manifest.shards:
        if shard.split not in SPLITS:
            found.add("splits", shard.name, f"split {shard.split!r} is none of {', '.join(SPLITS)}")
    for key, number in keys.items():
        if number > 1:
            found.add("splits", key, f"the key comes {number} times")
    for group, splits in groups.items():
        if len(splits) > 1:
            by = manifest.split.get("by")
            found.add("splits", group, f"this group (split by {by}) is in {' and '.join(sorted(splits))}")


def _check_totals(manifest: Manifest, tallies: Mapping[str, Tally], found: Found) -> None:
    counts = Counter[str]()
    for tally in tallies.values():
        counts.update(tally.counts())
    counts.update(without(found.lacking))
    for name, number in manifest.counts.items():
        if counts[name] != number:
            found.add("totals", MANIFEST, f"{name}: {number}, the clips have {counts[name]}")
    labels = all_labels(tallies.values()).to_json()
    if manifest.labels != labels["classes"]:
        found.add("totals", MANIFEST, f"labels: {manifest.labels}, the clips have {labels['classes']}")
    for name in sorted(manifest.numbers.keys() ^ labels["numbers"].keys()):
        where = "the manifest" if name in manifest.numbers else "the clips"
        found.add("totals", MANIFEST, f"numbers: {name} is in {where} only")
    for name in sorted(manifest.numbers.keys() & labels["numbers"].keys()):
        listed, seen = manifest.numbers[name], labels["numbers"][name]
        if differing := [figure for figure in seen if listed.get(figure) != seen[figure]]:
            figure = differing[0]
            what = f"numbers: {name}: {figure} {listed.get(figure)}, the clips have {seen[figure]}"
            found.add("totals", MANIFEST, what)


def _check_durations(folder: Path, tallies: Mapping[str, Tally], found: Found) -> None:
    shard_set = ShardSet(folder)
    for split, tally in tallies.items():
        if not tally.clips:
            continue
        try:
            listed = shard_set.split(split).durations
        except UserError as error:
            found.add("durations", f"{split}.durations.npy", str(error))
            continue
        if not np.array_equal(listed, np.array(tally.durations, dtype=np.float32)):
            found.add("durations", f"{split}.durations.npy", "other seconds than the clips' own")


def _check_vocabulary(folder: Path, manifest: Manifest, train: Tally | None, found: Found) -> None:
    """The file's hash and, where all of the training split was read, its words."""
    try:
        words = Vocabulary.load(folder / "vocabulary.txt", manifest.vocabulary_sha256).words
    except UserError as error:
        found.add("vocabulary", "vocabulary.txt", str(error))
        return
    counted = words if train is None else Vocabulary.from_counts(train.vocabulary).words
    if words != counted:
        differ = next(pair for pair in zip_longest(words, counted) if pair[0] != pair[1])
        found.add("vocabulary", "vocabulary.txt", f"has {differ[0]!r} where the training split gives {differ[1]!r}")


def _print_problems(console: Console, problems: Sequence[Problem]) -> None:
    shown: Counter[str] = Counter()
    for problem in problems:
        shown[problem.where] += 1
        if shown[problem.where] <= SHOWN_PER_SHARD:
            console.print(f"[red]{problem.check}[/] {escape(problem.where)}: {escape(problem.what)}", soft_wrap=True)
    for where, number in shown.items():
        if number > SHOWN_PER_SHARD:
            console.print(f"{escape(where)}: and {number - SHOWN_PER_SHARD} more", soft_wrap=True)
    if problems:
        console.print("What to do: copy the named shards again from where they were written, or write the set again.")
