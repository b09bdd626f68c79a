"""Which clips train, validate and test: the shard set's own split, or every fold of a rule of the protocol. No torch.

A rule divides all clips of the set, in whatever split they were written, so that one shard set serves cross-validation.
It is shown key, speaker and source of a clip, and never a label.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from shards.divisions.split import declared
from shards.reading.index import ShardSet
from shards.record import SPLITS
from triptych.config import UserError
from triptych.protocols import leaks
from triptych.protocols.leaks import Leak
from triptych.protocols.protocol import Protocol
from triptych.protocols.splits import Assignment, Fold, LeftOut, SplitRule, split_sha256
from triptych.text_files import read_text


@dataclass(frozen=True, kw_only=True)
class Division:
    """One partition of clips into train, valid and test."""

    name: str
    """"ravdess/leave_one_actor_out/3", or "by speaker" of the shard set's own."""
    keys: Mapping[str, tuple[str, ...]]
    """Split -> keys, sorted; a clip is in two splits where the rule's note says so."""
    facts: Mapping[str, str]
    """Title -> what a report must say of it."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a rule sees of a clip."""

    key: str
    speaker: str
    source: Mapping[str, str]


def divisions(
    shard_set: ShardSet, protocol: Protocol, split: str, listed: Collection[str] | None = None
) -> list[Division]:
    """The division of a shard set, or the folds of a rule.

    Reads the record of every clip in the order of the shards: 44 us and 0.8 kB each.

    Args:
        shard_set: whose clips are divided.
        protocol: that has the rule.
        split: "" is the shard set's own split, "RULE" all folds of that rule, "RULE/3" one. Folds that test none of
            these clips are left out, and the facts say so.
        listed: keys, for a rule that takes its validation clips from a list of the user.

    Raises:
        UserError: no such rule or fold, a clip that it cannot read, a leak that is not declared, no fold that tests a
            clip, or one that does and has none to train or validate on; DamagedShard where a record is.
    """
    name, _, number = split.partition("/")
    if number and not number.isdecimal():
        raise UserError(f"split: the fold {number!r} of {name} is no number; give {name} for all, or {name}/1")
    if listed is not None and not split:
        raise UserError("split: the shard set's own takes no list of clips; name the rule that it belongs to")
    rule = protocol.split(name) if split else None
    written = _shown(shard_set)
    if rule is None:
        return [_own(shard_set, written)]
    clips = [clip for found in written.values() for clip in found]
    folds = rule.all_folds(clips, listed)
    asked = (rule.pick(folds, int(number)),) if number and folds else folds
    whole = _filled(rule, asked, clips, protocol)
    left_out = [fold.name for fold in asked if fold not in whole]
    facts = {"split is from": rule.source}
    if left_out:
        facts["folds left out"] = (
            f"{len(left_out)} of {len(asked)}, which test none of these clips: {', '.join(left_out)}"
        )
    return [_of_fold(fold.assign(clips), rule, clips, facts) for fold in whole]


def rule_name(protocol: Protocol, split: str) -> str:
    """Name of a rule with the number of its fold, as `RULE/3`; empty of a set divided as it was written.

    Raises:
        UserError: the protocol has no such rule.
    """
    name, _, number = split.partition("/")
    return "/".join(filter(None, (protocol.split(name).name if name else "", number)))


def read_list(file: str) -> list[str] | None:
    """Keys of a file, one a line; None where no file is given.

    Raises:
        UserError: it cannot be read.
    """
    if not file:
        return None
    try:
        return read_text(Path(file)).split()
    except OSError as error:
        raise UserError(f"listed: {file}: cannot be read ({error})") from None


def cross_validation_sha256(divided: Sequence[Division]) -> str:
    """SHA-256 over the hashes of all divisions in their order: two cross-validations with the same one are the same."""
    return hashlib.sha256("".join(split_sha256(one.keys) for one in divided).encode()).hexdigest()


def common_facts(divided: Sequence[Division]) -> dict[str, str]:
    """What all divisions say alike; of several, one hash over all in place of a split's name."""
    first, *others = divided
    facts = {name: told for name, told in first.facts.items() if all(one.facts.get(name) == told for one in others)}
    if others:
        facts.pop("split", None)
        facts["cross-validation SHA-256"] = cross_validation_sha256(divided)
    return facts


def _shown(shard_set: ShardSet) -> dict[str, list[_Shown]]:
    """Split -> its clips as a rule may see them."""
    clips: dict[str, list[_Shown]] = {}
    quiet = not Console().is_terminal
    for name in shard_set.splits:
        split = shard_set.split(name)
        records = map(split.record, range(len(split)))
        clips[name] = [
            _Shown(record.key, record.speaker, record.source)
            for record in track(records, f"who is in {name}", total=len(split), disable=quiet)
        ]
    return clips


