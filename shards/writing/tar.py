"""Writes a tar shard with its index: whole or absent, and the same bytes for the same samples.

With the standard library's tarfile: webdataset's writer makes the same tars, but importing it loads torch.
"""

import hashlib
import io
import json
import os
import secrets
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from shards.record import Member, ShardIndex, ShardInfo
from triptych.files import write_atomically
from triptych.refusals import sync


class ShardWriter:
    """Writes the samples of one shard in the order they come.

    Args:
        folder: of the tar and its index.
        name: their names without the endings.
        split: of the samples.
    """

    def __init__(self, folder: Path, name: str, split: str) -> None:
        self.folder = folder
        self.name = name
        self.split = split
        # a name of its own, should another process write the same shard where files cannot be locked
        self._temporary = folder / f".{name}.{secrets.token_hex(4)}.tar.tmp"
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

    def finish(self) -> ShardInfo | None:
        """Close the shard and give it its name; None, and no file, if it has no sample."""
        if self._tar is None:
            return None
        self._tar.close()
        name, index_name = f"{self.name}.tar", f"{self.name}.index.json"
        index = json.dumps(_index(self._temporary, name).to_json()).encode()
        with self._temporary.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        write_atomically(self.folder / index_name, index)
        size = self._temporary.stat().st_size
        self._temporary.rename(self.folder / name)
        sync(self.folder)
        return ShardInfo(
            name=name,
            split=self.split,
            num_samples=self._num_samples,
            size=size,
            sha256=digest,
            index=index_name,
            index_sha256=hashlib.sha256(index).hexdigest(),
        )


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
