"""From boxes found in some frames to one box a step: which detections are one person, and where that face is between.

Pure NumPy, no detector here. Boxes are [x0, y0, x1, y1] in pixels; an instant is the index of a frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

MIN_OVERLAP = 0.3
"""Least intersection over union of one face in consecutive detections: a fifth of a second apart, a head that is not
cut away moves less than half its width."""


@dataclass
class Track:
    """One face: the instants where it was found, and its boxes there."""

    instants: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)

    @property
    def weight(self) -> float:
        """Long and large: the sum of the box sides. A passer-by is short, a bystander is small."""
        return float(sum(np.sqrt(_area(box)) for box in self.boxes))


def main_track(detections: Mapping[int, np.ndarray]) -> Track | None:
    """The most persistent face of a clip.

    Each detection continues the track whose last box it overlaps most, however long ago that was: after a cut away and
    back the face is where it was. Two people who take the same place one after the other are taken for one.

    Args:
        detections: instant -> [n, 4] boxes, in the order of time; n may be 0.

    Returns:
        The track of the greatest weight, the earlier one of two equals; None if nothing was detected.
    """
    tracks: list[Track] = []
    for instant, boxes in detections.items():
        overlaps = np.array([[_overlap(track.boxes[-1], box) for box in boxes] for track in tracks])
        free = set(range(len(boxes)))
        while overlaps.size and overlaps.max() >= MIN_OVERLAP:
            row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
            _append(tracks[row], instant, boxes[column])
            free.remove(column)
            overlaps[row, :] = overlaps[:, column] = -1.0
        for column in sorted(free):
            _append(fresh := Track(), instant, boxes[column])
            tracks.append(fresh)
    return max(tracks, key=lambda track: track.weight, default=None)


def squares(track: Track, steps: int, max_gap: int, smooth: int) -> np.ndarray:
    """The face's square at every step: interpolated between detections, then averaged over time.

    Args:
        track: at least one detection.
        steps: T, frames of the clip.
        max_gap: frames between two detections above which the face counts as away; also how long it stays where it was
            before the first and after the last detection, by half.
        smooth: width of the moving average in frames; detections jitter by a few pixels.

    Returns:
        [T, 3] float64: centre x, centre y, side; NaN where the face is away.
    """
    known = np.array(track.instants)
    boxes = np.stack(track.boxes).astype(np.float64)
    found = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1)])
    result = np.full((steps, 3), np.nan)
    for run in np.split(np.arange(len(known)), np.flatnonzero(np.diff(known) > max_gap) + 1):
        first, last = known[run[0]] - max_gap // 2, known[run[-1]] + max_gap // 2
        covered = np.arange(max(0, first), min(steps, last + 1))
        values = np.column_stack([np.interp(covered, known[run], found[run, column]) for column in range(3)])
        result[covered] = _smoothed(values, smooth)
    return result


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average along the first axis, the ends repeated outwards."""
    reach = width // 2
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    averages: np.ndarray = windows.mean(axis=-1)
    return averages


def _append(track: Track, instant: int, box: np.ndarray) -> None:
    track.instants.append(instant)
    track.boxes.append(box)


def _area(box: np.ndarray) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    common = _area(np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]))
    union = _area(one) + _area(other) - common
    return common / union if union > 0 else 0.0
