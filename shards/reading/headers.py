"""What a tar's own headers say against its index: what any other reader of the tar would meet. Nothing is extracted."""

import tarfile
from itertools import groupby
from pathlib import Path

from shards.record import ShardIndex

_BLOCK = 512


def header_problems(path: Path, index: ShardIndex) -> list[str]:
    """Each with the file in the tar and the byte of its header.

    Args:
        path: the tar, read strictly: with no decompression, to its end.
        index: what should be there.
    """
    entries: list[tarfile.TarInfo] = []
    reason = ""
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                entries.append(entry)
                end = -(-(entry.offset_data + entry.size) // _BLOCK) * _BLOCK
    except (tarfile.TarError, EOFError, ValueError) as error:
        reason = f" ({error})"
    problems = [problem for entry in entries if (problem := _evil(entry))]
    problems += _twice(entries) + _scattered(entries)
    problems += _differences(entries, index)
    lost = _lost(entries, index)
    problems += [f"{name} at byte {offset}: in the index, but not in the tar" for name, offset in lost if offset < end]
    behind = [(name, offset) for name, offset in lost if offset >= end]
    if behind:
        name, offset = behind[0]
        which = (
            f"{len(behind)} files from {name} (its bytes begin at {offset}) on are lost to a reader without an index"
        )
        problems.append(f"at byte {end} there is {_what_is_at(path, end)}{reason}: {which}")
    elif reason:
        problems.append(f"at byte {end} the tar ends early{reason}")
    return problems


def _evil(entry: tarfile.TarInfo) -> str | None:
    where = f"{entry.name} at byte {entry.offset}"
    if not entry.isreg():
        kind = "a link" if entry.issym() or entry.islnk() else "a folder" if entry.isdir() else "a device"
        return f"{where}: is {kind}; a shard holds plain files only"
    if entry.name.startswith("/") or ".." in entry.name.split("/"):
        return f"{where}: its name leads out of the folder; do not extract this tar"
    return None


def _twice(entries: list[tarfile.TarInfo]) -> list[str]:
    first: dict[str, int] = {}
    return [
        f"{entry.name} at byte {entry.offset}: is there twice, first at byte {first[entry.name]}"
        for entry in entries
        if first.setdefault(entry.name, entry.offset) != entry.offset
    ]


def _scattered(entries: list[tarfile.TarInfo]) -> list[str]:
    """Clips whose files are not side by side, of which readers that stream a tar make two halves."""
    seen: set[str] = set()
    problems = []
    for key, run in groupby(entries, _key):
        if key in seen:
            entry = next(run)
            problems.append(f"{entry.name} at byte {entry.offset}: other clips lie between the files of its clip")
        seen.add(key)
    return problems


def _key(entry: tarfile.TarInfo) -> str:
    folder, separator, base = entry.name.rpartition("/")
    return f"{folder}{separator}{base.partition('.')[0]}"


def _wanted(index: ShardIndex) -> dict[str, tuple[int, int]]:
    return {
        f"{key}.{extension}": (member.offset, member.size)
        for key, members in index.samples.items()
        for extension, member in members.items()
    }


def _differences(entries: list[tarfile.TarInfo], index: ShardIndex) -> list[str]:
    wanted, problems = _wanted(index), []
    for entry in entries:
        where = f"{entry.name} at byte {entry.offset}"
        if entry.name not in wanted:
            problems.append(f"{where}: in the tar, but not in the index")
        elif wanted[entry.name] != (entry.offset_data, entry.size):
            place, size = wanted[entry.name]
            problems.append(
                f"{where}: its {entry.size} bytes begin at {entry.offset_data}, the index says {size} bytes at {place}"
            )
    return problems


def _lost(entries: list[tarfile.TarInfo], index: ShardIndex) -> list[tuple[str, int]]:
    """Files of the index that the headers do not lead to, in the order of the tar."""
    there = {entry.name for entry in entries}
    return sorted(
        ((name, offset) for name, (offset, _) in _wanted(index).items() if name not in there), key=lambda pair: pair[1]
    )


def _what_is_at(path: Path, place: int) -> str:
    with path.open("rb") as file:
        file.seek(place)
        block = file.read(_BLOCK)
    if not block:
        return "the end of the file"
    return "a block of zeros, which ends a tar" if not any(block) else "no header"
