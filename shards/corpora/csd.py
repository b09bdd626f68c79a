"""Computational sequences (`.csd`) of the CMU-MultimodalSDK: HDF5 files of rows that each have an interval in a video.

    /<root>/data/<entry>/features     [T, D] numbers or byte strings
    /<root>/data/<entry>/intervals    [T, 2] start and end, seconds from the recording's start
    /<root>/metadata/<name>           one string each, JSON

The first top-level name is the root, as the SDK takes it. Rows come in any order: nothing may be joined by their place.

Legend: T rows, D columns.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError

MAX_ENTRIES = 100_000
"""The largest file of these corpora has under 4,000; a file with more is something else."""
MAX_BYTES = 2**28
"""Of one entry's features, unpacked: ten minutes of OpenFace's 713 columns at 30 Hz take 100 MB."""

_ALIGNED = re.compile(r"\[\d+\]$")


@dataclass(frozen=True)
class Rows:
    """What a file says of one video."""

    features: NDArray[Any]
    """[T, D] float64 or byte strings."""
    intervals: NDArray[np.float64]
    """[T, 2] seconds."""


@dataclass(frozen=True)
class Csd:
    """One file."""

    root: str
    metadata: dict[str, Any]
    videos: dict[str, Rows]
    """By the video's id; the entries `<video>[<i>]` that the SDK makes of an aligned one are put together."""


def read(path: Path) -> Csd:
    """The whole file. Only plain data sets inside it are read: no links to other files, no stored Python objects.

    Raises:
        UserError: the file cannot be read, is no computational sequence, or has an entry whose features and intervals
            differ in length, are not finite or are larger than the limits.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except OSError as error:  # h5py's messages have the C function's name and no file
        told = "there is no such file" if not path.exists() else f"it is no HDF5 file, or damaged ({error})"
        raise UserError(f"{path}: no computational sequence can be read: {told}") from None


def _read(file: h5py.File, path: Path) -> Csd:
    root = next(iter(file), None)
    top = None if root is None else _inside(file, root)
    data = _inside(top, "data") if isinstance(top, h5py.Group) else None
    if root is None or not isinstance(data, h5py.Group) or not len(data):
        raise UserError(f"{path}: no computational sequence: it has no group /<name>/data with a group for each video")
    if len(data) > MAX_ENTRIES:
        raise UserError(f"{path}: {len(data)} entries; the limit is {MAX_ENTRIES}")
    parts: dict[str, list[Rows]] = {}
    for entry in data:
        parts.setdefault(_ALIGNED.sub("", entry), []).append(_rows(data, entry, path))
    videos = {}
    for video, rows in parts.items():
        if len({part.features.shape[1] for part in rows}) > 1:
            raise UserError(f"{path}: the entries of {video} differ in their number of columns")
        videos[video] = Rows(
            np.concatenate([part.features for part in rows]), np.concatenate([part.intervals for part in rows])
        )
    metadata = _inside(top, "metadata")
    return Csd(root, _metadata(metadata) if isinstance(metadata, h5py.Group) else {}, videos)


def _inside(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """A member that lies in this file; None where there is none, or a link that could lead anywhere."""
    link = group.get(name, getlink=True) if name in group else None
    return group[name] if isinstance(link, h5py.HardLink) else None


def _rows(data: h5py.Group, entry: str, path: Path) -> Rows:
    group = _inside(data, entry)
    members = [_inside(group, name) if isinstance(group, h5py.Group) else None for name in ("features", "intervals")]
    for name, member in zip(("features", "intervals"), members):
        if not isinstance(member, h5py.Dataset) or member.external or member.is_virtual or member.shape is None:
            raise UserError(f"{path}: {entry} has no {name} in the file itself")
        if member.size * max(member.dtype.itemsize, 1) > MAX_BYTES:
            raise UserError(f"{path}: {name} of {entry} take more than {MAX_BYTES // 2**20} MiB")
    features, intervals = _array(members[0]), _array(members[1])
    if intervals is None or intervals.dtype.kind == "S" or intervals.ndim != 2 or intervals.shape[1] != 2:
        raise UserError(f"{path}: intervals of {entry} are {_form(members[1])}; expected [rows, 2] seconds")
    if features is not None and features.ndim == 1:
        features = features[:, None]  # some releases store a single column so
    if features is None or features.ndim != 2:
        raise UserError(f"{path}: features of {entry} are {_form(members[0])}; expected [rows, columns]")
    if len(features) != len(intervals):
        raise UserError(f"{path}: {entry} has {len(features)} rows of features and {len(intervals)} intervals")
    if not np.isfinite(intervals).all():
        raise UserError(f"{path}: {entry} has an interval that is no number")
    return Rows(features, intervals)


def _array(dataset: h5py.Dataset) -> NDArray[Any] | None:
    """float64 or byte strings; None for what is neither, as references to objects."""
    if dataset.dtype.kind in "fiu":
        return dataset[()].astype(np.float64)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array(dataset[()].tolist(), dtype=np.bytes_).reshape(dataset.shape)
    return None


def _form(dataset: h5py.Dataset) -> str:
    return f"{dataset.dtype} of shape {list(dataset.shape)}"


def _metadata(group: h5py.Group) -> dict[str, Any]:
    """Name -> value. What is no JSON is left out: metadata are told and checked with, never needed."""
    found = {}
    for name in group:
        member = _inside(group, name)
        if isinstance(member, h5py.Dataset) and member.size == 1 and h5py.check_string_dtype(member.dtype) is not None:
            try:
                found[name] = json.loads(member[()].reshape(-1)[0])
            except ValueError:
                continue
    return found
