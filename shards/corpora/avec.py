"""SEWA as AVEC 2017 (Ringeval et al. 2017) and AVEC 2019 (Ringeval et al. 2019): arousal, valence, liking at 10 Hz.

    labels/Train_01.csv              name;time;arousal;valence;liking every 0.1 s; AVEC 2019 has a header and
                                     quotes around names. Labels of the test recordings are not public
    turns/Train_01.csv               start;end of what the recorded person says
    transcriptions/Train_01.csv      start;end;text
    audio/Train_01.wav               video/Train_01.avi or .mp4

AVEC 2019 names its files Train_DE_01: German, Hungarian (HU) and, for the test alone, Chinese (CN). The two share
recordings, but not splits and labels: they are two corpora, and scores over them do not compare.

A recording is cut into windows of `window_s`, each a clip, the last one shorter, with its words and turns.
"""

import logging
import re
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from shards.corpora.avec_tables import HZ, Frames, Span, read_labels, read_spans
from shards.files import find_files
from shards.record import Cut, RawClip, Word
from shards.transcripts.spread import spread
from triptych.config import UserError

logger = logging.getLogger(__name__)

SPLITS = {"Train": "train", "Devel": "valid", "Test": "test"}
PUBLISHED_2017 = {("DE", "Train"): 34, ("DE", "Devel"): 14, ("DE", "Test"): 16}
"""Recordings (Ringeval et al. 2017, table of partitions)."""
PUBLISHED_2019 = {
    **PUBLISHED_2017,
    ("HU", "Train"): 34,
    ("HU", "Devel"): 14,
    ("HU", "Test"): 18,
    ("CN", "Test"): 70,
}
"""Recordings, as public loaders of the challenge's files expect them; the paper's table was not at hand."""

_VIDEO = (".avi", ".mp4")


@dataclass(frozen=True, kw_only=True)
class _Avec:
    root: str
    """Folder with labels/, and turns/, transcriptions/, audio/ and video/ where there are any."""
    window_s: float = 10.0
    """Length of a clip, in steps of 0.1 s."""
    media: bool = True
    """false reads labels, turns and transcriptions alone."""

    name: ClassVar[str]
    expected: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    published: ClassVar[dict[tuple[str, str], int]]

    def __post_init__(self) -> None:
        steps = self.window_s * HZ
        if steps < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"window_s: {self.window_s}; expected 0.1 or more, in steps of 0.1 s")

    def clips(self) -> Iterator[RawClip]:
        """All windows by recording and time; labels arousal, valence and liking, where the recording has any, and
        speaking (1 in the person's turns, else 0), where there is a file of turns: series at 10 Hz.

        `source` has split (train, valid or test), video (the recording, also the speaker), window, language and, with
        a transcript, word_times. A recording without a media file, or without labels and of unknown length, is
        `unusable`; both, and the counts beside the published ones, are logged.

        Raises:
            UserError: nothing in this layout, or a file that does not follow it.
        """
        found = {name: self._recording(name, files) for name, files in self._files().items()}
        for recording in found.values():
            yield from self._windows(recording)
        self._tell(list(found.values()))

    def _files(self) -> dict[str, dict[str, Path]]:
        """Recording -> kind -> file."""
        root = Path(self.root)
        kinds = {"labels": (".csv",), "turns": (".csv",), "transcripts": (".csv",), "audio": (".wav",), "video": _VIDEO}
        files: dict[str, dict[str, Path]] = {}
        for kind, suffixes in kinds.items():
            for path in sorted(find_files(folder, suffixes)) if (folder := _folder(root, kind)) else ():
                if self.pattern.fullmatch(path.stem) is None:
                    raise UserError(f"{path}: no recording of {self.name} is named so; {self.expected}")
                entry = files.setdefault(path.stem, {})
                if kind in entry:
                    raise UserError(f"{path}: the recording is also at {entry[kind]}; keep one of them")
                entry[kind] = path
        if not files:
            raise UserError(f"{root}: no recording; looked for labels/, audio/ and video/ with {self.expected}")
        return dict(sorted(files.items()))

    def _recording(self, name: str, files: dict[str, Path]) -> "_Recording":
        match = self.pattern.fullmatch(name)
        assert match is not None
        turns = read_spans(files["turns"], text=False) if "turns" in files else None
        said = read_spans(files["transcripts"], text=True) if "transcripts" in files else None
        frames = read_labels(files["labels"]) if "labels" in files else []
        labelled = bool(frames)
        if not frames:
            frames = _unlabelled(files.get("audio"), [*(turns or ()), *(said or ())])
        return _Recording(
            name=name,
            part=match["part"],
            language=match.groupdict().get("language") or "DE",
            audio=files.get("audio"),
            video=files.get("video"),
            turns=turns,
            words=None if said is None else [word for one in said for word in spread(one.text, one.start_s, one.end_s)],
            labelled=labelled,
            frames=frames,
        )

    def _windows(self, recording: "_Recording") -> Iterator[RawClip]:
        if not recording.frames:
            unknown = self._clip(recording, Frames(start_s=0.0, num_steps=1, values={}), 0)
            yield replace(unknown, unusable=f"{recording.name}: its length is unknown")
        size, number = round(self.window_s * HZ), 0
        for frames in recording.frames:
            for first in range(0, frames.num_steps, size):
                yield self._clip(recording, frames.part(first, size), number)
                number += 1

    def _clip(self, recording: "_Recording", frames: Frames, number: int) -> RawClip:
        source = {
            "split": SPLITS[recording.part],
            "video": recording.name,
            "window": f"{number:04d}",
            "language": recording.language,
        }
        labels = dict(frames.values)
        if recording.turns is not None:
            labels["speaking"] = [
                float(any(turn.holds(time_s) for turn in recording.turns)) for time_s in frames.times_s
            ]
        cut = Cut(start_s=frames.start_s, end_s=frames.end_s)
        unusable = (
            None if recording.has_media or not self.media else f"{recording.name}: neither audio nor video is there"
        )
        return RawClip(
            key=f"{recording.name}/{number:04d}",
            speaker=recording.name,
            video=recording.video if self.media else None,
            audio=recording.audio if self.media else None,
            cut=cut if self.media and recording.has_media else None,
            duration_s=None if self.media else frames.duration_s,
            unusable=unusable,
            words=None if recording.words is None else _within(recording.words, frames),
            source=source if recording.words is None else source | {"word_times": "spread"},
            labels={name: {"rate_hz": HZ, "values": values} for name, values in labels.items()},
        )

    def _tell(self, recordings: list["_Recording"]) -> None:
        """Log what was found beside what is published, and what is missing."""
        found = dict(Counter((recording.language, recording.part) for recording in recordings))
        for group in sorted(found | self.published):
            there, published = found.get(group, 0), self.published.get(group, 0)
            level = logging.INFO if there == published else logging.WARNING
            logger.log(level, "%s %s %s: %d recordings (published: %d)", self.name, *group, there, published)
        told = {
            "no labels": [one.name for one in recordings if not one.labelled],
            "no transcript": [one.name for one in recordings if one.words is None],
            "no turns": [one.name for one in recordings if one.turns is None],
            "no file of sound": [one.name for one in recordings if self.media and one.audio is None],
            "no file of the picture": [one.name for one in recordings if self.media and one.video is None],
            "gaps in the labels' times, and no window over them": [
                one.name for one in recordings if len(one.frames) > 1
            ],
            "words outside of the labelled time, which are left out": [
                one.name for one in recordings if one.loose_words
            ],
            "neither labels nor a known length": [one.name for one in recordings if not one.frames],
        }
        for what, names in told.items():
            if names:
                logger.warning("%s: %d recordings have %s: %s", self.name, len(names), what, ", ".join(names))


