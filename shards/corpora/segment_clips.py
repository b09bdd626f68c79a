"""Segments, their words and their recordings -> clips: what CMU-MOSEI and CMU-MOSI share."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.corpora import converted, folds
from shards.corpora.beside import given_or_below
from shards.corpora.segment_words import ALIGNED, SPREAD, Line, Spoken, spread_lines, timed
from shards.corpora.segments import INSTANT_S, Column, Published, Segment, read, tell_counts
from shards.record import Cut, RawClip
from shards.transcripts.as_written import as_written
from triptych.config import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the raw archive has what, relative to its folder Raw; and what its label file is known to hold."""

    columns: tuple[Column, ...]
    published: Published
    videos: str
    sounds: str
    transcripts: str
    lines: Callable[[Path], Callable[[str], list[Line]]]
    """Folder Raw -> video -> lines of its transcript."""


@dataclass(frozen=True, kw_only=True)
class SegmentsConfig:
    """What the two corpora are configured by."""

    root: str
    """Folder with the computational sequences and the raw archive (its folder Raw, or what is in it)."""
    words: str | None = None
    """Computational sequence of timed words, as given or relative to the root. Without it, the words of the raw
    archive's transcripts are spread over each segment; where these are missing too, clips have no words."""
    folds: str | None = None
    """The SDK's cmu_..._std_folds.py, or JSON with the video ids of train, valid and test; as given or relative to the
    root. It becomes `source.split`; without it, clips have none."""
    media: bool = True
    """Cut the clips from the recordings; false gives labels and words only."""
    converted: str | None = None
    """Folder that `python -m shards convert_pickle` made of MMSA's or MulT's features, as given or relative to the
    root: clips, labels, text, splits and arrays are taken from there, and nothing else is read."""


def segment_clips(config: SegmentsConfig, labels: str, layout: Layout) -> Iterator[RawClip]:
    """All segments as clips; `source` has video, start_s, end_s, where known split, and word_times.

    Who speaks is not known: the speaker is the video.

    Raises:
        UserError: labels, words or folds that cannot be read, or no recording at all.
    """
    root = Path(config.root)
    if config.converted is not None:
        yield from converted.clips(given_or_below(config.converted, root), layout.columns)
        return
    raw = root / "Raw" if (root / "Raw").is_dir() else root
    segments = read(_file(labels, root, "labels"), layout.columns)
    splits = folds.read(_file(config.folds, root, "folds")) if config.folds is not None else {}
    tell_counts(segments, splits, layout.published)
    spoken, word_times = _words(config, root, raw, segments, layout)
    recordings = _Recordings(raw / layout.videos, raw / layout.sounds) if config.media else None
    if recordings is not None:
        recordings.look(segments)
    for segment in segments:
        source = {"video": segment.video, "start_s": f"{segment.start_s:.3f}", "end_s": f"{segment.end_s:.3f}"}
        if segment.video in splits:
            source["split"] = splits[segment.video]
        words = spoken.get(segment.key)
        if words is not None:
            source["word_times"] = word_times
        clip = RawClip(
            key=segment.key,
            speaker=segment.video,
            duration_s=max(segment.duration_s, INSTANT_S),
            words=words,
            source=source,
            labels=dict(segment.labels),
            unusable=segment.unusable,
        )
        yield clip if recordings is None or clip.unusable else recordings.cut(clip, segment)


def _file(name: str, root: Path, field: str) -> Path:
    path = Path(name) if Path(name).is_file() else root / name
    if not path.is_file():
        raise UserError(f"{field}: {path}: there is no such file; give its path, or its name below {root}")
    return path


def _words(
    config: SegmentsConfig, root: Path, raw: Path, segments: Sequence[Segment], layout: Layout
) -> tuple[Spoken, str]:
    folder = raw / layout.transcripts
    if config.words is None:
        if folder.is_dir():
            return spread_lines(folder, segments, layout.lines(raw)), SPREAD
        logger.warning("%s: no transcripts, and words is not set: the clips have no words", folder)
        return {}, SPREAD
    aligned, written = timed(_file(config.words, root, "words"), segments), Spoken()
    if folder.is_dir():
        try:
            written = spread_lines(folder, segments, layout.lines(raw))
        except UserError as error:  # of their spelling alone
            logger.warning("%s; the words of %s stay as they are spelled there", error, config.words)
    spelled = {key: [word.text for word in words] for key, words in written.items()}
    return {key: as_written(words, spelled.get(key, ())) for key, words in aligned.items()}, ALIGNED


class _Recordings:
    """The files that clips are cut from."""

    def __init__(self, videos: Path, sounds: Path) -> None:
        self.videos, self.sounds = videos, sounds
        self._found: dict[str, tuple[Path | None, Path | None]] = {}

    def look(self, segments: Sequence[Segment]) -> None:
        """Find each video's files, and tell what is missing.

        Raises:
            UserError: there is none at all.
        """
        count = Counter(segment.video for segment in segments)
        for video in count:
            mp4, wav = self.videos / f"{video}.mp4", self.sounds / f"{video}.wav"
            self._found[video] = (mp4 if mp4.is_file() else None, wav if wav.is_file() else None)
        _tell_missing(count, {video: mp4 or wav for video, (mp4, wav) in self._found.items()}, "recording")
        if not any(any(files) for files in self._found.values()):
            raise UserError(
                f"{self.videos}: no recording, and none in {self.sounds}; expected <video>.mp4 and <video>.wav as "
                "in the raw archive. Set media: false for labels and words only"
            )
        heard = {video: mp4 for video, (mp4, wav) in self._found.items() if mp4 or wav}
        _tell_missing(count, heard, "picture")

    def cut(self, clip: RawClip, segment: Segment) -> RawClip:
        """The clip with its part of the recording, or the reason why there is none."""
        video, audio = self._found[segment.video]
        if video is None and audio is None:
            return replace(clip, unusable=f"{self.videos.name}/{segment.video}.mp4 is missing")
        if segment.duration_s <= 0:
            return replace(clip, unusable=f"the segment is empty: {segment.start_s:g} to {segment.end_s:g} s")
        cut = Cut(start_s=segment.clip_start_s, end_s=segment.end_s)
        return replace(clip, video=video, audio=audio, cut=cut, duration_s=None)


def _tell_missing(count: Mapping[str, int], files: Mapping[str, Path | None], what: str) -> None:
    if missing := sorted(video for video, file in files.items() if file is None):
        clips = sum(count[video] for video in missing)
        logger.warning("%d videos have no %s (%d clips), first: %s", len(missing), what, clips, ", ".join(missing[:5]))
