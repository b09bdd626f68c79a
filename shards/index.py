"""Open a shard set: its manifest, its indexes, and one sample's bytes at a time, each checked. No torch."""

import hashlib
import io
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shards.record import Manifest, ShardIndex, ShardInfo
from shards.words import Vocabulary, read_counts
from triptych.config import UserError

OPEN_FILES = 64
"""Tars kept open a process: far below the usual limit of 1024, and four blocks of the plan."""


class DamagedShard(UserError):
    """Bytes on disk are not those that were written; the message names shard, member and offset."""


def load_manifest(folder: Path) -> Manifest:
    """Read a shard set's manifest.

    Raises:
        UserError: it is missing, not JSON, incomplete, or of another format version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        there = "has no manifest.json" if folder.is_dir() else "is not there"
        raise UserError(f"{folder}: {there}; a shard set is the folder that `python -m shards write CONFIG` made")
    try:
        return Manifest.from_json(json.loads(path.read_bytes()))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); copy it again or write the shards again") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: fields are missing or unknown ({error}); write the shards again") from None
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None


def load_index(folder: Path, info: ShardInfo) -> ShardIndex:
    """Read a shard's index and verify it against the manifest.

    Raises:
        DamagedShard: it is missing, or not what was written.
    """
    path = folder / info.index
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedShard(f"{path}: the index cannot be read ({error.strerror}); copy the shard set again") from None
    if hashlib.sha256(content).hexdigest() != info.index_sha256:
        raise DamagedShard(f"{path}: the index is not the one that was written (SHA-256 differs); copy it again")
    index = ShardIndex.from_json(json.loads(content))
    if index.shard != info.name or len(index.samples) != info.num_samples:
        raise DamagedShard(
            f"{path}: lists {len(index.samples)} clips of {index.shard}, the manifest says {info.num_samples} of "
            f"{info.name}; write the shards again"
        )
    return index


def check_size(folder: Path, info: ShardInfo) -> None:
    """Compare a tar's size with the manifest: the cheap check that finds a copy cut short.

    Raises:
        DamagedShard: it is missing or of another size.
    """
    path = folder / info.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DamagedShard(f"{path}: the shard cannot be read ({error.strerror}); copy the shard set again") from None
    if size != info.size:
        kind = "cut short" if size < info.size else "too long"
        raise DamagedShard(f"{path}: {kind}, {size} bytes where the manifest says {info.size}; copy it again")


def read_member(file: BinaryIO, where: str, offset: int, size: int, crc32: int) -> bytes:
    """The bytes of one member, verified.

    Args:
        file: the open tar.
        where: shard, key and extension, for the message.
        offset: of the first byte.
        size: in bytes.
        crc32: that the index has.

    Raises:
        DamagedShard: fewer bytes than `size`, or another CRC-32.
    """
    try:
        content = os.pread(file.fileno(), size, offset)
        while len(content) < size and (more := os.pread(file.fileno(), size - len(content), offset + len(content))):
            content += more  # one pread gives at most 2 GiB, and less on some network file systems
    except OSError as error:
        raise DamagedShard(f"{where} at byte {offset}: cannot be read ({error.strerror})") from None
    if len(content) < size:
        raise DamagedShard(f"{where} at byte {offset}: cut after {len(content)} of {size} bytes; copy the shard again")
    if zlib.crc32(content) != crc32:
        zeros = "all bytes are zero" if not any(content) else "CRC-32 differs"
        raise DamagedShard(
            f"{where} at byte {offset}: damaged, {zeros}; copy the shard again (`python -m shards check` lists all)"
        )
    return content


class ShardSet:
    """A folder of shards, opened. Splits are read when first asked for.

    Raises:
        UserError: see `load_manifest`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = load_manifest(self.folder)
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> "Split":
        """One split's samples.

        Raises:
            UserError: the set has no such split, or a shard of it is damaged.
        """
        if name not in self._splits:
            shards = [shard for shard in self.manifest.shards if shard.split == name and shard.num_samples]
            if not shards:
                has = ", ".join(dict.fromkeys(shard.split for shard in self.manifest.shards)) or "no shard at all"
                raise UserError(f"{self.folder}: no clips in a split {name!r}; it has {has}")
            self._splits[name] = Split(self.folder, name, shards, self.manifest.durations_sha256[name])
        return self._splits[name]

    def vocabulary(self) -> Vocabulary:
        """Which word has which id.

        Raises:
            UserError: vocabulary.txt is missing, or not the one that was written with the shards.
        """
        return Vocabulary(tuple(self.word_counts()))

    def word_counts(self) -> dict[str, int]:
        """Word -> how often the training split has it, in the order of their ids; errors as of `vocabulary`."""
        return read_counts(self.folder / "vocabulary.txt", self.manifest.vocabulary_sha256)


