"""Splits as papers use them: named, pure functions of a clip, hashed and checked for leaks. No torch.

fold = registry.find("ravdess").fold("hicmae_6fold", 2)
assigned = fold.assign(clips)         # refuses what leaks
assigned.keys["test"], assigned.left_out, assigned.sha256, assigned.leaks
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from triptych.config import UserError, nearest
from triptych.protocols import leaks
from triptych.protocols.leaks import SPLITS, Clip, Leak, Shared


@dataclass(frozen=True)
class LeftOut:
    """In place of splits: the clip is in none."""

    reason: str


Place = Callable[[Clip], tuple[str, ...] | LeftOut]
"""The split of a clip; several only where a paper's rule uses one clip in two."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Clips, divided by a fold."""

    rule: str
    keys: Mapping[str, tuple[str, ...]]
    """Split -> keys, sorted."""
    left_out: Mapping[str, str]
    """Key -> reason."""
    leaks: tuple[Leak, ...]
    """Those that the rule declares."""
    note: str

    @property
    def sha256(self) -> str:
        """See `split_sha256`."""
        return split_sha256(self.keys)

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of clips left out."""
        return dict(Counter(self.left_out.values()))

    @cached_property
    def splits(self) -> dict[str, str]:
        """Key -> split.

        Raises:
            UserError: the rule uses a clip in two splits, which a shard set cannot hold.
        """
        splits: dict[str, str] = {}
        for split, keys in self.keys.items():
            for key in keys:
                if key in splits:
                    raise UserError(
                        f"{self.rule}: uses clips, as {key}, in {splits[key]} and {split}; a shard set holds a clip "
                        "once. Write it by another rule and name this one where the clips are evaluated"
                    )
                splits[key] = split
        return splits


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One division of a corpus."""

    name: str
    """"ravdess/hicmae_6fold/2"."""
    place: Place
    shared: tuple[Shared, ...] = ()
    """What it shares between splits by design."""
    needs: tuple[str, ...] = SPLITS
    """Splits that may not be empty."""
    note: str = ""
    """What must be told beside every score over it."""
    describe: Callable[[Sequence[Clip]], str] | None = None
    """Adds to the note what the clips show, as whether their split is the official one; may refuse them."""

    def assign(self, clips: Iterable[Clip], allowed: Sequence[Shared] = ()) -> Assignment:
        """Divide clips.

        Args:
            clips: of the corpus; others than the rule's are left out with a reason.
            allowed: leaks that the caller accepts beside those of the rule.

        Raises:
            UserError: a clip that the rule cannot read, an undeclared leak, or an empty split.
        """
        clips = list(clips)
        keys: dict[str, list[str]] = {split: [] for split in SPLITS}
        left_out: dict[str, str] = {}
        for clip in clips:
            placed = self.place(clip)
            if isinstance(placed, LeftOut):
                left_out[clip.key] = placed.reason
            else:
                for split in placed:
                    keys[split].append(clip.key)
        if not any(keys.values()) or not all(keys[split] for split in self.needs):
            empty = ", ".join(split for split in SPLITS if not keys[split])
            reasons = "; ".join(f"{number} left out: {reason}" for reason, number in Counter(left_out.values()).items())
            raise UserError(f"split {self.name}: none of {len(clips)} clips is in {empty}. {reasons}".rstrip())
        return Assignment(
            rule=self.name,
            keys={split: tuple(sorted(found)) for split, found in keys.items() if found},
            left_out=left_out,
            leaks=tuple(leaks.check(self.name, keys, clips, (*self.shared, *allowed))),
            note="; ".join(filter(None, (self.note, self.describe(clips) if self.describe else ""))),
        )


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """A named way to divide a corpus, in one or several folds."""

    name: str
    folds: tuple[Fold, ...] = ()
    listed: Callable[[Collection[str]], Fold] | None = None
    """In place of folds: makes the one fold out of a list of keys that the user has."""
    folds_of: Callable[[Sequence[Clip]], tuple[Fold, ...]] | None = None
    """In place of folds: makes as many as the clips ask for, as one for each speaker."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Split -> clips, or what `source` says, as published; none for a rule of several folds."""
    source: str = ""
    """Where the rule is from, and what is ours in it."""

    def fold(self, number: int | None = None, listed: Collection[str] | None = None) -> Fold:
        """The fold of that number, from 1; a rule of one fold needs none.

        Raises:
            UserError: no such fold, or as of `all_folds`.
        """
        return self.pick(self.all_folds(listed=listed), number)

    def all_folds(self, clips: Sequence[Clip] | None = None, listed: Collection[str] | None = None) -> tuple[Fold, ...]:
        """Every fold, in the order of their numbers.

        Args:
            clips: that are to be divided, for a rule whose folds depend on them.
            listed: keys, for a rule that takes its validation clips from a list of the user.

        Raises:
            UserError: the clips are missing, or a list of keys is missing, wrong or not wanted.
        """
        if self.listed is not None:
            if listed is None:
                raise UserError(
                    f"split {self.name}: takes its validation clips from a list that you have; name it where clips are "
                    "evaluated, with the list"
                )
            return (self.listed(listed),)
        if listed is not None:
            raise UserError(f"split {self.name}: takes no list of clips")
        if self.folds_of is None:
            return self.folds
        if clips is None:
            raise UserError(
                f"split {self.name}: its folds depend on the clips that there are; write them by another rule, as "
                "split.by=speaker, and name this one where clips are evaluated"
            )
        return self.folds_of(clips)

    def pick(self, folds: Sequence[Fold], number: int | None) -> Fold:
        """One of the rule's folds by its number, from 1; where there is one, it needs none.

        Raises:
            UserError: no such fold.
        """
        if number is None and len(folds) == 1:
            return folds[0]
        if number is None or not 1 <= number <= len(folds):
            there = "one fold" if len(folds) == 1 else f"folds 1 to {len(folds)}"
            wanted = "give one" if number is None else f"no fold {number}"
            raise UserError(f"split {self.name}: {wanted}; it has {there}, as {self.name}{'/1' * (len(folds) > 1)}")
        return folds[number - 1]


