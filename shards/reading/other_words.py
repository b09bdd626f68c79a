"""Other transcripts of the same clips, as a recogniser's beside the given ones: their words, and how far they differ.

They are what `python -m shards transcribe` or another recogniser has written, or another shard set of the same clips.
Of that the words alone are read: sound, picture and labels stay those of the first, so that nothing else can differ,
and the other set needs no media. No torch.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shards.reading.index import ShardSet
from shards.record import ClipRecord, RawClip, Word
from shards.transcripts import recognised
from shards.transcripts.attach import attach
from shards.words.words import Vocabulary, spoken_form
from triptych.config import UserError


@dataclass(frozen=True)
class OtherWords:
    """What the other transcripts say of some clips, in place of their own words; goes to loader processes."""

    words: Mapping[str, tuple[Word, ...] | None]
    """Key -> words; None where no transcript knows the clip."""

    def __call__(self, words: Sequence[Word], key: str) -> tuple[Word, ...]:
        """The words of a clip, whatever its own are."""
        return self.words[key] or ()

    @cached_property
    def sha256(self) -> str:
        """Of all that they say."""
        digest = hashlib.sha256()
        for key, words in sorted(self.words.items()):
            digest.update(json.dumps([key, words and [asdict(word) for word in words]]).encode())
        return digest.hexdigest()


def read_words(shard_set: ShardSet, keys: Collection[str]) -> OtherWords:
    """The words of some clips of a shard set.

    Raises:
        UserError: it has not all of these clips; DamagedShard where a record is.
    """
    return OtherWords({record.key: record.words for record in _records(shard_set, keys)})


def read_other_words(
    shard_set: ShardSet, other: ShardSet, keys: Collection[str], labels: Collection[str], *, as_written: bool
) -> OtherWords:
    """The words of some clips in another shard set, which is proven to be of the same clips.

    Args:
        shard_set: that has the clips.
        other: that has them with other words.
        keys: of the clips.
        labels: names of those that must be the same in both.
        as_written: whether the splits must be the same, too.

    Raises:
        UserError: `other` lacks some of the clips, or has them with another label or in another split: tells how many
            and the first. DamagedShard where a record is.
    """
    own = {record.key: record for record in _records(shard_set, keys)}
    words, differing = {}, []
    for record in _records(other, keys):
        words[record.key] = record.words
        differing += _differing(own[record.key], record, labels, as_written)
    if differing:
        raise UserError(
            f"{other.location}: {len(differing)} of {len(keys)} clips are not as in {shard_set.location}: "
            f"{differing[0]}. Write it like that one, with other words alone"
        )
    return OtherWords(words)


def is_transcript(location: str) -> bool:
    """Whether files of transcripts are meant and not a shard set, of a place where there is something."""
    path = Path(location)
    return path.is_file() or (path.is_dir() and not any((path / name).exists() for name in ("manifest.json", "work")))


def read_transcript(shard_set: ShardSet, location: str, keys: Collection[str]) -> OtherWords:
    """The words of some clips of a shard set in files of transcripts, which name all clips by their keys.

    Args:
        shard_set: that has the clips.
        location: a file or folder that `shards.transcripts.attach` reads.
        keys: of the clips.

    Raises:
        UserError: as of `attach`; or the files do not know some of the clips, but for those that `python -m shards
            transcribe` says it could not hear.
    """
    clips = [
        RawClip(key=key, speaker="", duration_s=1.0) for name in shard_set.splits for key in shard_set.split(name).keys
    ]
    said = attach(clips, [location], Path(shard_set.location), allow_unknown=True)
    if bad := [clip for clip in said if clip.key in keys and clip.unusable is not None]:
        raise UserError(f"{location}: {len(bad)} of {len(keys)} clips have none that can be read. {bad[0].unusable}")
    words = {clip.key: clip.words for clip in said if clip.key in keys}
    is_ours = Path(location).is_dir() and recognised.settings_of_chunks(Path(location))
    listed = recognised.read(Path(location)).clips if is_ours else {}
    if missing := sorted(key for key, said in words.items() if said is None and key not in listed):
        raise UserError(
            f"{location}: lacks {len(missing)} of {len(words)} clips, first {missing[0]!r}; where nothing was heard, "
            f"a CTM has one line of the clip with {recognised.SILENCE}"
        )
    return OtherWords(words)


def _differing(own: ClipRecord, other: ClipRecord, labels: Collection[str], as_written: bool) -> list[str]:
    """How two records of a clip contradict each other; empty, or the first thing."""
    for name in labels:
        here, there = (one.labels.get(name, one.source.get(name)) for one in (own, other))
        if here != there:  # without the labels themselves, which nobody is to see before the runs are scored
            return [f"{own.key!r} has another label {name}"]
    if as_written and own.split != other.split:
        return [f"{own.key!r} is in {other.split} and not in {own.split}"]
    return []


def _records(shard_set: ShardSet, keys: Collection[str]) -> Iterator[ClipRecord]:
    """Of all `keys`, in the order of the shards."""
    missing = set(keys)
    places = []
    for split in map(shard_set.split, shard_set.splits):
        places += [(split, sample_id) for sample_id, key in enumerate(split.keys) if key in missing]
        missing.difference_update(split.keys)
    if missing:
        raise UserError(f"{shard_set.location}: lacks {len(missing)} of {len(keys)} clips, first {min(missing)!r}")
    for split, sample_id in places:
        yield split.record(sample_id)


def spoken(words: Sequence[Word] | None) -> list[str]:
    """Words as the word error rate compares them, see `spoken_form`."""
    return [form for word in words or () if (form := spoken_form(word.text))]


def num_word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, deletions and insertions of the alignment with the fewest of them (Levenshtein's distance).

    Args:
        reference: the words that were said.
        heard: those that were recognised.
    """
    place = np.arange(len(heard) + 1)
    heard_n = np.array(heard, dtype=object)
    errors = place  # between no word and the first so many of `heard`
    for word in reference:
        following = errors + 1  # the word is deleted
        following[1:] = np.minimum(following[1:], errors[:-1] + (heard_n != word))
        errors = np.minimum.accumulate(following - place) + place  # words are inserted after any place
    return int(errors[-1])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How other words differ from the reference, over some clips."""

    errors: Mapping[str, int]
    """Key -> word errors of the clip."""
    num_words: int
    """Of the reference."""
    num_silent: int
    """Clips with words in the reference and none here."""

    @property
    def num_errors(self) -> int:
        """Of all clips."""
        return sum(self.errors.values())

    @property
    def rate(self) -> float | None:
        """Word error rate, 0.15 of 15 %; None where the reference has no words."""
        return self.num_errors / self.num_words if self.num_words else None


def compare(reference: OtherWords, heard: OtherWords, keys: Collection[str]) -> Difference:
    """Word errors of `heard`, see `spoken`, over clips of both; a key that comes twice counts once."""
    errors, num_words, num_silent = {}, 0, 0
    for key in dict.fromkeys(keys):
        said, other = spoken(reference.words[key]), spoken(heard.words[key])
        errors[key] = num_word_errors(said, other)
        num_words += len(said)
        num_silent += bool(said) and not other
    return Difference(errors=errors, num_words=num_words, num_silent=num_silent)


def known_share(words: OtherWords, vocabulary: Vocabulary, keys: Collection[str]) -> float | None:
    """Share of the running words of some clips that a vocabulary has; None where there are no words."""
    known = [vocabulary.id(word.text) > 0 for key in dict.fromkeys(keys) for word in words.words[key] or ()]
    return sum(known) / len(known) if known else None
