"""Finds a corpus' files: `Path.glob` skips folders that cannot be listed, and their clips would be gone in silence."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from triptych.config import UserError


def find_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Every file with one of these endings at any depth, links followed and hidden files left out; in no fixed order.

    Args:
        folder: where to look.
        suffixes: in lower case, as ".mp4"; ".MP4" is found too.

    Raises:
        UserError: a folder is not there or cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be listed: {error.strerror}")

    for where, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(where, name)