def split_sha256(keys: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 of the sorted "key<TAB>split" lines: two divisions with the same hash are the same.

    Args:
        keys: split -> keys.
    """
    lines = sorted(f"{key}\t{split}\n" for split, names in keys.items() for key in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def by_group(
    name: str,
    groups: Sequence[Sequence[str]],
    group_of: Callable[[Clip], str | LeftOut],
    *,
    source: str,
    shared: tuple[Shared, ...] = (),
    valid_is_test: bool = False,
) -> SplitRule:
    """Cross-validation over groups: fold i tests the i-th, validates on the next (after the last: the first) and trains
    on the others. Validation comes out of what papers train on.

    Args:
        name: "ravdess/hicmae_6fold".
        groups: what `group_of` gives, by fold.
        group_of: of a clip.
        source: see SplitRule.
        shared: see Fold.
        valid_is_test: validate on the test clips, as some papers' code does; every fold says so.
    """
    fold_of = {member: number for number, members in enumerate(groups) for member in members}

    def placer(tested: int) -> Place:
        validated = (tested + 1) % len(groups)

        def place(clip: Clip) -> tuple[str, ...] | LeftOut:
            group = group_of(clip)
            if isinstance(group, LeftOut):
                return group
            if group not in fold_of:
                return LeftOut(f"{group} is in no fold of {name}")
            number = fold_of[group]
            if number == tested:
                return ("valid", "test") if valid_is_test else ("test",)
            return ("valid",) if number == validated and not valid_is_test else ("train",)

        return place

    if valid_is_test:
        shared = (*shared, *(Shared(kind, ("valid", "test")) for kind in leaks.KINDS))
    note = "valid is test: settings were chosen on the test clips, so scores are too high" if valid_is_test else ""
    folds = tuple(
        Fold(name=f"{name}/{number}", place=placer(number - 1), shared=shared, note=note)
        for number in range(1, len(groups) + 1)
    )
    return SplitRule(name=name, folds=folds, source=source)


def leave_one_out(name: str, group_of: Callable[[Clip], str | LeftOut], *, source: str) -> SplitRule:
    """Cross-validation over the groups that the clips have, as `by_group`: as many folds as groups, by name, so that a
    part of a corpus is divided in full. The number of a fold means another group where other groups are there.

    Args:
        name: "ravdess/leave_one_actor_out".
        group_of: of a clip.
        source: see SplitRule.
    """

    def folds_of(clips: Sequence[Clip]) -> tuple[Fold, ...]:
        groups = sorted({group for clip in clips if isinstance(group := group_of(clip), str)})
        return by_group(name, [[group] for group in groups], group_of, source=source).folds

    return SplitRule(name=name, folds_of=folds_of, source=source)


def own_split(clip: Clip) -> tuple[str, ...] | LeftOut:
    """The corpus' own split, which a corpus gives as `source["split"]`.

    Raises:
        UserError: it is none of the three.
    """
    split = clip.source.get("split")
    if split is None:
        return LeftOut("in no split of the corpus")
    if split not in SPLITS:
        raise UserError(f"{clip.key}: its corpus says split {split!r}.{nearest(split, SPLITS)}")
    return (split,)