def _own(shard_set: ShardSet, written: Mapping[str, Sequence[_Shown]]) -> Division:
    said = shard_set.manifest.split
    by = said.get("by", "a rule that is not known")
    if missing := [name for name in SPLITS if name not in written]:
        raise UserError(
            f"{shard_set.location}: no clips in {', '.join(missing)}; name a rule of the protocol that divides them "
            "(split=...), or write the shards with all three"
        )
    clips = [clip for found in written.values() for clip in found]
    keys = {name: tuple(sorted(clip.key for clip in written[name])) for name in SPLITS}
    shared = leaks.check(f"by {by} of {shard_set.location}", keys, clips, declared(by, said.get("allow", ())))
    facts = {"split": f"the shard set's own, by {by}"}
    drawn = [f"{name} {said[name]}" for name in (*SPLITS, "seed") if name in said]
    if drawn and by != "source" and not by.startswith("protocol:"):  # of those, shares and seed say nothing
        facts["split is from"] = ", ".join(drawn)
    facts |= _facts(keys, clips, shared, said.get("note", ""))
    if said.get("sha256", facts["split SHA-256"]) != facts["split SHA-256"]:
        facts["split SHA-256 as divided"] = f"{said['sha256']}, before clips that could not be read were left out"
    return Division(name=f"by {by}", keys=keys, facts=facts)


def _filled(rule: SplitRule, folds: Sequence[Fold], clips: Sequence[_Shown], protocol: Protocol) -> list[Fold]:
    """The folds that test some of the clips.

    Raises:
        UserError: there are none, or one has none to train or to validate on.
    """
    sizes = {fold.name: _sizes(fold, clips) for fold in folds}
    tested = [fold for fold in folds if sizes[fold.name]["test"]]
    if not tested:
        reasons = _in_words(_reasons(folds[0], clips)) if folds else "no clip is in any"
        raise UserError(f"split {rule.name}: no fold tests any of the {len(clips)} clips here: {reasons}")
    lacking = {
        fold.name: empty for fold in tested if (empty := [name for name in SPLITS if not sizes[fold.name][name]])
    }
    if lacking:
        first, empty = next(iter(lacking.items()))
        whole = [fold.name for fold in tested if fold.name not in lacking]
        choices = [f"{', '.join(whole)} alone"] if whole else []
        choices += [other.name for other in protocol.splits if other.folds_of is not None]
        raise UserError(
            f"split {first}: tests {sizes[first]['test']} of the {len(clips)} clips here and has none in "
            f"{', '.join(empty)}: a part of the corpus does not fill the rule"
            + (f"; what it does fill: {'; '.join(choices)}" if choices else "")
        )
    return tested


def _sizes(fold: Fold, clips: Sequence[_Shown]) -> Counter[str]:
    """Split -> clips."""
    placed = map(fold.place, clips)
    return Counter(name for place in placed if not isinstance(place, LeftOut) for name in place)


def _reasons(fold: Fold, clips: Sequence[_Shown]) -> Counter[str]:
    """Reason -> clips that the fold leaves out, or where it has them."""
    placed = map(fold.place, clips)
    return Counter(place.reason if isinstance(place, LeftOut) else f"in {' and '.join(place)}" for place in placed)


def _of_fold(assigned: Assignment, rule: SplitRule, clips: Sequence[_Shown], facts: Mapping[str, str]) -> Division:
    told = {"split": assigned.rule, **facts, **_facts(assigned.keys, clips, assigned.leaks, assigned.note)}
    if rule.published:
        told["published"] = f"{_by_split(rule.published)}, counted as its source says"
    if assigned.left_out:
        told["left out by the split"] = _in_words(assigned.reasons)
    return Division(name=assigned.rule, keys=assigned.keys, facts=told)


def _facts(
    keys: Mapping[str, Sequence[str]], clips: Sequence[_Shown], shared: Sequence[Leak], note: str
) -> dict[str, str]:
    speaker_of = {clip.key: clip.speaker for clip in clips}
    speakers = {name: len({speaker_of[key] for key in found}) for name, found in keys.items()}
    numbers = {name: len(found) for name, found in keys.items()}
    facts = {"clips": f"{_by_split(numbers)}; {_by_split(speakers)} speakers", "split SHA-256": split_sha256(keys)}
    if shared:
        facts["shared by design"] = "; ".join(map(str, shared))
    if note:
        facts["split note"] = note
    return facts


def _by_split(numbers: Mapping[str, int]) -> str:
    return " / ".join(f"{numbers.get(name, 0):,}" for name in SPLITS)


def _in_words(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{number:,} {reason}" for reason, number in reasons.items())
