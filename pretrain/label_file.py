"""Labels of clips in a CSV file: another system's opinions, for instance.

Legend: B clips, L labels, K clips of a file.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.batch import UNLABELLED
from triptych.config import UserError, nearest
from triptych.text_files import open_text


@dataclass(frozen=True, eq=False)
class FileLabels:
    """The labels of a file; a million clips take ten megabytes, where a dict would take two hundred a process."""

    hashes: np.ndarray
    """[K] uint64 of the keys, rising."""
    classes: np.ndarray
    """[K, L] int16 class indices, UNLABELLED where the field is empty."""
    example: str
    """The first key, for a message."""

    @classmethod
    def read(cls, path: Path, labels: Mapping[str, Sequence[str]]) -> "FileLabels":
        """Read a file.

        Args:
            path: CSV with the columns `key` and the labels; others are not looked at.
            labels: label -> classes.

        Raises:
            UserError: it cannot be read, a column or a field is missing, a class is none of the label's, or a key comes
                twice; the message names the line.
        """
        rows = list(_rows(path, labels))
        if not rows:
            raise UserError(f"{path}: lists no clip; expected a line for each, below the names of the columns")
        hashes = hashes_of([key for key, _ in rows])
        order = np.argsort(hashes)
        ordered = hashes[order]
        if len(twice := np.flatnonzero(ordered[1:] == ordered[:-1])):
            raise UserError(f"{path}: the key {rows[order[twice[0]]][0]!r} comes twice; keep one of the lines")
        return cls(ordered, np.array([found for _, found in rows], dtype=np.int16)[order], rows[0][0])

    def of(self, keys: Sequence[str]) -> np.ndarray:
        """[B, L] int64 class indices of clips, UNLABELLED where the file does not list them."""
        wanted = hashes_of(keys)
        places = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        there = self.hashes[places] == wanted
        return np.where(there[:, None], self.classes[places], UNLABELLED).astype(np.int64)


def hashes_of(keys: Sequence[str]) -> np.ndarray:
    """[B] uint64 of keys; among a million keys two are alike once in 40 million files."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=np.uint64)


def _rows(path: Path, labels: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[int]]]:
    """Key and class indices of each line."""
    try:
        with open_text(path, newline="") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or []
            for name in ("key", *labels):
                if name not in columns:
                    raise UserError(
                        f"{path}: no column {name!r} in the first line;{nearest(name, columns) if columns else ''}"
                    )
            for row in reader:
                if not row["key"] or any(row[label] is None for label in labels):
                    raise UserError(f"{path}, line {reader.line_num}: the key or a field is missing")
                where = f"{path}, line {reader.line_num}"
                yield row["key"], [_index(row[label], label, classes, where) for label, classes in labels.items()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file: {error}") from None


def _index(value: str, label: str, classes: Sequence[str], where: str) -> int:
    if value and value not in classes:
        raise UserError(f"{where}: {unknown_class(label, value, classes)}")
    return classes.index(value) if value else UNLABELLED


def unknown_class(label: str, value: str, classes: Sequence[str]) -> str:
    """The end of a message about a value of a label that is none of its classes."""
    return f"{label} is {value!r}, which is none of {', '.join(classes)}; add it to the label's classes"
