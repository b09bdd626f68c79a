import hashlib
import json
import tarfile
import zlib
from pathlib import Path

from shards.record import ShardIndex, ShardInfo
from shards.writing.tar import ShardWriter

SAMPLES = {f"id{i}/v/0000{i}": {"json": b"{}", "mp4": bytes([i]) * (700 * i), "lfbe.npy": b"x" * i} for i in range(5)}


def write(folder: Path) -> ShardInfo:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, "train-000003", "train")
    for key, members in SAMPLES.items():
        writer.add(key, members)
    info = writer.finish()
    assert info is not None
    return info


def test_the_index_leads_to_every_byte(tmp_path: Path) -> None:
    shard = write(tmp_path)

    data, text = (tmp_path / shard.name).read_bytes(), (tmp_path / shard.index).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.size, shard.sha256)
    assert (shard.num_samples, hashlib.sha256(text).hexdigest()) == (5, shard.index_sha256)
    index = ShardIndex.from_json(json.loads(text))
    assert index.shard == shard.name
    found = {
        key: {ext: data[m.offset : m.offset + m.size] for ext, m in members.items()}
        for key, members in index.samples.items()
    }
    assert found == SAMPLES
    for key, members in index.samples.items():
        assert {ext: m.crc32 for ext, m in members.items()} == {
            ext: zlib.crc32(content) for ext, content in SAMPLES[key].items()
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((shard.name, shard.index))


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a") == write(tmp_path / "b")


def test_any_tar_reader_reads_them(tmp_path: Path) -> None:
    shard = write(tmp_path)

    with tarfile.open(tmp_path / shard.name) as tar:
        assert tar.getnames()[:3] == ["id0/v/00000.json", "id0/v/00000.lfbe.npy", "id0/v/00000.mp4"]


def test_an_unfinished_shard_is_not_there(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train-000000", "train")
    writer.add("a", {"json": b"{}"})

    assert not list(tmp_path.glob("[!.]*"))


def test_a_shard_of_nothing_is_no_file(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path, "train-000000", "train").finish() is None
    assert not list(tmp_path.iterdir())
