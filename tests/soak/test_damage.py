"""Damaged media never get into a shard unnoticed, and damaged shards never into a run."""

import re
from collections import Counter
from functools import partial
from pathlib import Path

import damage
import numpy as np
import pytest

from shards import check
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.media.media_form import StoreConfig
from shards.reading.index import ShardSet, load_index, load_manifest
from shards.reading.storage import Folder
from shards.writing.pool import ChildPool, Failure
from shards.writing.probe import Job, Opened, open_clip
from triptych.config import UserError

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

FEATURES = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig()), video=VideoFeature(face_crops=FaceCropsConfig(size=8)))


def test_each_damaged_clip_is_read_or_has_a_reason(demo, trials, random, record_property, tmp_path: Path) -> None:
    whole = [path.read_bytes() for path in sorted((demo.shards.parent / "raw").rglob("*.mp4"))[:8]]
    jobs, kinds = [], {}
    for number in range(trials(400)):
        kind, damage = list(DAMAGES.items())[number % len(DAMAGES)]
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(damage(random, bytearray(whole[number % len(whole)])))
        jobs.append(Job(key=str(number), video=path, audio=None))
        kinds[str(number)] = kind
    pool: ChildPool[Job, Opened] = ChildPool(
        partial(open_clip, features=FEATURES, store=StoreConfig()), 2, timeout_s=60
    )
    came_of_it, keys = Counter[str](), []
    for job, result in pool.run(jobs):
        keys.append(job.key)
        if isinstance(result, Failure):
            assert result.reason
            assert not re.match(r"\w+(Error|Exception): ", result.reason), (kinds[job.key], result.reason)  # unforeseen
            died = "crashed" if "died" in result.reason else "refused"
            came_of_it[f"{kinds[job.key]}: {died}"] += 1
        else:
            assert result.duration_s > 0
            assert result.has_audio or result.has_video
            came_of_it[f"{kinds[job.key]}: read"] += 1
    assert keys == [job.key for job in jobs]
    record_property("measured", ", ".join(f"{kind} {count}" for kind, count in sorted(came_of_it.items())))


def test_each_damaged_byte_of_a_shard_is_found(demo, trials, random, record_property) -> None:
    """By the check always; by reading, too, where it is a clip's or an index's."""
    manifest = load_manifest(demo.shards)
    names = [name for shard in manifest.shards for name in (shard.name, shard.index)] + ["vocabulary.txt"]
    sizes = np.array([(demo.shards / name).stat().st_size for name in names])
    met, seen = Counter[str](), Counter[str]()
    for number in range(trials(300)):
        # every other time any file alike, since nearly all bytes are in the largest tar
        chances = sizes / sizes.sum() if number % 2 else np.full(len(names), 1 / len(names))
        name = names[random.choice(len(names), p=chances)]
        file, place = demo.shards / name, int(random.integers((demo.shards / name).stat().st_size))
        before = file.read_bytes()
        kind = kind_of(demo.shards, name, place)
        damaged = bytearray(before)
        damaged[place] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        try:
            where = f"{name}, byte {place} ({kind})"
            assert check.inspect(demo.shards, manifest, quiet=True).problems, f"{where}: the check found nothing"
            found = reading_complains(demo.shards)
            assert found or kind == "header", f"{where}: reading found nothing"
        finally:
            file.write_bytes(before)
        met[kind] += 1
        seen[kind] += found
    assert not check.inspect(demo.shards, manifest, quiet=True).problems
    record_property("measured", ", ".join(f"{kind}: {met[kind]} met, {seen[kind]} by reading" for kind in sorted(met)))


def test_each_kind_of_damage_to_a_shard_is_named(demo, trials, random, record_property) -> None:
    """The ten kinds of benchmarks/damage.py, at a random shard of real clips."""
    met = Counter[str]()
    tars = [demo.shards / shard.name for shard in load_manifest(demo.shards).shards]
    kinds = list(damage.DAMAGES.items())
    for number in range(trials(100)):
        kind, spoil = kinds[number % len(kinds)]
        path = tars[random.integers(len(tars))]
        before = path.read_bytes()
        path.write_bytes(spoil(before, damage.files_of(before)))
        try:
            problems = check.inspect(demo.shards, load_manifest(demo.shards), quiet=True).problems
            assert any(problem.where == path.name and "byte" in problem.what for problem in problems), kind
            met[kind] += reading_complains(demo.shards)
        finally:
            path.write_bytes(before)
    record_property("measured", ", ".join(f"{kind}: {count} by reading" for kind, count in sorted(met.items())))


def kind_of(folder: Path, name: str, place: int) -> str:
    """What a byte is: of a clip, of the tar around it, of an index or of the vocabulary."""
    if not name.endswith(".tar"):
        return "index" if name.endswith(".json") else "vocabulary"
    (info,) = [shard for shard in load_manifest(folder).shards if shard.name == name]
    members = [member for sample in load_index(Folder(folder), info).samples.values() for member in sample.values()]
    return "clip" if any(m.offset <= place < m.offset + m.size for m in members) else "header"


def reading_complains(folder: Path) -> bool:
    """Read everything, as a run would."""
    try:
        shard_set = ShardSet(folder)
        shard_set.vocabulary()
        for name in ("train", "valid", "test"):
            split = shard_set.split(name)
            for sample_id in range(len(split)):
                split.read(sample_id)
    except UserError:
        return True
    return False


def _flip(random: np.random.Generator, data: bytearray, start: int, stop: int) -> bytearray:
    for place in random.integers(start, stop, random.choice([1, 4, 16, 64])):
        data[place] ^= 1 << int(random.integers(8))
    return data


def _in_header(random: np.random.Generator, data: bytearray) -> bytearray:
    start = data.find(b"moov")
    return _flip(random, data, start, start + int.from_bytes(data[start - 4 : start], "big") - 4)


def _cut_short(random: np.random.Generator, data: bytearray) -> bytearray:
    return data[: int(random.integers(len(data)))]


def _zeroed(random: np.random.Generator, data: bytearray) -> bytearray:
    start, size = int(random.integers(len(data))), int(random.choice([16, 512, 4096]))
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :]


def _hole(random: np.random.Generator, data: bytearray) -> bytearray:
    start, size = int(random.integers(len(data))), int(random.choice([1, 16, 4096]))
    return data[:start] + data[start + size :]


DAMAGES = {
    "flips": lambda random, data: _flip(random, data, 0, len(data)),
    "flips in the header": _in_header,
    "cut short": _cut_short,
    "zeroed": _zeroed,
    "a hole": _hole,
}
