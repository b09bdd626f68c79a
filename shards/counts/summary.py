"""Counts what is written and prints the one table at the end."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shards.counts.label_counts import LabelCounts
from shards.record import ClipRecord, Manifest
from triptych.modalities import FeatureSpec


@dataclass
class Tally:
    """Running counts of one split."""

    durations: list[float] = field(default_factory=list)
    """Seconds of each clip, in the order of adding."""
    without_audio: int = 0
    without_video: int = 0
    without_words: int = 0
    words_past_end: int = 0
    """Words that start after their clip's end: a transcript of other recordings, or times in another unit."""
    speakers: set[str] = field(default_factory=set)
    vocabulary: Counter[str] = field(default_factory=Counter)
    labels: LabelCounts = field(default_factory=LabelCounts)
    lacking: Counter[str] = field(default_factory=Counter)
    """Feature that a clip may lack -> clips that have its medium and lack it."""

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.durations)

    @property
    def seconds(self) -> float:
        """Of all clips."""
        return math.fsum(self.durations)

    def add(self, record: ClipRecord, lacking: Iterable[str] = ()) -> None:
        """Count a clip that lacks some features.

        Raises:
            UserError: see `LabelCounts.add`.
        """
        words = record.words or ()
        self.durations.append(record.duration_s)
        self.without_audio += not record.has_audio
        self.without_video += not record.has_video
        self.without_words += not words
        self.words_past_end += sum(word.start_s >= record.duration_s for word in words)
        self.speakers.add(record.speaker)
        self.vocabulary.update(word.text.lower() for word in words)
        self.labels.add(record.key, record.labels)
        self.lacking.update(lacking)

    def update(self, other: "Tally") -> None:
        """Count the clips of another tally, which come after those of this one."""
        self.durations += other.durations
        self.without_audio += other.without_audio
        self.without_video += other.without_video
        self.without_words += other.without_words
        self.words_past_end += other.words_past_end
        self.speakers |= other.speakers
        self.vocabulary.update(other.vocabulary)
        self.labels.update(other.labels)
        self.lacking.update(other.lacking)

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON types."""
        return {**vars(self), "speakers": sorted(self.speakers), "labels": self.labels.to_json()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Tally":
        """Rebuild a tally from `to_json`'s dict."""
        labels = LabelCounts.from_json(fields["labels"])
        counters = {name: Counter(fields[name]) for name in ("vocabulary", "lacking")}
        return cls(**{**fields, **counters, "speakers": set(fields["speakers"]), "labels": labels})

    def counts(self) -> dict[str, int]:
        """The additive part, as the manifest keeps it."""
        return {
            "without_audio": self.without_audio,
            "without_video": self.without_video,
            "without_words": self.without_words,
            "words": self.vocabulary.total(),
            "words_past_end": self.words_past_end,
            "seconds": round(self.seconds),
            **without(self.lacking),
        }


def all_labels(tallies: Iterable[Tally]) -> LabelCounts:
    """Of all splits together.

    Raises:
        UserError: see `LabelCounts.add`.
    """
    labels = LabelCounts()
    for tally in tallies:
        labels.update(tally.labels)
    return labels


def lacking(record: ClipRecord, extensions: Collection[str], specs: Iterable[FeatureSpec]) -> list[str]:
    """The features that the clip lacks though it has their medium, as no face in its picture."""
    media = {"audio": record.has_audio, "video": record.has_video}
    return [spec.name for spec in specs if media.get(spec.modality) and f"{spec.name}.npy" not in extensions]


def without(lacking: Mapping[str, int]) -> dict[str, int]:
    """The counts of lacking features under the names that the manifest gives them."""
    return {f"without_{name}": number for name, number in lacking.items()}


def splits_table(tallies: Mapping[str, Tally]) -> Table:
    """A row for each split."""
    table = Table()
    for column in ("split", "clips", "speakers", "hours", "words", "no sound", "no picture", "no words"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, tally in tallies.items():
        counts = tally.counts()
        table.add_row(
            split,
            str(tally.clips),
            str(len(tally.speakers)),
            f"{tally.seconds / 3600:.2f}",
            *(str(counts[name]) for name in ("words", "without_audio", "without_video", "without_words")),
        )
    return table


def print_summary(
    out: Path,
    manifest: Manifest,
    tallies: dict[str, Tally],
    *,
    vocabulary_size: int,
    encoded_anew: Mapping[str, int],
) -> None:
    """Print the account of all clips and a row for each split."""
    console = Console()
    console.print(f"{out}: {manifest.corpus}, {len(manifest.shards)} shards", soft_wrap=True, markup=False)
    console.print(splits_table(tallies))
    filtered, quarantined = sum(manifest.filtered.values()), len(manifest.quarantined)
    console.print(
        f"found {manifest.found} = written {manifest.written} + filtered {filtered} + quarantined {quarantined}; "
        f"vocabulary of {vocabulary_size} words"
    )
    for ending, count in encoded_anew.items():
        console.print(f"  encoded anew, for no reader looks for them: {count} {ending}", markup=False)
    for reason, count in manifest.filtered.items():
        console.print(f"  filtered: {count} with {reason}", markup=False)
    for key, reason in list(manifest.quarantined.items())[:5]:
        console.print(f"  quarantined: {key}: {reason}", markup=False)
    if quarantined > 5:
        console.print(f"  quarantined: {quarantined - 5} more, all in manifest.json")
    for feature in manifest.features:
        if number := manifest.counts.get(f"without_{feature['name']}"):
            name = feature["name"]
            console.print(f"  {number} clips have the medium of {name}, but nothing in it to make {name} of")
    if past := manifest.counts["words_past_end"]:
        console.print(f"  warning: {past} words start after the end of their clip; do these transcripts belong to it?")
