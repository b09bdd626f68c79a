"""Who and what must not be on two sides of a split: found by name, counted, and refused unless declared. No torch."""

import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from triptych.config import UserError

SPLITS = ("train", "valid", "test")
KINDS = ("clip", "speaker", "session", "video", "dialogue", "take")
"""clip: one clip in two splits. take: files of one performance, as RAVDESS' av, video and audio ones. Session, video
(any recording) and dialogue are read off `source`; a clip without one is not compared in it."""


class Clip(typing.Protocol):
    """What a split may look at; a corpus' clips and the records of a shard set fit."""

    @property
    def key(self) -> str:
        """Unique in the corpus."""

    @property
    def speaker(self) -> str:
        """Unique in the corpus."""

    @property
    def source(self) -> Mapping[str, str]:
        """Properties, as video, session, dialogue, take, and the corpus' own split."""


@dataclass(frozen=True)
class Shared:
    """A leak that a split rule allows by design."""

    kind: str
    between: tuple[str, ...] = SPLITS
    """It is allowed between any two of these splits."""


@dataclass(frozen=True)
class Leak:
    """What two splits share."""

    kind: str
    first: str
    second: str
    names: tuple[str, ...]
    """Of the speakers, videos, ..., sorted."""

    def __str__(self) -> str:
        number = len(self.names)
        named = ", ".join(self.names[:3]) + (", ..." if number > 3 else "")
        return f"{number} {self.kind}{'s' if number > 1 else ''} in both {self.first} and {self.second} ({named})"


def find(splits: Mapping[str, Collection[str]], clips: Iterable[Clip]) -> list[Leak]:
    """Everything that two splits share, in the order of KINDS.

    Args:
        splits: split -> keys; clips of no split are not looked at.
        clips: at least those.
    """
    places = {split: set(keys) for split, keys in splits.items()}
    groups: dict[str, dict[str, set[str]]] = {split: {kind: set() for kind in KINDS} for split in places}
    for clip in clips:
        for split, keys in places.items():
            if clip.key in keys:
                for kind in KINDS[1:]:
                    if (name := _name(clip, kind)) is not None:
                        groups[split][kind].add(name)
    for split, keys in places.items():
        groups[split]["clip"] = keys
    return [
        Leak(kind, first, second, tuple(names))
        for kind in KINDS
        for first, second in combinations(places, 2)
        if (names := sorted(groups[first][kind] & groups[second][kind]))
    ]


def check(
    rule: str, splits: Mapping[str, Collection[str]], clips: Iterable[Clip], allowed: Sequence[Shared] = ()
) -> list[Leak]:
    """Refuse what two splits share and the rule does not declare.

    Args:
        rule: its name, for the message.
        splits: split -> keys.
        clips: at least those of the splits.
        allowed: what the rule shares by design.

    Returns:
        The declared leaks that there are, to be told beside every score.

    Raises:
        UserError: an undeclared one; the message names all of them.
    """
    leaks = find(splits, clips)
    declared = [
        leak
        for leak in leaks
        if any(shared.kind == leak.kind and {leak.first, leak.second} <= set(shared.between) for shared in allowed)
    ]
    if refused := [leak for leak in leaks if leak not in declared]:
        kinds = ", ".join(dict.fromkeys(leak.kind for leak in refused))
        raise UserError(
            f"split {rule} leaks: {'; '.join(map(str, refused))}. Divide by another rule, or allow it by name "
            f"(split.allow=[{kinds}] of the writer), which every account of the split then says"
        )
    return declared


def _name(clip: Clip, kind: str) -> str | None:
    return clip.speaker if kind == "speaker" else clip.source.get(kind)
