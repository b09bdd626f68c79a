"""Counts what is written and prints the one table at the end."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shards.record import ClipRecord, Manifest


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
    labels: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.durations)

    @property
    def seconds(self) -> float:
        """Of all clips."""
        return math.fsum(self.durations)

    def add(self, record: ClipRecord) -> None:
        """Count a clip."""
        words = record.words or ()
        self.durations.append(record.duration_s)
        self.without_audio += not record.has_audio
        self.without_video += not record.has_video
        self.without_words += not words
        self.words_past_end += sum(word.start_s >= record.duration_s for word in words)
        self.speakers.add(record.speaker)
        self.vocabulary.update(word.text.lower() for word in words)
        for label, value in record.labels.items():
            self.labels.setdefault(label, Counter())[str(value)] += 1

    def update(self, other: "Tally") -> None:
        """Count the clips of another tally, which come after those of this one."""
        self.durations += other.durations
        self.without_audio += other.without_audio
        self.without_video += other.without_video
        self.without_words += other.without_words
        self.words_past_end += other.words_past_end
        self.speakers |= other.speakers
        self.vocabulary.update(other.vocabulary)
        for label, classes in other.labels.items():
            self.labels.setdefault(label, Counter()).update(classes)

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON types."""
        return {**vars(self), "speakers": sorted(self.speakers)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Tally":
        """Rebuild a tally from `to_json`'s dict."""
        labels = {label: Counter(classes) for label, classes in fields["labels"].items()}
        vocabulary, speakers = Counter(fields["vocabulary"]), set(fields["speakers"])
        return cls(**{**fields, "speakers": speakers, "vocabulary": vocabulary, "labels": labels})

    def counts(self) -> dict[str, int]:
        """The additive part, as the manifest keeps it."""
        return {
            "without_audio": self.without_audio,
            "without_video": self.without_video,
            "without_words": self.without_words,
            "words": self.vocabulary.total(),
            "words_past_end": self.words_past_end,
            "seconds": round(self.seconds),
        }


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


def print_summary(out: Path, manifest: Manifest, tallies: dict[str, Tally], *, vocabulary_size: int) -> None:
    """Print the account of all clips and a row for each split."""
    console = Console()
    console.print(f"{out}: {manifest.corpus}, {len(manifest.shards)} shards", soft_wrap=True, markup=False)
    console.print(splits_table(tallies))
    filtered, quarantined = sum(manifest.filtered.values()), len(manifest.quarantined)
    console.print(
        f"found {manifest.found} = written {manifest.written} + filtered {filtered} + quarantined {quarantined}; "
        f"vocabulary of {vocabulary_size} words"
    )
    for reason, count in manifest.filtered.items():
        console.print(f"  filtered: {count} with {reason}", markup=False)
    for key, reason in list(manifest.quarantined.items())[:5]:
        console.print(f"  quarantined: {key}: {reason}", markup=False)
    if quarantined > 5:
        console.print(f"  quarantined: {quarantined - 5} more, all in manifest.json")
    if past := manifest.counts["words_past_end"]:
        console.print(f"  warning: {past} words start after the end of their clip; do these transcripts belong to it?")
