"""What a process keeps of the shards that it read last: open tars and indexes. No torch."""

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, Generic, TypeVar

from shards.reading.storage import DamagedShard

T = TypeVar("T")

OPEN_SHARDS = 64
"""Tars and indexes kept open a process: far below the usual limit of 1024 files, and four blocks of the plan."""


class OpenFile:
    """Closes with its last reference."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def is_deleted(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self.file.fileno()).st_nlink == 0

    def __del__(self) -> None:
        self.file.close()


class Recent(Generic[T]):
    """What was used last, by shard. Safe across a fork, as `pread` shares no position; starts empty when pickled.

    A shard found damaged stays so: a run that goes on without its clips must not download it again for each of them.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[int, T] = OrderedDict()
        self._damaged: dict[int, str] = {}

    def __reduce__(self) -> Any:
        return Recent, ()

    def get(self, shard: int, make: Callable[[], T]) -> T:
        """What is kept of a shard, made if it is not there.

        Raises:
            DamagedShard: `make` raised it, now or before.
        """
        if shard in self._damaged:
            raise DamagedShard(self._damaged[shard])
        if shard in self._values:
            self._values.move_to_end(shard)
        else:
            try:
                self._values[shard] = make()
            except DamagedShard as error:
                self._damaged[shard] = str(error)
                raise
            if len(self._values) > OPEN_SHARDS:
                self._values.popitem(last=False)
        return self._values[shard]

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Forget what is unwanted."""
        for shard in [shard for shard, value in self._values.items() if unwanted(value)]:
            del self._values[shard]
