"""Writes tar shards with their indexes: whole or absent, and the same bytes for the same samples.

With the standard library's tarfile: webdataset's writer makes the same tars, but importing it loads torch.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from shards.record import Member, ShardIndex, ShardInfo
from triptych.files import sync, write_atomically

_OWN_FILE = re.compile(
    r"\.?(train|valid|test)-\d{6}\.(tar|index\.json)(\.tmp)?|\.(manifest\.json|vocabulary\.txt|\w+\.durations\.npy)\.tmp|quarantined\.json"
)


def remove_unfinished(folder: Path) -> None:
    """Remove what an interrupted run left: shards without a manifest count for nothing and would only confuse."""
    for path in folder.iterdir():
        if _OWN_FILE.fullmatch(path.name):
            path.unlink()


class ShardWriter:
    """Writes one split's samples, in the order they come, into shards of a fixed number of samples."""

    def __init__(self, folder: Path, split: str, samples_per_shard: int) -> None:
        self.folder = folder
        self.split = split
        self.samples_per_shard = samples_per_shard
        self.shards: list[ShardInfo] = []
        self._tar: tarfile.TarFile | None = None
        self._num_samples = 0

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample; extension -> bytes, stored by extension."""
        if self._tar is None:
            self._tar = tarfile.open(self._temporary, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        for extension in sorted(members):
            entry = tarfile.TarInfo(f"{key}.{extension}")  # owner and time stay 0: the same samples, the same bytes
            entry.size = len(members[extension])
            self._tar.addfile(entry, io.BytesIO(members[extension]))
        self._num_samples += 1
        if self._num_samples == self.samples_per_shard:
            self.finish()

    def finish(self) -> list[ShardInfo]:
        """Close the last shard and return all of them."""
        if self._tar is None:
            return self.shards
        self._tar.close()
        self._tar = None
        temporary, name = self._temporary, f"{self._stem}.tar"
        index = json.dumps(_index(temporary, name).to_json()).encode()
        with temporary.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        write_atomically(self.folder / f"{self._stem}.index.json", index)
        size = temporary.stat().st_size
        temporary.rename(self.folder / name)
        sync(self.folder)
        self.shards.append(
            ShardInfo(
                name=name,
                split=self.split,
                num_samples=self._num_samples,
                size=size,
                sha256=digest,
                index=f"{self._stem}.index.json",
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
        self._num_samples = 0
        return self.shards

    @property
    def _stem(self) -> str:
        return f"{self.split}-{len(self.shards):06d}"

    @property
    def _temporary(self) -> Path:
        return self.folder / f".{self._stem}.tar.tmp"


def _index(path: Path, name: str) -> ShardIndex:
    """Read a finished tar back: the index says what is there, not what was meant to be."""
    samples: dict[str, dict[str, Member]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            folder, separator, base = entry.name.rpartition("/")
            stem, _, extension = base.partition(".")
            content = tar.extractfile(entry)
            assert content is not None, entry.name
            member = Member(entry.offset_data, entry.size, zlib.crc32(content.read()))
            samples.setdefault(f"{folder}{separator}{stem}", {})[extension] = member
    return ShardIndex(shard=name, samples=samples)
