"""A corpus' clips -> which clip goes into which shard, before anything is opened: no number of parts, workers or kills
can change it. No torch."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from shards.record import SPLITS, RawClip
from triptych.config import UserError
from triptych.protocols.splits import Assignment
from triptych.text_files import read_text

logger = logging.getLogger(__name__)

EXCLUDED = "excluded"
NO_CONFIDENCE = "no word confidence"


def check_unique(clips: Sequence[RawClip]) -> None:
    """Two clips of one key would be one sample.

    Raises:
        UserError: a key comes twice.
    """
    counts = Counter(clip.key for clip in clips)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"{len(twice)} clips have the key of another one, first: {twice[0]}")


def read_exclude(path: Path) -> frozenset[str]:
    """Video ids and keys, one a line; empty lines and lines that start with '#' say nothing.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise UserError(f"exclude: {path} cannot be read: {error}") from None
    return frozenset(name for line in lines if (name := line.strip()) and not name.startswith("#"))


def select(
    clips: Sequence[RawClip],
    *,
    keep: Mapping[str, Collection[str]],
    exclude: Collection[str] | None,
    min_confidence: float | None,
) -> tuple[list[RawClip], dict[str, int]]:
    """The clips to write, and reason -> number of the others. A clip is counted under the first reason it meets.

    Args:
        clips: the corpus.
        keep: property of `source` -> values to keep.
        exclude: video ids and keys to leave out.
        min_confidence: of a clip's words on average; a clip of which no word has one is left out for that.

    Raises:
        UserError: a property that no clip has, a confidence that no word has, or nothing is left.
    """
    _check_filters(clips, keep, exclude or (), min_confidence)
    kept: list[RawClip] = []
    filtered = Counter[str]()
    if exclude is not None:
        filtered[EXCLUDED] = 0  # a list that meets no clip shall be seen
    for clip in clips:
        reason = _reason(clip, keep, exclude or (), min_confidence)
        if reason is None:
            kept.append(clip)
        else:
            filtered[reason] += 1
    counted = dict(sorted(filtered.items()))
    if not kept:
        there = ", ".join(f"{reason} ({count})" for reason, count in counted.items())
        raise UserError(f"nothing is left of {len(clips)} clips; change keep, exclude or min_confidence: {there}")
    return kept, counted


def set_aside(clips: Sequence[RawClip]) -> tuple[list[RawClip], dict[str, str]]:
    """The clips that can be opened, and key -> reason of those that the corpus calls unusable.

    Raises:
        UserError: all of them are.
    """
    unusable = {clip.key: clip.unusable for clip in clips if clip.unusable is not None}
    if len(unusable) == len(clips):
        raise UserError(f"every one of {len(clips)} clips is unusable. {_first(unusable)}")
    return [clip for clip in clips if clip.unusable is None], unusable


def too_many_unusable(unusable: Mapping[str, str], num_clips: int, share: float) -> str | None:
    """What to tell where the corpus calls too many clips unusable, else None.

    Args:
        unusable: key -> reason.
        num_clips: the others.
        share: of all these that may be unusable.
    """
    total = len(unusable) + num_clips
    if len(unusable) <= share * total:
        return None
    needed = math.ceil(1000 * len(unusable) / total) / 1000
    return (
        f"{len(unusable)} of {total} clips are unusable, more than max_quarantined_share ({share:g}). "
        f"{_first(unusable)}. check=true lists more. Put right what is missing, or go on without these clips: "
        f"max_quarantined_share={needed:g}"
    )


def _first(unusable: Mapping[str, str]) -> str:
    return "First: " + "; ".join(f"{key}: {reason}" for key, reason in list(unusable.items())[:3])


def _check_filters(
    clips: Sequence[RawClip],
    keep: Mapping[str, Collection[str]],
    exclude: Collection[str],
    min_confidence: float | None,
) -> None:
    properties = sorted({name for clip in clips for name in clip.source}) if keep else []
    for name in keep:
        if name not in properties:
            raise UserError(f"keep.{name}: no clip has this property; there are {', '.join(properties)}")
    if min_confidence is not None and all(_confidence(clip) is None for clip in clips):
        raise UserError("min_confidence: no word of these clips has a confidence; leave it out")
    if exclude:
        unknown = sorted(set(exclude) - {clip.key for clip in clips} - {clip.source.get("video", "") for clip in clips})
        if unknown:
            logger.warning(
                "exclude: %d of %d names are no key or video id here, first: %s", len(unknown), len(exclude), unknown[0]
            )


def _reason(
    clip: RawClip, keep: Mapping[str, Collection[str]], exclude: Collection[str], min_confidence: float | None
) -> str | None:
    """Why the clip is left out; None if it is not."""
    if clip.key in exclude or clip.source.get("video") in exclude:
        return EXCLUDED
    for name, values in keep.items():
        if clip.source.get(name) not in values:
            return f"{name}={clip.source.get(name)}"
    if min_confidence is None:
        return None
    confidence = _confidence(clip)
    if confidence is None:
        return NO_CONFIDENCE
    return f"confidence < {min_confidence:g}" if confidence < min_confidence else None


def _confidence(clip: RawClip) -> float | None:
    """Mean over the words that have one."""
    known = [word.confidence for word in clip.words or () if word.confidence is not None]
    return fmean(known) if known else None


def deal(
    clips: Sequence[RawClip], assigned: Assignment, seed: int, samples_per_shard: int
) -> Iterator[tuple[str, str, list[RawClip]]]:
    """Deal the divided clips out: (name, split, clips) of every shard, split after split.

    Inside a split the clips are mixed by a hash of (seed, key): neighbours should not all be of one speaker.

    Raises:
        UserError: the division has a clip in two splits.
    """
    splits = assigned.splits
    for name in SPLITS:
        mixed = sorted(
            (clip for clip in clips if splits.get(clip.key) == name),
            key=lambda clip: hashlib.sha256(f"{seed}:{clip.key}".encode()).digest(),
        )
        for number, start in enumerate(range(0, len(mixed), samples_per_shard)):
            yield f"{name}-{number:06d}", name, mixed[start : start + samples_per_shard]
