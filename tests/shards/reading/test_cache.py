"""A folder that many processes fill at the same time, that never grows past its limit and never shows half a file."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from shards.reading.cache import GIB, Cache, CacheConfig
from triptych.config import UserError

SIZE = 1000
fork = multiprocessing.get_context("fork")


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def sha256(number: int) -> str:
    return hashlib.sha256(content(number)).hexdigest()


def get(cache: Cache, number: int, then: Callable[[], Any] = lambda: None) -> bytes:
    def fetch(file: BinaryIO) -> None:
        then()
        file.seek(0)
        file.write(content(number))

    with cache.open(sha256(number), SIZE, fetch) as file:
        return os.pread(file.fileno(), 2 * SIZE, 0)


def held(cache: Cache) -> list[int]:
    return [number for number in range(20) if (cache.folder / sha256(number)).exists()]


def fail() -> None:
    raise AssertionError("downloaded again")


def test_the_file_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 3 * SIZE)
    for number in (0, 1, 2):
        assert get(cache, number) == content(number)
        time.sleep(0.01)
    assert get(cache, 0, fail) == content(0)
    get(cache, 3)
    assert held(cache) == [0, 2, 3]


def test_a_file_that_is_being_read_outlives_its_eviction(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)
    get(cache, 0)
    with cache.open(sha256(0), SIZE, lambda file: fail()) as file:
        get(cache, 1)
        assert held(cache) == [1]
        assert os.pread(file.fileno(), SIZE, 0) == content(0)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)
    (tmp_path / "thesis.tex").write_bytes(bytes(5 * SIZE))
    get(cache, 0)
    get(cache, 1)
    assert (tmp_path / "thesis.tex").exists()


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    with pytest.raises(AssertionError):
        get(cache, 0, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert get(cache, 0) == content(0)


def test_a_shorter_second_try_leaves_no_end_of_the_first(tmp_path: Path) -> None:
    def fetch(file: BinaryIO) -> None:
        file.write(bytes(5 * SIZE))
        file.seek(0)
        file.write(content(0))

    with Cache(tmp_path, 9 * SIZE).open(sha256(0), 0, fetch) as file:
        assert file.read() == content(0)


def test_many_processes_download_a_file_once_and_keep_to_the_limit(tmp_path: Path) -> None:
    cache, log = Cache(tmp_path / "cache", 4 * SIZE), tmp_path / "log"

    def note(number: int) -> None:
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.02)
        with (cache.folder / "lock").open() as lock:  # nothing is renamed or evicted while it is counted
            fcntl.flock(lock, fcntl.LOCK_EX)
            used = 0
            for path in cache.folder.iterdir():
                with suppress(FileNotFoundError):  # an empty part that nobody needs any more
                    used += path.stat().st_size
            assert used <= cache.limit

    def work() -> None:
        for number in range(4):
            assert get(cache, number, lambda number=number: note(number)) == content(number)

    def work_in_any_order(seed: int) -> None:
        for step in range(12):  # 12 files through a cache of 4
            number = (seed * 5 + step * 7) % 12
            assert get(cache, number, lambda number=number: note(number)) == content(number)

    run([work] * 6)
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3"]
    run([lambda seed=seed: work_in_any_order(seed) for seed in range(6)])


def run(tasks: list[Callable[[], None]]) -> None:
    processes = [fork.Process(target=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(tasks)


def test_a_killed_download_blocks_nobody_and_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    process = fork.Process(target=get, args=(cache, 0, lambda: time.sleep(60)))
    process.start()
    part = tmp_path / f"{sha256(0)}.part"
    while not (part.exists() and part.stat().st_size == SIZE):
        time.sleep(0.01)
    get(cache, 1)
    assert part.exists()  # not while it is downloaded
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    get(cache, 2)
    get(cache, 3)
    assert not part.exists()
    assert get(cache, 0) == content(0)


def test_room_is_waited_for_while_others_download(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)
    process = fork.Process(target=get, args=(cache, 0, lambda: time.sleep(0.5)))
    process.start()
    while not (tmp_path / f"{sha256(0)}.part").exists():
        time.sleep(0.01)
    assert get(cache, 1) == content(1)
    process.join()
    assert held(cache) == [1]


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_full_disk_says_what_is_wanted_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "before":
        monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"cache.folder .*: the disk is full: .* GiB are wanted, .* are free"):
        get(Cache(tmp_path, 2 * SIZE), 0, full if when == "during" else lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_can_never_fit_is_refused_with_figures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one shard alone has"):
        Cache(tmp_path, SIZE).open(sha256(0), SIZE + 1, lambda file: fail())
    with pytest.raises(ValueError, match=r"cache.gib: 0; expected more than 0"):
        CacheConfig(gib=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        get(Cache(tmp_path / "file", GIB), 0)
