"""Arrays that are kept between probes: each a file, and beside it what it is; whole, proven, or refused. No torch."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError
from triptych.files import sha256, write_atomically
from triptych.refusals import lock, move, sync

FORMAT_VERSION = 1
"""Of the files and of what is computed: raised where the same settings give other numbers."""

MAX_DESCRIPTION = 2**24
"""Bytes of a `<hash>.json`; a larger one is none."""


class FeatureCache:
    """A folder of `<hash>.npy` and `<hash>.json`, the hash being that of what the array is.

    The .json, with the whole identity and the SHA-256 of the .npy, is written last: without it an array counts as never
    written. An array that is not what it should be is refused, never computed again behind the user's back. Processes
    may share the folder.

    Args:
        folder: made where it is missing.

    Raises:
        UserError: it cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                pass
        except OSError as error:
            raise UserError(f"cache {folder}: cannot be used ({error}); give a folder that can be written to") from None

    def get(self, identity: Mapping[str, Any]) -> NDArray[Any] | None:
        """The array of an identity, read from the disk as it is used; None where it was never written.

        Raises:
            UserError: what is there is not what was written, or something else.
        """
        array, description = self._files(identity)
        if not description.exists():
            return None
        try:
            if description.stat().st_size > MAX_DESCRIPTION:
                raise ValueError(f"{description.name} is too large")
            described = json.loads(description.read_bytes())
            if described["identity"] != _plain(identity):
                raise ValueError(f"{description.name} is of something else")
            if sha256(array) != described["sha256"]:
                raise ValueError("its SHA-256 is not the one that was written")
            found: NDArray[Any] = np.asarray(np.load(array, mmap_mode="c", allow_pickle=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{array}: cached features that cannot be trusted ({error}); remove it and {description.name}, and "
                "they are computed again"
            ) from None
        return found

    def put(self, identity: Mapping[str, Any], array: NDArray[Any]) -> None:
        """Keep an array, unless another process kept it meanwhile.

        Raises:
            UserError: the disk is full, or fails.
        """
        path, description = self._files(identity)
        temporary = path.with_suffix(".npy.tmp")
        try:
            with self._alone():
                if description.exists():
                    return
                with temporary.open("wb") as file:  # not through memory: a block may be larger than what is left of it
                    np.save(file, array, allow_pickle=False)
                sync(temporary)
                told = {"sha256": sha256(temporary), "identity": _plain(identity)}
                move(temporary, path)
                write_atomically(description, json.dumps(told, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cache {self.folder}: features cannot be kept ({error}); make room there") from None

    def check_room(self, num_bytes: int) -> None:
        """Whether that much can be kept, told before hours of encoding.

        Raises:
            UserError: it cannot.
        """
        free = shutil.disk_usage(self.folder).free
        if num_bytes > free:
            raise UserError(
                f"cache {self.folder}: {num_bytes / 2**30:.1f} GiB of features are wanted, {free / 2**30:.1f} are "
                "free; make room, give another folder, or ask for fewer blocks"
            )

    def _files(self, identity: Mapping[str, Any]) -> tuple[Path, Path]:
        name = digest(identity)
        return self.folder / f"{name}.npy", self.folder / f"{name}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: two would write the array of the one and the hash of the other."""
        with (self.folder / "lock").open("ab") as file:
            lock(file, wait=True, where=self.folder, by=fcntl.flock)  # ends with the process, however that ends
            yield


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of what an array is, in hexadecimal."""
    return hashlib.sha256(json.dumps(_plain(identity), sort_keys=True).encode()).hexdigest()


def _plain(identity: Mapping[str, Any]) -> Any:
    """As it comes back from a file: lists for tuples."""
    return json.loads(json.dumps({"format_version": FORMAT_VERSION, **identity}))
