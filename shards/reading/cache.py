"""A bounded folder of whole files by their SHA-256, shared by all processes of a node. No torch.

A file is downloaded into `<sha256>.part`, whose lock keeps every other process from downloading it too, and renamed
when its bytes are proven. A dead process leaves a part without a lock; the next one that needs room removes it.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from triptych.config import UserError
from triptych.refusals import FULL, lock, reserve

GIB = 2**30
WAIT_S = 0.2
"""Between two looks whether others' downloads are done and may be evicted."""

_OWN_FILE = re.compile(r"[0-9a-f]{64}(\.part)?")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where a node keeps what it downloaded of a remote shard set; without effect on a local one."""

    folder: str = ""
    """On a disk of the node itself; shared by all its processes and by any number of runs."""
    gib: float = 200.0
    """Most it may hold, in GiB; the files used longest ago go first."""

    def __post_init__(self) -> None:
        if not self.gib > 0:
            raise ValueError(f"cache.gib: {self.gib}; expected more than 0")


class Cache:
    """The cache of one folder; plain fields only, so that it travels to loader processes.

    Args:
        folder: made if missing.
        limit: most bytes that it may hold.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def open(self, sha256: str, size: int, fetch: Callable[[BinaryIO], None]) -> BinaryIO:
        """The file with this hash, downloaded if it is not there. It stays readable when it is evicted meanwhile.

        Args:
            sha256: of the file's bytes.
            size: in bytes, for which room is made; 0 for a small file of unknown size.
            fetch: writes the bytes from the file's start on and proves them; leaves the position at their end. What it
                raises is passed on, but for a full disk.

        Raises:
            UserError: the file is larger than the cache, the disk is full, or the folder cannot be used.
        """
        path = self.folder / sha256
        if size > self.limit:
            raise UserError(
                f"cache.gib is {self.limit / GIB:.3g}, and one shard alone has {size / GIB:.3g} GiB: raise cache.gib"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                with suppress(FileNotFoundError):
                    file = path.open("rb", buffering=0)
                    os.utime(file.fileno())  # eviction goes by the time of last use
                    return file
                with self._locked_part(path.with_suffix(".part")) as part:
                    if part is not None and not path.exists():
                        while not self._make_room(part, path.with_suffix(".part"), size):
                            time.sleep(WAIT_S)
                        fetch(part)
                        part.truncate()
                        part.flush()
                        file = path.with_suffix(".part").open("rb", buffering=0)  # before it can be evicted
                        # Not flushed to the disk: what a power cut leaves is found by its CRC-32 and discarded.
                        with self._nobody_else_looking():
                            path.with_suffix(".part").rename(path)
                        return file
        except OSError as error:
            if error.errno in FULL:
                raise UserError(
                    f"cache.folder {self.folder}: the disk is full: {size / GIB:.3g} GiB are wanted, "
                    f"{shutil.disk_usage(self.folder).free / GIB:.3g} are free; give a larger disk, or lower cache.gib "
                    f"({self.limit / GIB:.3g}) so that other files make room"
                ) from None
            raise UserError(
                f"cache.folder {self.folder}: cannot be used ({error}); give a folder on the node's own disk"
            ) from None

    def discard(self, sha256: str) -> None:
        """Forget a file whose bytes went bad on the cache's own disk."""
        (self.folder / sha256).unlink(missing_ok=True)

    @contextmanager
    def _locked_part(self, path: Path) -> Iterator[BinaryIO | None]:
        """The part, locked; None if the process that had it finished or gave up. Removed unless it was renamed."""
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as part:
            lock(part, wait=True, where=self.folder, by=fcntl.flock)  # ends with the process, however that ends
            if not _is_at(part, path):
                yield None
                return
            try:
                yield part
            finally:
                if _is_at(part, path):
                    path.unlink()

    @contextmanager
    def _nobody_else_looking(self) -> Iterator[None]:
        """While files are counted none is renamed, or it would count twice or not at all."""
        with (self.folder / "lock").open("ab") as file:
            lock(file, wait=True, where=self.folder, by=fcntl.flock)
            yield

    def _make_room(self, part: BinaryIO, own: Path, size: int) -> bool:
        """Evict until `size` more bytes fit, and take them; False while only the downloads of others are in the way."""
        with self._nobody_else_looking():
            used, evictable = 0, []
            for entry in os.scandir(self.folder):
                if not _OWN_FILE.fullmatch(entry.name) or entry.name == own.name:
                    continue
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    if not entry.name.endswith(".part"):
                        evictable.append((stat.st_mtime_ns, stat.st_size, entry.path))
                    elif _remove_if_dead(entry.path):
                        continue
                    used += stat.st_size
            for _, freed, path in sorted(evictable):
                if used + size <= self.limit:
                    break
                Path(path).unlink(missing_ok=True)
                used -= freed
            if used + size > self.limit:
                return False
            if size:  # seen by others as used, and a full disk is known before the download
                reserve(part, size)
            return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_if_dead(path: str) -> bool:
    """Remove a part that no living process downloads."""
    with open(path, "rb") as part:
        if not lock(part, wait=False, where=Path(path).parent, by=fcntl.flock):
            return False
        if _is_at(part, Path(path)):
            os.unlink(path)
        return True
