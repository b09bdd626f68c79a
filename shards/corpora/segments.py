"""The labelled segments of CMU-MOSEI and CMU-MOSI: parts of recordings, known by (video, start, end) and nothing else.

Row numbers and clip numbers differ between the files of these corpora, so nothing is ever joined by them.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.corpora import csd
from triptych.config import UserError

logger = logging.getLogger(__name__)

TOLERANCE_S = 0.05
"""Between the times that two files give one segment: they are the same numbers, rounded or as float32."""
INSTANT_S = 0.001
"""Of a segment without length whose labels alone are wanted: published counts have it, and a record has a length."""

_VIDEO = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Column:
    """One number of a label file."""

    name: str
    stem: str
    """Part of every spelling of its name: happy, happiness."""
    low: float
    high: float


SENTIMENT = Column("sentiment", "sentiment", -3.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a recording with its labels."""

    key: str
    video: str
    start_s: float
    """Below 0 in some."""
    end_s: float
    """Past the recording's end in some, and equal to the start in one of MOSI."""
    labels: dict[str, float]
    unusable: str | None

    @property
    def clip_start_s(self) -> float:
        """Where the clip starts in the recording."""
        return max(0.0, self.start_s)

    @property
    def duration_s(self) -> float:
        """Of the clip, where the recording is long enough."""
        return max(0.0, round(self.end_s - self.clip_start_s, 6))


def read(path: Path, columns: Sequence[Column]) -> list[Segment]:
    """The segments of a label file by video and time, whatever the order of its rows.

    A segment whose label is outside of its range, as in an old release of MOSEI (CMU-MultimodalSDK issue 8), is
    unusable. Segments of one interval are all kept, as in all published counts, and told.

    Args:
        path: computational sequence with a column for each of `columns`.
        columns: in the file's order, unless its metadata name another one.

    Raises:
        UserError: the file cannot be read, has another number of columns, or a label that is no number.
    """
    file = csd.read(path)
    order = _order(file, columns, path)
    rows = []
    for video, found in file.videos.items():
        if not _VIDEO.fullmatch(video):
            raise UserError(f"{path}: {video!r} is no video id; expected letters, digits, '_' and '-'")
        if found.features.dtype.kind == "S" or found.features.shape[1] != len(columns):
            raise UserError(
                f"{path}: {video} has {found.features.shape[1]} columns of {found.features.dtype}; expected "
                f"{len(columns)} numbers: {', '.join(column.name for column in columns)}"
            )
        if not np.isfinite(found.features).all():
            raise UserError(f"{path}: {video} has a label that is no number")
        for (start_s, end_s), values in zip(
            found.intervals.round(6).tolist(), found.features[:, order].tolist(), strict=True
        ):
            rows.append((video, start_s, end_s, tuple(values)))
    segments = _named(sorted(rows), columns)
    if outside := [segment for segment in segments if segment.unusable]:
        told = f"first: {outside[0].key}, {outside[0].unusable}"
        logger.warning("%s: %d labels are out of their range; these clips are left out, %s", path, len(outside), told)
    return segments


def segment_key(video: str, start_s: float, end_s: float) -> str:
    """<video>/<start>_<end> in milliseconds, whatever file the segment was found in."""
    return f"{video}/{round(1000 * start_s):07d}_{round(1000 * end_s):07d}"


def _order(file: csd.Csd, columns: Sequence[Column], path: Path) -> list[int]:
    """Where in the file each column is."""
    said = file.metadata.get("dimension names")
    if said is None:
        return list(range(len(columns)))
    names = [str(name).lower() for name in said] if isinstance(said, list) else []
    places = [[place for place, name in enumerate(names) if column.stem in name] for column in columns]
    if len(names) != len(columns) or any(len(place) != 1 for place in places):
        usual = ", ".join(column.name for column in columns)
        logger.warning("%s: dimension names %r are not understood; taken as %s", path, said, usual)
        return list(range(len(columns)))
    return [place for (place,) in places]


def _named(rows: Sequence[tuple[str, float, float, tuple[float, ...]]], columns: Sequence[Column]) -> list[Segment]:
    """Segments with their keys, and a number where one interval comes again."""
    segments, seen = [], Counter[str]()
    for video, start_s, end_s, values in rows:
        name = segment_key(video, start_s, end_s)
        seen[name] += 1
        wrong = [
            f"{column.name} {value:g} is not in {column.low:g} to {column.high:g}"
            for column, value in zip(columns, values, strict=True)
            if not column.low - 1e-6 <= value <= column.high + 1e-6
        ]
        segments.append(
            Segment(
                key=name if seen[name] == 1 else f"{name}_{seen[name]}",
                video=video,
                start_s=start_s,
                end_s=end_s,
                labels={column.name: value for column, value in zip(columns, values, strict=True)},
                unusable=", ".join(wrong) or None,
            )
        )
    if again := [name for name, count in seen.items() if count > 1]:
        logger.warning("%d intervals have several labels, all are kept; first: %s", len(again), again[0])
    return segments


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is known of a corpus' label file."""

    videos: int
    segments: int
    splits: dict[str, int]
    """Segments of each standard fold."""
    source: str


def tell_counts(segments: Sequence[Segment], splits: Mapping[str, str], published: Published) -> None:
    """Log what was found beside the published counts, and how labels and folds differ."""
    videos = {segment.video for segment in segments}
    logger.info("%d videos, %d segments", len(videos), len(segments))
    if (len(videos), len(segments)) != (published.videos, published.segments):
        logger.warning(
            "%d videos with %d segments; the published file has %d with %d (%s)",
            *(len(videos), len(segments), published.videos, published.segments, published.source),
        )
    if not splits:
        return
    found = Counter(splits[segment.video] for segment in segments if segment.video in splits)
    if dict(found) != published.splits:
        told = ", ".join(f"{found[split]} {split} (published {count})" for split, count in published.splits.items())
        logger.warning("segments in the folds: %s", told)
    if without := sorted(videos - splits.keys()):
        count = sum(segment.video not in splits for segment in segments)
        logger.warning("%d videos are in no fold (%d segments), first: %s", len(without), count, without[0])
    if missing := sorted(splits.keys() - videos):
        logger.warning("%d videos of the folds have no labels, first: %s", len(missing), missing[0])