@dataclass(frozen=True, kw_only=True)
class Avec2017Config(_Avec):
    """SEWA's German recordings in the partitions of AVEC 2017."""

    name: ClassVar[str] = "avec2017"
    expected: ClassVar[str] = (
        "files like Train_01.csv; those like Train_DE_01.csv are of AVEC 2019: corpus.avec2019.root"
    )
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"(?P<part>Train|Devel|Test)_\d\d")
    published: ClassVar[dict[tuple[str, str], int]] = PUBLISHED_2017


@dataclass(frozen=True, kw_only=True)
class Avec2019Config(_Avec):
    """The recordings of AVEC 2019's cross-cultural emotion challenge; `source["language"]` tells them apart."""

    name: ClassVar[str] = "avec2019"
    expected: ClassVar[str] = (
        "files like Train_DE_01.csv; those like Train_01.csv are of AVEC 2017: corpus.avec2017.root"
    )
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"(?P<part>Train|Devel|Test)_(?P<language>[A-Z]{2})_\d\d")
    published: ClassVar[dict[tuple[str, str], int]] = PUBLISHED_2019


@dataclass(frozen=True, kw_only=True)
class _Recording:
    name: str
    part: str
    language: str
    audio: Path | None
    video: Path | None
    turns: list[Span] | None
    words: list[Word] | None
    labelled: bool
    frames: list[Frames]
    """Stretches without a gap; of a recording without labels one, as long as it is, or none where that is not known."""

    @property
    def has_media(self) -> bool:
        return self.audio is not None or self.video is not None

    @property
    def loose_words(self) -> int:
        """Words that start in no stretch."""
        return sum(not any(one.start_s <= word.start_s < one.end_s for one in self.frames) for word in self.words or ())


def _folder(root: Path, kind: str) -> Path | None:
    """The folder of a kind; that of the transcripts is called transcriptions, transcripts, ..."""
    if kind != "transcripts":
        return root / kind if (root / kind).is_dir() else None
    return next((path for path in sorted(root.glob("transcript*")) if path.is_dir()), None)


def _unlabelled(audio: Path | None, spans: list[Span]) -> list[Frames]:
    """The time of a recording without labels: as long as its wav says, else to the end of the last turn or sentence."""
    length_s = max((span.end_s for span in spans), default=0.0)
    if audio is not None:
        with suppress(OSError, EOFError, wave.Error), wave.open(str(audio)) as header:
            length_s = header.getnframes() / header.getframerate()
    num_steps = int(length_s * HZ + 1e-6)
    return [Frames(start_s=0.0, num_steps=num_steps, values={})] if num_steps else []


def _within(words: list[Word], frames: Frames) -> tuple[Word, ...]:
    """The words that start in the window, from its start on; one that goes on after its end is cut there."""
    return tuple(
        Word(
            word.text,
            round(word.start_s - frames.start_s, 6),
            round(min(word.end_s - frames.start_s, frames.duration_s), 6),
        )
        for word in words
        if frames.start_s <= word.start_s < frames.end_s
    )
