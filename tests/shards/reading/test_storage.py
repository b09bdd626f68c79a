"""Shard sets behind URLs: what is read is what was written, whatever the network does, and nothing else is read."""

import hashlib
import http.server
import os
import pickle
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shards import check, show
from shards.reading import recent, storage
from shards.reading.cache import CacheConfig
from shards.reading.index import DamagedShard, ShardSet
from triptych.config import UserError


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves a folder and does to each request what `faults` says, in turn, then answers well."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.faults: dict[str, list[str]] = {}
        self.gets: Counter[str] = Counter()
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, *arguments: Any) -> None: ...

            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                server.gets[name] += 1
                faults = server.faults.get(name, [])
                fault = faults[0] if faults == ["always"] else faults.pop(0) if faults else ""
                content = (folder / name).read_bytes() if (folder / name).is_file() else b""
                if fault.isdigit():
                    self.send_error(int(fault))
                    return
                if fault == "":
                    super().do_GET()
                    return
                body = {"drop": content, "wrong": content[:-1] + b"!", "page": b"<html>", "slow": content}[fault]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault == "slow":
                    time.sleep(0.5)
                self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    servers = []

    def start(folder: Path) -> Server:
        servers.append(Server(folder))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(storage, "GIVE_UP_S", 0.5)


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(folder=str(tmp_path / "cache"), gib=1)


def contents(location: str | Path, cache: CacheConfig | None = None) -> list[dict[str, bytes]]:
    split = ShardSet(location, cache).split("train")
    return [split.read(sample_id) for sample_id in range(len(split))]


def test_a_served_set_reads_like_the_folder(tiny_shards, serve, cache: CacheConfig) -> None:
    folder = tiny_shards()
    there, here = ShardSet(serve(folder).url, cache), ShardSet(folder)
    assert contents(serve(folder).url, cache) == contents(folder)
    assert there.vocabulary() == here.vocabulary()
    assert there.split("train").durations.tolist() == here.split("train").durations.tolist()
    assert there.split("valid").keys == here.split("valid").keys


def test_a_file_is_downloaded_once(tiny_shards, serve, cache: CacheConfig) -> None:
    server = serve(tiny_shards())
    for _ in range(2):
        contents(server.url, cache)
    assert {number for name, number in server.gets.items() if name.startswith("train-")} == {1}


def test_it_travels_to_another_process(tiny_shards, serve, cache: CacheConfig) -> None:
    split = ShardSet(serve(tiny_shards()).url, cache).split("valid")
    assert pickle.loads(pickle.dumps(split)).read(3) == split.read(3)


@pytest.mark.parametrize("faults", [["503", "500"], ["drop", "drop"], ["429"], ["wrong"], ["page"]])
@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.index.json"])
def test_what_passes_is_tried_again(tiny_shards, serve, cache: CacheConfig, faults: list[str], name: str) -> None:
    folder = tiny_shards()
    server = serve(folder)
    server.faults[name] = list(faults)
    assert contents(server.url, cache) == contents(folder)
    assert server.gets[name] == len(faults) + 1


def test_giving_up_names_address_attempts_and_reason(tiny_shards, serve, cache: CacheConfig) -> None:
    server = serve(tiny_shards())
    server.faults["train-000001.tar"] = ["503"] * 1000
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"{server.url}/train-000001.tar: given up after \d+ attempts .*503"):
        contents(server.url, cache)
    assert time.monotonic() - started < 5
    assert server.gets["train-000001.tar"] > 2


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_clear_no_is_not_tried_again(tiny_shards, serve, cache: CacheConfig, status: str) -> None:
    server = serve(tiny_shards())
    server.faults["train-000001.tar"] = [status] * 1000
    with pytest.raises(UserError, match=f"{server.url}/train-000001.tar: cannot be read"):
        contents(server.url, cache)
    assert server.gets["train-000001.tar"] <= 2


def test_a_dead_server_is_named(tiny_shards, serve, cache: CacheConfig) -> None:
    server = serve(tiny_shards())
    shard_set = ShardSet(server.url, cache)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=rf"{server.url}/train-000000.index.json: given up after"):
        shard_set.split("train").read(0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tar: tar[:-1] + b"!", "the SHA-256 differs"),
        (lambda tar: tar[:512], "512 bytes where the manifest says"),
        (lambda tar: tar + b"!", "more than"),
        (lambda tar: b"<html>404", r"it starts with b'<html>404'"),
    ],
)
def test_a_shard_that_is_damaged_where_it_lies_never_gets_into_the_cache(
    tiny_shards, serve, cache: CacheConfig, damage: Callable[[bytes], bytes], message: str
) -> None:
    folder = tiny_shards()
    path = folder / "train-000001.tar"
    path.write_bytes(damage(path.read_bytes()))
    server = serve(folder)
    with pytest.raises(DamagedShard, match=f"train-000001.tar: damaged where it lies: .*{message}"):
        contents(server.url, cache)
    kept = [file for file in Path(cache.folder).iterdir() if file.name != "lock"]
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.name for file in kept)


