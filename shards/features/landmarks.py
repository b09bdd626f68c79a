"""68 facial landmarks from the csv file that OpenFace 2 wrote for the clip: the input of a landmark tower.

The file travels in the sample as `<key>.landmarks.csv`; OpenFace itself is not needed here. Points are in iBUG's order
(0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth); a tower that wants Franceschini et al.'s 51 leaves out the
jaw. Columns are found by their names: the published csv files of RAVDESS lack two columns that OpenFace writes today.

Every frame is centred and scaled by itself. Franceschini et al.'s code scales by the least and greatest value of the
clip, which would tell, at every step, how wide the mouth opened in a word that is hidden.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.media.decode import MAX_SECONDS, DecodeError
from triptych.modalities import FeatureSpec

EXTENSION = "landmarks.csv"
NUM_POINTS = 68
EYE_CORNERS = (36, 45)
"""Outer corners. Their distance is the scale of a face and their middle its origin (300-W, Sagonas et al. 2013)."""

REACH_S = 0.06
"""How far from a step its frame may lie. One or two lost frames at 25 Hz take a neighbour; a longer gap stays one."""
MIN_SCALE = 0.1
"""Least distance of the eye corners, of the face's greatest extent (0.6 from the front): in profile they coincide, and
dividing by next to nothing would give any number."""
FRAME_S = 1 / 25
"""What a single frame lasts."""

MEAN, STD = 0.2, 0.45
"""Of the generated corpus: 0.19 and 0.43. No csv of real faces was at hand."""

_POINTS = [f"{axis}_{point}" for axis in "xy" for point in range(NUM_POINTS)]
_NEEDED = ["timestamp", "confidence", *_POINTS]
_OPTIONAL = {"success": 1.0, "face_id": 0.0}
"""Columns that not every version writes -> what holds without them."""


@dataclass(frozen=True, kw_only=True)
class LandmarksConfig:
    """Landmarks from OpenFace's csv files."""

    rate_hz: float = 25.0
    min_confidence: float = 0.7
    """Frames that the tracker is less sure of count as lost."""

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"landmarks.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"landmarks.min_confidence: {self.min_confidence}; expected 0 to 1")

    def build(self) -> "Landmarks":
        """The feature."""
        return Landmarks(self)


