import hashlib
import json
import tarfile
import zlib
from pathlib import Path

from shards.record import ShardIndex
from shards.tar import ShardWriter, remove_unfinished

SAMPLES = {f"id{i}/v/0000{i}": {"json": b"{}", "mp4": bytes([i]) * (700 * i), "lfbe.npy": b"x" * i} for i in range(5)}


def fill(folder: Path) -> ShardWriter:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, "train", samples_per_shard=2)
    for key, members in SAMPLES.items():
        writer.add(key, members)
    return writer


def test_indexes_lead_to_every_byte(tmp_path: Path) -> None:
    shards = fill(tmp_path).finish()

    assert [shard.num_samples for shard in shards] == [2, 2, 1]
    found: dict[str, dict[str, bytes]] = {}
    for shard in shards:
        data = (tmp_path / shard.name).read_bytes()
        text = (tmp_path / shard.index).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.size, shard.sha256)
        assert hashlib.sha256(text).hexdigest() == shard.index_sha256
        index = ShardIndex.from_json(json.loads(text))
        assert index.shard == shard.name
        for key, members in index.samples.items():
            found[key] = {ext: data[m.offset : m.offset + m.size] for ext, m in members.items()}
            assert {ext: zlib.crc32(content) for ext, content in found[key].items()} == {
                ext: m.crc32 for ext, m in members.items()
            }
    assert found == SAMPLES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name for shard in shards for name in (shard.name, shard.index)
    )


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    first = fill(tmp_path / "a").finish()

    assert fill(tmp_path / "b").finish() == first


def test_any_tar_reader_reads_them(tmp_path: Path) -> None:
    fill(tmp_path).finish()

    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert tar.getnames()[:3] == ["id0/v/00000.json", "id0/v/00000.lfbe.npy", "id0/v/00000.mp4"]


def test_an_unfinished_shard_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path)  # never finished: the fifth sample waits in a temporary file

    assert sorted(path.name for path in tmp_path.glob("[!.]*.tar")) == ["train-000000.tar", "train-000001.tar"]


def test_cleaning_takes_own_files_only(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "my-train-000000.tar").touch()

    remove_unfinished(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-train-000000.tar", "notes.txt"]
