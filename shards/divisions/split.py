"""Divides clips into training, validation and test: drawn by whole groups, the corpus' own way, or a protocol's."""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from shards.record import SPLITS, ClipRecord, RawClip
from triptych.config import UserError, nearest
from triptych.protocols import leaks, registry
from triptych.protocols.leaks import Shared
from triptych.protocols.splits import Assignment, Fold, own_split

_PREFIX = "transcript_prefix:"
_PROTOCOL = "protocol:"

_BY_DESIGN: Mapping[str, tuple[str, ...]] = {
    "speaker": (),
    "video": ("speaker", "session"),
    "transcript_prefix": ("speaker", "session", "video", "dialogue"),
    "source": ("speaker", "session"),
}
"""Rule -> what may be on two sides. The makers of a corpus' own split held recordings apart, not always people."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How clips are divided into training, validation and test."""

    by: str = "speaker"
    """What must not be on two sides: speaker, video, or transcript_prefix:N (the first N words). Or a division that is
    known: source (the corpus' own), or protocol:NAME/SPLIT[/FOLD], as protocol:ravdess/hicmae_6fold/2; then shares say
    nothing."""
    train: float = 0.8
    valid: float = 0.1
    test: float = 0.1
    """Shares of the clips; 0 leaves a split out."""
    seed: int = 0
    """Draws the groups, and mixes the clips inside a split."""
    allow: list[str] = field(default_factory=list)
    """Leaks to allow: speaker, session, video, dialogue or take. The manifest tells them; any other is refused."""

    def __post_init__(self) -> None:
        if self.by.startswith(_PROTOCOL):
            try:
                registry.find_fold(self.by.removeprefix(_PROTOCOL))
            except UserError as error:
                raise ValueError(f"split.by: {error}") from None
        elif self.by not in ("speaker", "video", "source") and not self.prefix_words:
            choices = ("speaker", "video", "source", "transcript_prefix:N", "protocol:NAME/SPLIT/FOLD")
            raise ValueError(
                f"split.by: {self.by!r}; expected speaker, video or transcript_prefix:N with N of 1 or more, source or "
                f"protocol:NAME/SPLIT/FOLD.{nearest(self.by, choices)}"
            )
        for kind in self.allow:
            if kind not in leaks.KINDS or kind == "clip":
                raise ValueError(f"split.allow: no {kind!r}.{nearest(kind, leaks.KINDS[1:])}")
        shares = (self.train, self.valid, self.test)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"split: the shares of train, valid and test are {shares}; they must be 0 or more, sum 1")

    @property
    def prefix_words(self) -> int:
        """N of transcript_prefix:N, else 0."""
        number = self.by.removeprefix(_PREFIX)
        return int(number) if number != self.by and number.isdecimal() else 0


def divide(clips: Sequence[RawClip], config: SplitConfig) -> Assignment:
    """Divide clips by the config's rule, and refuse what leaks.

    Raises:
        UserError: a leak that neither the rule nor `config.allow` declares; see also `draw` and `Fold.assign`.
    """
    allowed = declared(config.by, config.allow)
    if config.by.startswith(_PROTOCOL):
        return registry.find_fold(config.by.removeprefix(_PROTOCOL)).assign(clips, allowed)
    if config.by == "source":
        if all("split" not in clip.source for clip in clips):
            raise UserError("split.by: source: this corpus has no split of its own; split by speaker")
        return Fold(name="by source", place=own_split, shared=allowed, needs=()).assign(clips)
    splits = draw(clips, config)
    keys = {name: tuple(sorted(key for key in splits if splits[key] == name)) for name in SPLITS}
    name = f"by {config.by}"
    found = leaks.check(name, keys, clips, allowed)
    return Assignment(rule=name, keys=keys, left_out={}, leaks=tuple(found), note="")


