"""Where a shard set lies: a folder, or a URL whose files are kept in a cache. No torch.

Only the schemes of SCHEMES: nothing here runs a command. Credentials come from where the store's own library looks for
them (environment, instance role, its configuration files), never from a location, which runs save and print.
"""

import hashlib
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from shards.reading.cache import GIB, Cache, CacheConfig
from shards.reading.plan import SHARDS_PER_BLOCK
from shards.record import ShardInfo
from triptych.config import UserError
from triptych.refusals import FULL

T = TypeVar("T")

SCHEMES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""Scheme of a URL -> the package that fsspec needs for it."""

CHUNK = 4 * 2**20
BLOCK = 32 * 2**20
"""Bytes of one request to an object store; HTTP sends a file in one."""
CONNECT_S, SILENCE_S = 30, 60
"""Longest wait for a connection, and for the next bytes; the whole of a large file may take any time."""
GIVE_UP_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
WRONG_TRIES = 3
"""Downloads of a file whose bytes are not those that were written, before it is called damaged."""

_JITTER = random.SystemRandom()  # the global generators belong to the run


class DamagedShard(UserError):
    """Bytes are not those that were written; the message names shard, member and offset."""


class _WrongBytesError(Exception):
    """A download that came to its end with other bytes than it should have."""


def storage_of(location: str | Path, cache: CacheConfig) -> "Folder | Remote":
    """What reads the files of a shard set.

    Args:
        location: a folder, `file:///...`, or a URL of one of SCHEMES.
        cache: needed for a URL.

    Raises:
        UserError: a scheme that is not allowed, a URL that carries credentials or is no folder, or no cache.
    """
    if isinstance(location, Path):
        return Folder(location)
    scheme, colon, rest = location.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return Folder(Path(location))
    if location.startswith("file:///"):
        return Folder(Path(location.removeprefix("file://")))
    if scheme not in SCHEMES or "::" in location:
        shown = f"{scheme}:..." if "::" not in location else "a chained URL (::)"
        raise UserError(
            f"{shown}: shards are read from a folder, file:///FOLDER or a URL of {', '.join(SCHEMES)}, and from "
            "nothing else"
        )
    host, _, folder = rest.removeprefix("//").partition("/")
    public = host.rpartition("@")[2]
    shown = f"{scheme}://{public}"
    if not rest.startswith("//") or not host or ".." in folder.split("/") or re.search(r"[\s?#*\[\]\\]", rest):
        raise UserError(f"{shown}/...: not the URL of a folder ({scheme}://HOST/FOLDER)")
    if "@" in host and (":" in host or scheme not in ("az", "abfs")):  # abfs names its container before the @
        raise UserError(
            f"{shown}: no credentials in a URL, since it is saved with the run; give them where {SCHEMES[scheme]} "
            "looks for them (environment variables, its configuration files)"
        )
    if not cache.folder:
        raise UserError(
            f"{location}: a remote shard set needs a folder on the node's disk to keep downloaded shards in: set "
            "cache.folder and cache.gib (in a training config stream.cache.folder and stream.cache.gib)"
        )
    return Remote(location.rstrip("/"), Cache(Path(cache.folder), int(cache.gib * GIB)))


@dataclass(frozen=True)
class Folder:
    """A shard set on a file system."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def where(self, name: str) -> str:
        """The name of a file for messages."""
        return str(self.folder / name)

    def read(self, name: str, most: int, sha256: str | None = None) -> bytes:
        """All bytes of a small file.

        Args:
            name: of the file.
            most: bytes; more are refused unread.
            sha256: that it must have.

        Raises:
            DamagedShard: it cannot be read, is too large, or is not the one that was written.
        """
        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise DamagedShard(f"{path}: cannot be read ({error.strerror}); copy the shard set again") from None
        if len(content) > most:
            raise DamagedShard(f"{path}: more than {most} bytes, which no writer makes; copy the shard set again")
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise DamagedShard(f"{path}: not the file that was written (SHA-256 differs); copy it again")
        return content

    def open(self, info: ShardInfo) -> BinaryIO:
        """A shard, for `os.pread`.

        Raises:
            DamagedShard: it cannot be opened.
        """
        try:
            return (self.folder / info.name).open("rb", buffering=0)
        except OSError as error:
            raise DamagedShard(
                f"{self.folder / info.name}: the shard cannot be opened ({error.strerror}); copy the shard set again"
            ) from None

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            DamagedShard: it is not there.
        """
        try:
            return (self.folder / name).stat().st_size
        except OSError as error:
            raise DamagedShard(
                f"{self.folder / name}: the shard cannot be read ({error.strerror}); copy the shard set again"
            ) from None

    def discard(self, info: ShardInfo) -> bool:
        """False: there is no other copy of a shard whose bytes went bad."""
        return False


@dataclass(frozen=True)
class Remote:
    """A shard set behind a URL. Every file but the manifest is known by its SHA-256 and kept in the cache."""

    url: str
    cache: Cache

    def __str__(self) -> str:
        return self.url

    def where(self, name: str) -> str:
        """The name of a file for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str, most: int, sha256: str | None = None) -> bytes:
        """All bytes of a small file; arguments as of `Folder.read`.

        Raises:
            DamagedShard: it is too large, or not the one that was written.
            UserError: it cannot be had.
        """
        if sha256 is None:
            content = bytearray()
            self._download(name, lambda: content.clear(), content.extend, most=most)
            return bytes(content)
        for _ in range(2):  # once more where the cached copy went bad
            with self.cache.open(sha256, 0, self._fetch(name, sha256, most=most)) as file:
                cached = file.read()
            if hashlib.sha256(cached).hexdigest() == sha256:
                return cached
            self.cache.discard(sha256)
        raise DamagedShard(f"{self.where(name)}: the cache in {self.cache.folder} does not keep what is written to it")

    def open(self, info: ShardInfo) -> BinaryIO:
        """A shard, downloaded if it is not in the cache, for `os.pread`.

        Raises:
            DamagedShard: the bytes there are not those that were written.
            UserError: it cannot be had, or the cache cannot hold it.
        """
        return self.cache.open(info.sha256, info.size, self._fetch(info.name, info.sha256, size=info.size))

    def check_fits(self, shards: Sequence[ShardInfo]) -> None:
        """Refuse a cache that would fetch the same shards again and again.

        Raises:
            UserError: the cache is smaller than the shards that reading goes through at the same time.
        """
        most = sum(sorted((info.size for info in shards), reverse=True)[:SHARDS_PER_BLOCK])
        if most > self.cache.limit:
            raise UserError(
                f"cache.gib is {self.cache.limit / GIB:.3g}, but reading goes through "
                f"{min(len(shards), SHARDS_PER_BLOCK)} shards at a time, {most / GIB:.3g} GiB: raise cache.gib to "
                f"{2 * most / GIB:.3g}, which also has room for those that come next"
            )

    def discard(self, info: ShardInfo) -> bool:
        """Remove a cached shard whose bytes went bad; True, since opening it downloads it again."""
        self.cache.discard(info.sha256)
        return True

    def _fetch(self, name: str, sha256: str, size: int | None = None, most: int = 0) -> Callable[[BinaryIO], None]:
        def fetch(file: BinaryIO) -> None:
            self._download(name, lambda: file.seek(0), file.write, most=most, size=size, sha256=sha256)

        return fetch

    def _download(
        self,
        name: str,
        restart: Callable[[], Any],
        write: Callable[[bytes], Any],
        *,
        most: int,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """Write a file's bytes, again from `restart` on where that fails.

        Args:
            name: of the file.
            restart: called before the first and each further try.
            write: takes the next bytes.
            most: bytes, where `size` is not known.
            size: that it must have.
            sha256: that it must have.
        """

        def attempt() -> None:
            restart()
            digest, done, head = hashlib.sha256(), 0, b""
            with _open_url(self.where(name)) as source:
                while chunk := source.read(CHUNK):
                    done += len(chunk)
                    if done > (most if size is None else size):
                        raise _WrongBytesError(f"more than {most if size is None else size} bytes")
                    head = head or chunk[:40]
                    digest.update(chunk)
                    write(chunk)
            if size is not None and done != size:
                raise _WrongBytesError(f"{done} bytes where the manifest says {size}; it starts with {head!r}")
            if sha256 is not None and digest.hexdigest() != sha256:
                raise _WrongBytesError(f"the SHA-256 differs; it starts with {head!r}")

        retry(self.where(name), attempt)


def retry(what: str, attempt: Callable[[], T]) -> T:
    """Try until it succeeds, with growing pauses, for at most GIVE_UP_S.

    Args:
        what: is fetched, for the message.
        attempt: does it.

    Raises:
        DamagedShard: wrong bytes came WRONG_TRIES times.
        UserError: the store refuses, or does not answer in time; the message has URL, attempts and last reason.
        OSError: the own disk is full.
    """
    start, wrong = time.monotonic(), 0
    for number in count(1):
        try:
            return attempt()
        except _WrongBytesError as error:
            wrong, reason = wrong + 1, str(error)
            if wrong == WRONG_TRIES:
                raise DamagedShard(
                    f"{what}: damaged where it lies: {reason} ({wrong} downloads); copy it there again"
                ) from None
        except Exception as error:
            if isinstance(error, UserError) or getattr(error, "errno", None) in FULL:
                raise
            reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0][:300]
            if not _passes(error):
                raise UserError(
                    f"{what}: cannot be read ({reason}); is the address right, and may you read it?"
                ) from None
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (number - 1)) * _JITTER.uniform(0.5, 1.5)
        waited = time.monotonic() - start
        if waited + pause > GIVE_UP_S:
            raise UserError(f"{what}: given up after {number} attempts in {waited:.0f} s; the last: {reason}")
        time.sleep(pause)
    raise AssertionError


def _passes(error: Exception) -> bool:
    """Whether an error is worth another try: anything but a clear no. Libraries name connection errors in many ways."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | TypeError | AttributeError):
        return False
    status = getattr(error, "status", None) or getattr(error, "status_code", None)  # of aiohttp, of azure
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    return "Credential" not in type(error).__name__


def _open_url(url: str) -> Any:
    import fsspec  # here, since most sets lie on disk

    scheme = url.partition(":")[0]
    try:
        if not scheme.startswith("http"):
            return fsspec.filesystem(scheme).open(url, "rb", block_size=BLOCK)
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)  # their total is 5 minutes
        # Any size spares the question for it, whose every failure, a dead server too, would look like a missing file.
        return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout}).open(url, "rb", block_size=0, size=1)
    except ImportError as error:
        raise UserError(f"{url}: needs a package that is not here ({error}): pip install {SCHEMES[scheme]}") from None
