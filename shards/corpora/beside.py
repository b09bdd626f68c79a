"""Gives the clips of a corpus further files that lie in folders of their own and mirror the clips' keys."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shards.files import find_files
from shards.record import RawClip
from triptych.config import UserError

logger = logging.getLogger(__name__)


def given_or_below(folder: str, root: Path) -> Path:
    """A folder of a config: as given, else relative to the corpus' root."""
    return Path(folder) if Path(folder).is_dir() else root / folder


def mirrored(folder: Path, suffix: str, num_parts: int) -> dict[str, Path]:
    """The files below a folder by the key that they mirror: the last parts of their path, without the ending.

    Args:
        folder: where to look; what lies above the key's own folders (dev/, Actor_01/, ...) does not matter.
        suffix: ".csv", ".txt", ...
        num_parts: of a key of the corpus, as 3 for speaker/video/clip.

    Raises:
        UserError: the folder cannot be listed, or two files mirror one key.
    """
    files: dict[str, Path] = {}
    for path in find_files(folder, (suffix,)):
        parts = path.relative_to(folder).with_suffix("").parts
        key = "/".join(parts[-num_parts:])
        if key in files:
            first, second = sorted((path, files[key]))
            raise UserError(f"{second}: {key} is also at {first}; keep one of them")
        files[key] = path
    return files


def attach_files(clips: Sequence[RawClip], extension: str, files: Mapping[str, Path], where: Path) -> list[RawClip]:
    """The clips, each with its file if there is one; how many go without, and how many files are left, is logged.

    Args:
        clips: the whole corpus.
        extension: of the file in the sample, as "landmarks.csv".
        files: key -> file.
        where: they were found, for messages.

    Raises:
        UserError: no clip has a file.
    """
    used = [clip for clip in clips if clip.key in files]
    if not used:
        found = f"its files are named like {min(files)}" if files else "there is no such file"
        raise UserError(f"{where}: no {extension} for any clip; expected names like {clips[0].key}, and {found}")
    if lacking := len(clips) - len(used):
        logger.warning("%s: %d of %d clips have no %s", where, lacking, len(clips), extension)
    if left := len(set(files.values()) - {files[clip.key] for clip in used}):
        logger.warning("%s: %d files are of no clip of the corpus and were left out", where, left)
    return [
        replace(clip, attachments={**clip.attachments, extension: files[clip.key]}) if clip.key in files else clip
        for clip in clips
    ]