class Split:
    """The samples of one split by id, 0 to `len - 1`, in the order of the shards.

    Where members lie is kept in arrays: as objects, a million clips would take gigabytes in every process.
    """

    def __init__(self, folder: Path, name: str, shards: list[ShardInfo], durations_sha256: str) -> None:
        self.name = name
        self._durations = folder / f"{name}.durations.npy", durations_sha256
        self.shard_sizes = tuple(shard.num_samples for shard in shards)
        self.keys: list[str] = []
        self._paths = [folder / shard.name for shard in shards]
        self._extensions: list[str] = []
        rows: list[np.ndarray] = []
        starts = [0]
        numbers: dict[str, int] = {}
        for shard in shards:
            check_size(folder, shard)
            members = []
            for key, sample in load_index(folder, shard).samples.items():
                self.keys.append(key)
                for extension, member in sample.items():
                    number = numbers.setdefault(extension, len(numbers))
                    members.append((number, member.offset, member.size, member.crc32))
                starts.append(starts[-1] + len(sample))
            rows.append(np.array(members, dtype=np.int64).reshape(-1, 4))
        self._extensions = list(numbers)
        self._rows = np.concatenate(rows)
        self._starts = np.array(starts, dtype=np.int64)
        self._last = np.cumsum(self.shard_sizes)
        self._files = _OpenFiles()

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def durations(self) -> np.ndarray:
        """[len] float32, seconds of each clip.

        Raises:
            DamagedShard: the file is missing, or not the one that was written.
        """
        path, sha256 = self._durations
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedShard(f"{path}: cannot be read ({error.strerror}); copy the shard set again") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DamagedShard(f"{path}: not the file that was written (SHA-256 differs); copy it again")
        seconds: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return seconds

    def extensions(self, sample_id: int) -> list[str]:
        """What the sample holds: "json", "mp4", "lfbe.npy", ..."""
        return [self._extensions[number] for number, *_ in self._members(sample_id)]

    def read(self, sample_id: int, extensions: Collection[str] | None = None) -> dict[str, bytes]:
        """Extension -> bytes of one sample, each verified by its CRC-32.

        Args:
            sample_id: 0 to `len - 1`.
            extensions: what to read, as far as the sample has it; None is everything.

        Raises:
            DamagedShard: bytes are missing or not those that were written.
        """
        path = self._paths[int(np.searchsorted(self._last, sample_id, side="right"))]
        file = self._files.open(path)
        content = {}
        for number, offset, size, crc32 in self._members(sample_id):
            extension = self._extensions[number]
            if extensions is None or extension in extensions:
                where = f"{path}: {self.keys[sample_id]}.{extension}"
                content[extension] = read_member(file, where, offset, size, crc32)
        return content

    def _members(self, sample_id: int) -> list[list[int]]:
        return self._rows[self._starts[sample_id] : self._starts[sample_id + 1]].tolist()


class _OpenFiles:
    """The tars read last, kept open. Safe across a fork, as `pread` shares no position; starts empty when pickled."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, BinaryIO] = OrderedDict()

    def __reduce__(self) -> tuple[type["_OpenFiles"], tuple[()]]:
        return _OpenFiles, ()

    def __del__(self) -> None:
        for file in self._files.values():
            file.close()

    def open(self, path: Path) -> BinaryIO:
        if path in self._files:
            self._files.move_to_end(path)
        else:
            try:
                self._files[path] = path.open("rb", buffering=0)
            except OSError as error:
                raise DamagedShard(f"{path}: the shard cannot be opened ({error.strerror})") from None
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        return self._files[path]
