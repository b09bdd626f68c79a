"""What it means when the operating system refuses something: go on where nothing is at risk, else say it in a sentence.

File systems differ in what they can do: SMB and FUSE cannot flush a folder, Lustre and NFS may have no locks, overlays
do not rename folders. None of that is the user's mistake, and most of it loses nothing.
"""

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from triptych.config import UserError

logger = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A full disk or quota."""
_HELD = (errno.EACCES, errno.EAGAIN)
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY)
"""That the file system does not know such a request. EIO and the like are faults, and stay errors."""
_NO_FOLDER_SYNC = (*_UNKNOWN, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
_NO_LOCKS = (*_UNKNOWN, errno.ENOLCK)
_told: set[str] = set()


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a power cut.

    A folder that cannot be flushed is left as it is: then the file system keeps its names by itself, or cannot promise
    it.
    """
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if folder and error.errno in _NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (folder and error.errno in _NO_FOLDER_SYNC):
            raise
    finally:
        os.close(descriptor)


def lock(
    file: IO[bytes] | IO[str] | int, *, wait: bool, where: Path, by: Callable[[int, int], None] = fcntl.lockf
) -> bool:
    """Lock an open file until it is closed; whether no other process holds it.

    Args:
        file: open for writing.
        wait: until it is free.
        where: what is locked, for the warning that a file system has no locks, which is given once a process and place.
        by: `fcntl.lockf` (POSIX: of a process, and across nodes where the file system can) or `fcntl.flock` (of the
            open file).

    Returns:
        False if another process holds it and `wait` is not set. True also where there are no locks at all.

    Raises:
        OSError: another failure.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    try:
        by(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        if str(where) not in _told:
            _told.add(str(where))
            told = "this file system has no locks (%s); see that no other job writes here"
            logger.warning(f"warning: %s: {told}", where, error.strerror)
    return True


def move(source: Path, target: Path) -> None:
    """Rename, also where the two lie on different devices: then the file is copied whole before it gets its name.

    Raises:
        UserError: a folder cannot be renamed here.
        OSError: another failure.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if source.is_dir():
            raise UserError(
                f"{target}: this file system cannot rename a folder ({error.strerror}), so that it cannot be written "
                "whole or not at all; choose a folder on another disk"
            ) from None
        copy = target.with_name(f".{target.name}.copy")
        shutil.copyfile(source, copy)
        sync(copy)
        copy.rename(target)
        source.unlink()


def reserve(file: IO[bytes], size: int) -> None:
    """Take room for a file, where the file system can.

    Raises:
        OSError: the disk is full.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def follow_umask(path: Path) -> None:
    """Give a file that a library wrote for its owner alone the mode that other files get: 0644 under a umask of 022."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    with suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)  # elsewhere it can only be read by setting it
    os.umask(mask)
    return mask
