"""Each kind of damage to a shard is named with shard, file and byte, and no wrong byte is ever delivered."""

import hashlib
import json
import re
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
import torch

from shards import check
from shards.reading.index import DamagedShard, ShardSet, load_manifest
from shards.reading.read import EvalLoader
from triptych.config import UserError

SHARD = "train-000001.tar"
FILE = re.compile(r"train-speaker\d/(clip\d\d|evil)\.(json|wav|lfbe\.npy|face_crops\.npy)|evil\.json")
BYTE = re.compile(r"byte \d+")


def with_entry(tar: bytes, files: list[Any], **changes: Any) -> bytes:
    """The tar with a further entry in the middle, as no writer of ours makes."""
    entry = tarfile.TarInfo(changes.pop("name", "train-speaker9/evil.json"))
    for name, value in changes.items():
        setattr(entry, name, value)
    place = files[len(files) // 2].header
    return tar[:place] + entry.tobuf(tarfile.PAX_FORMAT) + tar[place:]


EVIL = {
    "a symbolic link": lambda tar, files: with_entry(tar, files, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": lambda tar, files: with_entry(tar, files, type=tarfile.LNKTYPE, linkname=files[0].name),
    "a device": lambda tar, files: with_entry(tar, files, type=tarfile.CHRTYPE),
    "a name that leads out": lambda tar, files: with_entry(tar, files, name="../../evil.json"),
    "an absolute name": lambda tar, files: with_entry(tar, files, name="/evil.json"),
    "a file twice": lambda tar, files: with_entry(tar, files, name=files[0].name),
}


@pytest.mark.parametrize("kind", damage.DAMAGES | EVIL)
def test_damage_is_named_and_nothing_wrong_is_delivered(tiny_shards: Callable[..., Path], kind: str) -> None:
    folder = tiny_shards()
    split = ShardSet(folder).split("train")
    whole = [split.read(sample_id) for sample_id in range(len(split))]
    path, started = folder / SHARD, time.monotonic()
    path.write_bytes((damage.DAMAGES | EVIL)[kind](path.read_bytes(), damage.files_of(path.read_bytes())))
    try:
        split = ShardSet(folder).split("train")
        for sample_id, members in enumerate(whole):
            assert split.read(sample_id) == members
    except DamagedShard as error:
        message = str(error)
        assert SHARD in message
        assert FILE.search(message)
        assert BYTE.search(message)
    else:
        assert kind == "broken header in the middle"  # which only those need who read without an index
    problems = check.inspect(folder, load_manifest(folder), quiet=True).problems
    assert {problem.where for problem in problems} == {SHARD}
    assert any(FILE.search(problem.what) and BYTE.search(problem.what) for problem in problems)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", damage.DAMAGES)
def test_no_batch_holds_anything_but_what_was_written(tiny_shards: Callable[..., Path], kind: str) -> None:
    folder = tiny_shards()
    clean = list(loader(folder).batches())
    path = folder / SHARD
    path.write_bytes(damage.DAMAGES[kind](path.read_bytes(), damage.files_of(path.read_bytes())))
    batches, message = [], ""
    try:
        for batch in loader(folder).batches():
            batches.append(batch)
    except UserError as error:
        message = str(error)
    assert SHARD in message or len(batches) == len(clean)
    for batch, expected in zip(batches, clean, strict=False):
        assert batch.keys == expected.keys
        for name, track in batch.tracks.items():
            assert torch.equal(track.values, expected.tracks[name].values)


def loader(folder: Path) -> EvalLoader:
    from shards.features.config import AudioFeature, FeaturesConfig, build
    from shards.features.lfbe import LfbeConfig

    shard_set = ShardSet(folder)
    features = build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4))))
    vocabulary = shard_set.vocabulary()
    return EvalLoader(shard_set, features, vocabulary=vocabulary, batch_size=4, rank=0, world=1, split="train")


def test_a_writer_that_scatters_clips_harms_no_reader_with_an_index_and_is_named(tiny_shards) -> None:
    folder = tiny_shards()
    split = ShardSet(folder).split("train")
    whole = {split.keys[number]: split.read(number) for number in range(len(split))}
    path = folder / SHARD
    tar = damage.DAMAGES["files of samples not side by side"](path.read_bytes(), damage.files_of(path.read_bytes()))
    rewrite(folder, tar)
    split = ShardSet(folder).split("train")
    assert {split.keys[number]: split.read(number) for number in range(len(split))} == whole
    problems = check.inspect(folder, load_manifest(folder), quiet=True).problems
    assert {(problem.check, problem.where) for problem in problems} == {("headers", SHARD)}
    assert FILE.search(problems[0].what)
    assert BYTE.search(problems[0].what)
    assert "other clips lie between" in problems[0].what


def rewrite(folder: Path, tar: bytes) -> None:
    """The shard, as a writer would have made it that wanted it so: with index and hashes."""
    samples: dict[str, dict[str, list[int]]] = {}
    for file in damage.files_of(tar):
        key, _, extension = file.name.partition(".")
        crc32 = zlib.crc32(tar[file.offset : file.offset + file.size])
        samples.setdefault(key, {})[extension] = [file.offset, file.size, crc32]
    index = json.dumps({"shard": SHARD, "samples": samples}).encode()
    manifest = json.loads((folder / "manifest.json").read_text())
    (info,) = [shard for shard in manifest["shards"] if shard["name"] == SHARD]
    info |= {"size": len(tar), "sha256": hashlib.sha256(tar).hexdigest()}
    info["index_sha256"] = hashlib.sha256(index).hexdigest()
    (folder / SHARD).write_bytes(tar)
    (folder / info["index"]).write_bytes(index)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "../train-000001.tar", "only a plain file name is one"),
        ("name", "/etc/passwd", "only a plain file name is one"),
        ("name", "-", "cannot be read"),
        ("index", "a/b.json", "only a plain file name is one"),
        ("size", -1, "is no size or number of clips"),
        ("size", 2**60, "is no size or number of clips"),
        ("size", "7", "is no size or number of clips"),
        ("num_samples", 10**12, "is no size or number of clips"),
        ("sha256", "../../x", "is no SHA-256"),
    ],
)
def test_a_manifest_that_lies_about_files_is_refused(tiny_shards, field: str, value: Any, message: str) -> None:
    folder = tiny_shards()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][1][field] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        ShardSet(folder).split("train")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([0, 2**62, 0], "does not lie in"),
        ([-1, 10, 0], "does not lie in"),
        ([0.5, 1, 0], "does not lie in"),
        ([0, 1, 2**70], "does not lie in"),
        ([0], "not an index"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tiny_shards, place: list[Any], message: str) -> None:
    """Of a writer that meant harm: the hashes are right."""
    folder = tiny_shards()
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / "train-000001.index.json"
    index = json.loads(path.read_text())
    next(iter(index["samples"].values()))["json"] = place
    path.write_text(json.dumps(index))
    manifest["shards"][1]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedShard, match=message):
        ShardSet(folder).split("train").read(5)


def test_a_damaged_index_is_named_when_its_shard_is_first_read(tiny_shards) -> None:
    folder = tiny_shards()
    (folder / "train-000001.index.json").write_text("{}")
    split = ShardSet(folder).split("train")
    assert split.read(0)
    with pytest.raises(DamagedShard, match=r"train-000001.index.json: not the file that was written"):
        split.read(5)