def declared(by: str, allow: Sequence[str] = ()) -> tuple[Shared, ...]:
    """What a split may have on two sides: by design of its rule, and what was allowed by name.

    Args:
        by: the rule, as in SplitConfig; one that is not known declares nothing.
        allow: kinds of leaks.

    Raises:
        UserError: a protocol's rule that is not there.
    """
    allowed = tuple(Shared(kind) for kind in allow)
    if by.startswith(_PROTOCOL):
        return (*allowed, *registry.find_fold(by.removeprefix(_PROTOCOL)).shared)
    return (*allowed, *(Shared(kind) for kind in _BY_DESIGN.get(by.partition(":")[0], ())))


def account(assigned: Assignment, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a split: the config, the hash over all clips that were to be written, what two splits
    share by design, and what must be told beside its scores.

    Args:
        assigned: the clips.
        config: of SplitConfig, as plain values.
    """
    told = {"shared": [str(leak) for leak in assigned.leaks], "note": assigned.note}
    return {**config, "sha256": assigned.sha256, **{name: value for name, value in told.items() if value}}


def print_split(console: Console, said: Mapping[str, Any]) -> None:
    """Say what a manifest tells of its split: what two splits share by design, and what belongs beside every score.

    Args:
        console: to print to.
        said: `Manifest.split`.
    """
    for leak in said.get("shared", ()):
        console.print(f"by design: {leak}", markup=False)
    if said.get("note"):
        console.print(f"note: {said['note']}", soft_wrap=True, markup=False)
    if said.get("sha256"):
        console.print(f"SHA-256 of the sorted key<TAB>split lines, as divided: {said['sha256']}", soft_wrap=True)


def misplaced(record: ClipRecord, by: str) -> str | None:
    """What is wrong with a written clip's split under a rule that knows every clip's; None of rules that draw.

    Args:
        record: the clip.
        by: the rule, as in SplitConfig.
    """
    if by != "source" and not by.startswith(_PROTOCOL):
        return None
    try:
        place = own_split if by == "source" else registry.find_fold(by.removeprefix(_PROTOCOL)).place
        placed = place(record)
    except UserError as error:
        return str(error)
    return None if placed == (record.split,) else f"is in {record.split}, where the split {by} does not put it"


def draw(clips: Sequence[RawClip], config: SplitConfig) -> dict[str, str]:
    """Key -> split, for the rules that draw: speaker, video and transcript_prefix:N.

    Groups are taken in the order of a hash of (seed, group): into test until it has its share of the clips (to the
    nearest group, at least one), then valid, and the rest into train. A clip that lacks the property, as one without
    words in a split by transcript, is a group of its own.

    Raises:
        UserError: no clip has the property, or there are too few groups for every split to get one.
    """
    groups: dict[str, list[str]] = {}
    for clip in clips:
        groups.setdefault(_group(clip, config) or f"key:{clip.key}", []).append(clip.key)
    if all(name.startswith("key:") for name in groups):
        raise UserError(f"split.by: {config.by}: no clip has it; split by speaker")
    wanted = [split for split in SPLITS if getattr(config, split) > 0]
    if len(groups) < len(wanted):
        raise UserError(
            f"split.by: {config.by}: {len(groups)} groups cannot fill {', '.join(wanted)}; "
            "split by something else, or set a share to 0"
        )
    waiting = deque(sorted(groups, key=lambda name: hashlib.sha256(f"{config.seed}:{name}".encode()).digest()))
    splits: dict[str, str] = {}
    for number, split in enumerate(reversed(wanted), start=1):
        target, filled = getattr(config, split) * len(clips), 0
        last = number == len(wanted)
        while waiting and (last or not filled or filled + len(groups[waiting[0]]) / 2 <= target):
            if not last and filled and len(waiting) <= len(wanted) - number:
                break  # one group is left for each of the others
            name = waiting.popleft()
            filled += len(groups[name])
            splits |= dict.fromkeys(groups[name], split)
    return splits


def _group(clip: RawClip, config: SplitConfig) -> str | None:
    if config.by == "speaker":
        return f"speaker:{clip.speaker}"
    if config.by == "video":
        return f"video:{clip.source['video']}" if "video" in clip.source else None
    if not clip.words:
        return None
    return "words:" + " ".join(word.text.lower() for word in clip.words[: config.prefix_words])
