"""Open a shard set: its manifest, its indexes as they are needed, and one sample's bytes at a time, each checked.

No torch. Opening reads the manifest alone: at a million clips the indexes are a hundred megabytes, of which a process
needs a few shards' at a time.
"""

import copy
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shards.reading.cache import CacheConfig
from shards.reading.headers import header_problems
from shards.reading.recent import OpenFile, Recent
from shards.reading.storage import DamagedShard, Folder, Remote, storage_of
from shards.record import SPLITS, ClipRecord, Manifest, Member, ShardIndex, ShardInfo
from shards.words.words import Vocabulary, parse_counts
from triptych.config import UserError

MAX_MANIFEST, MAX_VOCABULARY, MAX_SHARD = 2**30, 2**30, 2**42
"""Bytes; a file that claims more is damaged or meant to hurt."""
MAX_SAMPLES, MAX_INDEX_PER_SAMPLE, MAX_MEMBER = 10**8, 2**14, 2**32

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a shard set on disk.

    Raises:
        UserError: it is missing, not JSON, incomplete, or of another format version.
    """
    return read_manifest(Folder(folder))


def read_manifest(storage: Folder | Remote) -> Manifest:
    """Read a shard set's manifest; names, sizes and counts in it are proven to be such before they are used.

    Raises:
        UserError: it is missing, not JSON, incomplete, or of another format version.
    """
    path = storage.where("manifest.json")
    if isinstance(storage, Folder) and not (storage.folder / "manifest.json").is_file():
        if (storage.folder / "work").is_dir():
            raise UserError(f"{storage}: is half written; `python -m shards merge {storage}` says what is missing")
        there = "has no manifest.json" if storage.folder.is_dir() else "is not there"
        raise UserError(f"{storage}: {there}; a shard set is the folder that `python -m shards write CONFIG` made")
    try:
        manifest = Manifest.from_json(json.loads(storage.read("manifest.json", MAX_MANIFEST)))
        for shard in manifest.shards:
            _check_info(shard)
        return manifest
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); copy it again or write the shards again") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: fields are missing or unknown ({error}); write the shards again") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{storage}: {error}") from None


def _check_info(info: ShardInfo) -> None:
    for name in (info.name, info.index):
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise ValueError(f"manifest.json names {name!r} as a shard's file; only a plain file name is one")
    for sha256 in (info.sha256, info.index_sha256):
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"manifest.json: {info.name}: {sha256!r} is no SHA-256")
    for value, most in ((info.size, MAX_SHARD), (info.num_samples, MAX_SAMPLES)):
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"manifest.json: {info.name}: {value!r} is no size or number of clips (0 to {most})")


def load_index(storage: Folder | Remote, info: ShardInfo) -> ShardIndex:
    """Read a shard's index and verify it against the manifest.

    Raises:
        DamagedShard: it is missing, not what was written, or lists what the shard cannot hold.
    """
    path = storage.where(info.index)
    content = storage.read(info.index, MAX_INDEX_PER_SAMPLE * (info.num_samples + 1), info.index_sha256)
    try:
        index = ShardIndex.from_json(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedShard(f"{path}: not an index ({error}); write the shards again") from None
    if index.shard != info.name or len(index.samples) != info.num_samples:
        raise DamagedShard(
            f"{path}: lists {len(index.samples)} clips of {index.shard}, the manifest says {info.num_samples} of "
            f"{info.name}; write the shards again"
        )
    for key, members in index.samples.items():
        for extension, member in members.items():
            if not _lies_in(member, info.size):
                raise DamagedShard(
                    f"{path}: {key}.{extension} at byte {member.offset} with {member.size} bytes does not lie in "
                    f"{info.name} of {info.size} bytes; write the shards again"
                )
    return index


def _lies_in(member: Member, size: int) -> bool:
    whole = all(type(number) is int and number >= 0 for number in (member.offset, member.size, member.crc32))
    return whole and member.offset + member.size <= size and member.size <= MAX_MEMBER and member.crc32 < 2**32


def check_size(folder: Folder, info: ShardInfo) -> None:
    """Compare a tar's size with the manifest: the cheap check that finds a copy cut short.

    Raises:
        DamagedShard: it is missing or of another size; the message names the first file that it lacks.
    """
    size = folder.size(info.name)
    if size == info.size:
        return
    with folder.open(info) as file:
        head = os.pread(file.fileno(), 512, 0)
    kind = "cut short" if size < info.size else "too long"
    if size and head[257:262] != b"ustar":
        kind = f"not a tar (it starts with {head[:40]!r})"
    raise DamagedShard(
        f"{folder.where(info.name)}: {kind}, {size} bytes where the manifest says {info.size}"
        f"{first_lost(folder, info, size) or first_strange(folder, info)}; copy it again"
    )


def first_lost(folder: Folder, info: ShardInfo, size: int) -> str:
    """The end of a message about a shard of only `size` bytes: the first file that it cannot hold, if any.

    Raises:
        DamagedShard: the index is damaged, too.
    """
    lost = [
        (member.offset, f"{key}.{extension}")
        for key, members in load_index(folder, info).samples.items()
        for extension, member in members.items()
        if member.offset + member.size > size
    ]
    return "; the first file that it lacks is {1} at byte {0}".format(*min(lost)) if lost else ""


def first_strange(folder: Folder, info: ShardInfo) -> str:
    """The end of a message about a shard that has too much: the first header that is not as the index says, if any."""
    return "".join(
        f"; {problem}" for problem in header_problems(folder.folder / info.name, load_index(folder, info))[:1]
    )


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
    """A shard set, opened. Splits are read when first asked for; loader processes may have it by fork or by pickle.

    Args:
        location: a folder or a URL, see shards.reading.storage.
        cache: where shards of a URL are kept.

    Raises:
        UserError: see `storage_of` and `read_manifest`.
    """

    def __init__(self, location: str | Path, cache: CacheConfig | None = None) -> None:
        self._storage = storage_of(location, cache or CacheConfig())
        self.manifest = read_manifest(self._storage)
        self._splits: dict[str, Split] = {}

    @property
    def location(self) -> str:
        """The folder or URL."""
        return str(self._storage)

    @property
    def identity(self) -> dict[str, str | int]:
        """What tells the set from others, wherever it lies: its corpus, number of clips and a hash over all shards."""
        shards = "\n".join(f"{shard.name} {shard.sha256}" for shard in self.manifest.shards)
        return {
            "corpus": self.manifest.corpus,
            "clips": self.manifest.written,
            "shards_sha256": hashlib.sha256(shards.encode()).hexdigest(),
        }

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the written splits that have clips, in the order of SPLITS."""
        there = {shard.split for shard in self.manifest.shards if shard.num_samples}
        return tuple(name for name in SPLITS if name in there)

    def split(self, name: str) -> "Split":
        """One split's samples.

        Raises:
            UserError: no such split, a shard of it is missing or of another size, or the cache is too small.
        """
        if name not in self._splits:
            shards = [shard for shard in self.manifest.shards if shard.split == name and shard.num_samples]
            if not shards:
                has = ", ".join(dict.fromkeys(shard.split for shard in self.manifest.shards)) or "no shard at all"
                raise UserError(f"{self.location}: no clips in a split {name!r}; it has {has}")
            self._splits[name] = Split(self._storage, name, shards, self.manifest.durations_sha256[name])
        return self._splits[name]

    def divided(self, keys: Mapping[str, Collection[str]]) -> "ShardSet":
        """The same clips with other splits, as shards.divisions.divisions gives them; nothing is copied, and the
        indexes of all shards are read. The vocabulary stays that of the written training split.

        Args:
            keys: split -> its clips, in whatever splits they were written.
        """
        from shards.reading.selection import select  # which is made of this module's splits

        other = copy.copy(self)
        other._splits = dict(select([self.split(name) for name in self.splits], keys))
        return other

    def vocabulary(self) -> Vocabulary:
        """Which word has which id.

        Raises:
            UserError: vocabulary.txt is missing, or not the one that was written with the shards.
        """
        return Vocabulary(tuple(self.word_counts()))

    def word_counts(self) -> dict[str, int]:
        """Word -> how often the training split has it, most frequent first.

        Raises:
            UserError: as of `vocabulary`.
        """
        content = self._storage.read("vocabulary.txt", MAX_VOCABULARY, self.manifest.vocabulary_sha256)
        return parse_counts(content, self._storage.where("vocabulary.txt"))


