"""Draws the three-way split: whole groups of clips, by hash, so that it depends on the seed and the groups only."""

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from shards.record import SPLITS, RawClip
from triptych.config import UserError

_PREFIX = "transcript_prefix:"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How clips are divided into training, validation and test."""

    by: str = "speaker"
    """What must not be on two sides: speaker, video, or transcript_prefix:N (the first N words)."""
    train: float = 0.8
    valid: float = 0.1
    test: float = 0.1
    """Shares of the clips; 0 leaves a split out."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("speaker", "video") and not self.prefix_words:
            raise ValueError(
                f"split.by: {self.by!r}; expected speaker, video or transcript_prefix:N with N of 1 or more"
            )
        shares = (self.train, self.valid, self.test)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"split: the shares of train, valid and test are {shares}; they must be 0 or more, sum 1")

    @property
    def prefix_words(self) -> int:
        """N of transcript_prefix:N, else 0."""
        number = self.by.removeprefix(_PREFIX)
        return int(number) if number != self.by and number.isdecimal() else 0


def draw(clips: Sequence[RawClip], config: SplitConfig) -> dict[str, str]:
    """Key -> split.

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