def test_a_damaged_shard_is_not_downloaded_again_for_each_clip(tiny_shards, serve, cache: CacheConfig) -> None:
    server = serve(tiny_shards())
    server.faults["train-000001.tar"] = ["wrong"] * 1000
    split = ShardSet(server.url, cache).split("train")
    for sample_id in range(5, 10):
        with pytest.raises(DamagedShard, match=r"train-000001.tar: damaged where it lies"):
            split.read(sample_id)
    assert server.gets["train-000001.tar"] == storage.WRONG_TRIES


def test_a_copy_that_went_bad_in_the_cache_is_fetched_again(tiny_shards, serve, cache: CacheConfig) -> None:
    folder = tiny_shards()
    server = serve(folder)
    contents(server.url, cache)
    for file in Path(cache.folder).iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    assert contents(server.url, cache) == contents(folder)


@pytest.mark.parametrize(
    "location",
    [
        "pipe:cat /etc/passwd",
        "ssh://host/folder",
        "sftp://host/folder",
        "exec:///bin/true",
        "simplecache::http://host/folder",
        "s3://bucket/folder::zip://x",
        "filecache://x",
        "memory://x",
        "github://x",
        "file:relative",
        "file://host/share",
        "http:/host",
        "http://",
        "http://host/a/../b",
        "http://host/folder?X-Amz-Signature=secret",
        "http://host/folder#part",
        "http:/" + "/user:secret@host/folder",
        "s3:/" + "/key:secret@bucket/folder",
        "http://host/$(touch x) y",
    ],
)
def test_no_other_place_is_read_and_no_secret_is_shown(location: str, cache: CacheConfig) -> None:
    with pytest.raises(UserError) as error:
        ShardSet(location, cache)
    assert "secret" not in str(error.value)
    assert not Path(cache.folder).exists()


def test_a_file_url_is_a_folder(tiny_shards) -> None:
    folder = tiny_shards()
    assert contents(f"file://{folder}") == contents(folder)


def test_show_reads_a_url_and_check_says_where_to_run(
    tiny_shards, serve, cache: CacheConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(tiny_shards())
    assert show.run(server.url, ["num=0", f"cache.folder={cache.folder}"]) == 0
    assert f"{server.url}: tiny, split by speaker" in capsys.readouterr().out
    with pytest.raises(UserError, match="run it where the set lies"):
        check.run(server.url)


def test_a_url_needs_a_cache_that_holds_what_is_read_at_a_time(tiny_shards, serve, cache: CacheConfig) -> None:
    server = serve(tiny_shards())
    with pytest.raises(UserError, match=r"cache\.folder"):
        ShardSet(server.url)
    with pytest.raises(UserError, match=r"cache.gib is .* but reading goes through 5 shards at a time"):
        ShardSet(server.url, CacheConfig(folder=cache.folder, gib=1e-6)).split("train")


def test_a_package_that_is_missing_is_named(cache: CacheConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UserError, match="pip install adlfs"):
        ShardSet("az://container/folder", cache)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A real S3 server on this machine; its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.kill()


def test_an_s3_bucket_reads_like_the_folder(tiny_shards, s3: str, cache, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name, value in {"ENDPOINT_URL": s3, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    folder = tiny_shards()
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("corpora")
    store.put(str(folder), "corpora/tiny", recursive=True)
    assert contents("s3://corpora/tiny", cache) == contents(folder)
    store.rm("corpora/tiny/valid-000000.tar")
    with pytest.raises(UserError, match=r"s3://corpora/tiny/valid-000000.tar: cannot be read .FileNotFound"):
        ShardSet("s3://corpora/tiny", cache).split("valid").read(0)


def test_loader_processes_read_a_url(tiny_shards, serve, cache: CacheConfig) -> None:
    """Forked after the parent has talked to the store itself, as a run does."""
    from shards.features.config import FeaturesConfig
    from shards.reading.read import StreamConfig, TrainLoader

    folder = tiny_shards()
    server = serve(folder)
    stream = StreamConfig(
        shards=server.url, cache=cache, features=FeaturesConfig(), global_batch=4, micro_batch=4, workers=2
    )
    keys = []
    for location in (server.url, folder):
        shard_set = ShardSet(location, cache)
        loader = TrainLoader(shard_set, stream, vocabulary=shard_set.vocabulary(), seed=0, rank=0, world=1)
        steps = loader.steps(0)
        keys.append([next(steps)[0].keys for _ in range(6)])
    assert keys[0] == keys[1]
    assert {number for name, number in server.gets.items() if name.endswith(".tar")} == {1}  # by one of the two


def open_files(folder: str) -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return [link for link in links if link.startswith(folder)]


def test_an_evicted_shard_gives_its_disk_space_back(tiny_shards, serve, cache: CacheConfig) -> None:
    """A deleted file takes room for as long as a process has it open."""
    split = ShardSet(serve(tiny_shards()).url, cache).split("train")
    split.read(0)
    for file in Path(cache.folder).iterdir():
        file.unlink()
    assert len(open_files(cache.folder)) == 1
    split.read(5)
    (path,) = open_files(cache.folder)
    assert "deleted" not in path


def test_few_files_are_kept_open(tiny_shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "OPEN_SHARDS", 2)
    folder = tiny_shards()
    split = ShardSet(folder).split("train")
    for sample_id in range(len(split)):
        assert split.read(sample_id)
        assert len(open_files(str(folder))) <= 2