class Landmarks:
    """The feature; see the module."""

    def __init__(self, config: LandmarksConfig) -> None:
        self.config = config
        self.spec = FeatureSpec(
            name="landmarks",
            modality="video",
            version=1,
            rate_hz=config.rate_hz,
            shape=(NUM_POINTS, 2),
            dtype="float32",
            support_s=(-REACH_S, REACH_S + FRAME_S),
            mean=MEAN,
            std=STD,
            settings=(("min_confidence", config.min_confidence),),
            optional=True,
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Landmarks of the face that is seen in most frames.

        Step `i` is the good frame nearest to `i / rate_hz`. Good is a frame that the tracker calls a success with
        enough confidence, whose points are numbers and whose eyes are apart. Where none lies within REACH_S, all
        points are at the origin, as no face's can be. They are not interpolated, because a value drawn from both sides
        of a hidden word would tell of it.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, 68, 2] float32: x to the right and y down, from the middle of the outer eye corners and in units of
            their distance; None if the sample has no landmarks.csv, or one without a good frame.

        Raises:
            shards.media.decode.DecodeError: a column is missing, or the file is damaged or longer than MAX_SECONDS.
        """
        if EXTENSION not in members:
            return None
        columns = read_openface(members[EXTENSION])
        times_s = columns["timestamp"]
        if len(times_s) == 0:
            return None
        points = np.stack([columns[name] for name in _POINTS], axis=1).reshape(-1, 2, NUM_POINTS).transpose(0, 2, 1)
        unit, has_eyes = scaled(points)
        good = (columns["success"] == 1) & (columns["confidence"] >= self.config.min_confidence) & has_eyes
        good &= columns["face_id"] == _most_seen(columns["face_id"], good)
        if not good.any():
            return None
        # 0.05 steps: OpenFace rounds to milliseconds
        step_s = np.arange(int(_end_s(times_s) * self.config.rate_hz + 0.05)) / self.config.rate_hz
        frames, distance_s = _nearest(times_s[good], step_s)
        return np.where((distance_s <= REACH_S)[:, None, None], unit[good][frames], 0.0).astype(np.float32)


def read_openface(content: bytes) -> dict[str, np.ndarray]:
    """The columns of OpenFace's csv that landmarks need, rows in the order of their time.

    Args:
        content: the file.

    Returns:
        timestamp (seconds), confidence, success, face_id, x_0 to x_67 and y_0 to y_67 (pixels), each [F] float64.

    Raises:
        shards.media.decode.DecodeError: a column is missing, a value is no number, or times are negative or too late.
    """
    header, _, rows = content.partition(b"\n")
    # a blank follows each comma; capitals differ, as X_0 is the point in space
    names = [name.strip() for name in header.decode("utf-8-sig", "replace").split(",")]
    if missing := [name for name in _NEEDED if name not in names]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DecodeError(
            f"{EXTENSION}: no column {', '.join(missing[:3])}{more}; expected a csv file of OpenFace 2 with timestamp, "
            "confidence, x_0 to x_67 and y_0 to y_67 (FeatureExtraction -2Dfp)"
        )
    wanted = _NEEDED + [name for name in _OPTIONAL if name in names]
    if not rows.strip():
        return {name: np.zeros(0) for name in (*wanted, *_OPTIONAL)}
    try:
        # a frame without a face is "-nan(ind)" on Windows
        table = np.loadtxt(
            io.BytesIO(rows.replace(b"-nan(ind)", b"nan")),
            delimiter=",",
            comments=None,
            usecols=[names.index(name) for name in wanted],
            ndmin=2,
        )
    except ValueError as error:
        raise DecodeError(f"{EXTENSION}: damaged ({error})") from None
    columns = dict(zip(wanted, table.T, strict=True))
    times_s = columns["timestamp"]
    if not (np.isfinite(times_s).all() and times_s.min() >= 0 and times_s.max() <= MAX_SECONDS):
        raise DecodeError(f"{EXTENSION}: times outside of 0 to {MAX_SECONDS:.0f} s")
    columns |= {name: np.full(len(times_s), value) for name, value in _OPTIONAL.items() if name not in columns}
    order = np.argsort(times_s, kind="stable")
    return {name: values[order] for name, values in columns.items()}


def scaled(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [F, 68, 2] in units of the eyes' distance from their middle, and [F] whether that can be said."""
    left, right = (points[:, corner] for corner in EYE_CORNERS)
    distance = np.linalg.norm(right - left, axis=1)
    extent = np.ptp(points, axis=1).max(axis=1)
    good = np.isfinite(points).all(axis=(1, 2)) & (distance > 0) & (distance >= MIN_SCALE * extent)
    unit = np.where(good, distance, 1.0)[:, None, None]
    return (points - (left + right)[:, None] / 2) / unit, good


def _most_seen(face_ids: np.ndarray, good: np.ndarray) -> float:
    """The face with the most good frames, the first one among equals."""
    faces, places = np.unique(face_ids, return_inverse=True)
    return float(faces[np.bincount(places, weights=good).argmax()])


def _end_s(times_s: np.ndarray) -> float:
    """Where the last frame ends."""
    frames_s = np.unique(times_s)
    return float(frames_s[-1] + (np.median(np.diff(frames_s)) if len(frames_s) > 1 else FRAME_S))


def _nearest(times_s: np.ndarray, wanted_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the time nearest to each wanted one, and its distance."""
    after = np.searchsorted(times_s, wanted_s)
    pair = np.clip(np.stack([after - 1, after]), 0, len(times_s) - 1)
    distance = np.abs(times_s[pair] - wanted_s).round(6)  # so that of two as near, the earlier one is taken
    nearer = distance.argmin(axis=0)
    steps = np.arange(len(wanted_s))
    return pair[nearer, steps], distance[nearer, steps]