class Split:
    """The samples of one split by id, 0 to `len - 1`, in the order of the shards."""

    def __init__(self, storage: Folder | Remote, name: str, shards: list[ShardInfo], durations_sha256: str) -> None:
        self.name = name
        self.shard_sizes = tuple(shard.num_samples for shard in shards)
        self._storage = storage
        self._shards = shards
        self._durations_sha256 = durations_sha256
        self._last = np.cumsum(self.shard_sizes)
        self._indexes: Recent[_Places] = Recent()
        self._files: Recent[OpenFile] = Recent()
        if isinstance(storage, Remote):  # sizes are checked as shards are downloaded
            storage.check_fits(shards)
            return
        for info in shards:
            check_size(storage, info)
            storage.size(info.index)

    def __len__(self) -> int:
        return int(self._last[-1])

    @cached_property
    def durations(self) -> np.ndarray:
        """[len] float32, seconds of each clip.

        Raises:
            DamagedShard: the file is missing, or not the one that was written.
        """
        content = self._storage.read(f"{self.name}.durations.npy", 8 * len(self) + 4096, self._durations_sha256)
        seconds: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return seconds

    @property
    def keys(self) -> list[str]:
        """Of all clips, by id. Reads every index: seconds and a hundred bytes a clip at a million clips."""
        return [key for info in self._shards for key in load_index(self._storage, info).samples]

    def shard_name(self, sample_id: int) -> str:
        """File name of the shard that holds a sample."""
        return self._shards[self._place(sample_id)[0]].name

    def record(self, sample_id: int) -> ClipRecord:
        """What the sample's JSON says of the clip.

        Raises:
            DamagedShard: as of `read`.
        """
        return ClipRecord.from_json(json.loads(self.read(sample_id, ("json",))["json"]))

    def extensions(self, sample_id: int) -> list[str]:
        """What the sample holds: "json", "mp4", "lfbe.npy", ...

        Raises:
            DamagedShard: the shard's index is not the one that was written.
        """
        shard, number = self._place(sample_id)
        return [extension for extension, *_ in self._places(shard).members(number)]

    def read(self, sample_id: int, extensions: Collection[str] | None = None) -> dict[str, bytes]:
        """Extension -> bytes of one sample, each verified by its CRC-32.

        Args:
            sample_id: 0 to `len - 1`.
            extensions: what to read, as far as the sample has it; None is everything.

        Raises:
            DamagedShard: bytes are missing or not those that were written; named with shard, member and offset.
            UserError: a remote shard cannot be had.
        """
        shard, number = self._place(sample_id)
        places, info = self._places(shard), self._shards[shard]
        where = f"{self._storage.where(info.name)}: {places.keys[number]}"
        wanted = [place for place in places.members(number) if extensions is None or place[0] in extensions]
        try:
            return _read_members(self._file(shard), where, wanted)
        except DamagedShard:
            if not self._storage.discard(info):
                raise
        self._files.drop(OpenFile.is_deleted)
        return _read_members(self._file(shard), where, wanted)  # of another copy

    def _place(self, sample_id: int) -> tuple[int, int]:
        """Number of the shard, and of the sample in it."""
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample {sample_id} of {len(self)}")
        shard = int(np.searchsorted(self._last, sample_id, side="right"))
        return shard, sample_id - int(self._last[shard]) + self.shard_sizes[shard]

    def _places(self, shard: int) -> "_Places":
        return self._indexes.get(shard, lambda: _Places(load_index(self._storage, self._shards[shard])))

    def _file(self, shard: int) -> BinaryIO:
        def opened() -> OpenFile:
            self._files.drop(OpenFile.is_deleted)  # evicted from the cache: closed, it gives its disk space back
            return OpenFile(self._storage.open(self._shards[shard]))

        return self._files.get(shard, opened).file


def _read_members(file: BinaryIO, where: str, members: list[tuple[str, int, int, int]]) -> dict[str, bytes]:
    return {
        extension: read_member(file, f"{where}.{extension}", offset, size, crc32)
        for extension, offset, size, crc32 in members
    }


class _Places:
    """Where a shard's members lie, in arrays: as objects, an index would take ten times the memory."""

    def __init__(self, index: ShardIndex) -> None:
        numbers: dict[str, int] = {}
        rows, starts = [], [0]
        for sample in index.samples.values():
            for extension, member in sample.items():
                number = numbers.setdefault(extension, len(numbers))
                rows.append((number, member.offset, member.size, member.crc32))
            starts.append(len(rows))
        self.keys = list(index.samples)
        self._extensions = list(numbers)
        self._rows = np.array(rows, dtype=np.int64).reshape(-1, 4)
        self._starts = np.array(starts, dtype=np.int64)

    def members(self, number: int) -> list[tuple[str, int, int, int]]:
        """Extension, offset, size and CRC-32 of each member of a sample."""
        rows = self._rows[self._starts[number] : self._starts[number + 1]].tolist()
        return [(self._extensions[extension], offset, size, crc32) for extension, offset, size, crc32 in rows]
