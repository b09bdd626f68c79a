"""Landmarks from OpenFace's csv files: what a step holds, and what it does not know."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.check import inspect
from shards.corpora.config import CorpusConfig
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.divisions.split import SplitConfig
from shards.features.config import FeaturesConfig, VideoFeature
from shards.features.landmarks import Landmarks, LandmarksConfig
from shards.media.decode import DecodeError
from shards.reading.index import ShardSet
from shards.write import WriteConfig, write

COLUMNS = ("frame", "face_id", "timestamp", "confidence", "success")
FACE = np.random.default_rng(0).uniform(-1, 2, (68, 2))
FACE[36], FACE[45] = (-0.5, 0), (0.5, 0)


def csv(rows: Iterable[Sequence[Any]], columns: Sequence[str] = COLUMNS, order: slice = slice(None)) -> bytes:
    """A file as OpenFace writes it; a row is the values of `columns` and the points [68, 2] in pixels."""
    names = [*columns, "X_0", *(f"{axis}_{point}" for axis in "xy" for point in range(68)), "AU01_r"][order]
    lines = [", ".join(names)]
    for *values, points in rows:
        lines.append(", ".join(str(value) for value in [*values, -1.0, *np.asarray(points).T.ravel(), 0.5][order]))
    return ("\n".join(lines) + "\n").encode()


def frames(good: Sequence[bool], fps: float = 25, face: int = 0) -> list[tuple[Any, ...]]:
    """A face of 80 pixels that moves by a pixel a frame; its mouth, point 66, opens by a tenth a frame."""
    rows = []
    for index, seen in enumerate(good):
        points = FACE.copy()
        points[66] = (0, index / 10)
        rows.append(
            (index + 1, face, f"{index / fps:.3f}", 0.98 if seen else 0.1, int(seen), 100 + index + 80 * points)
        )
    return rows


def compute(content: bytes, **settings: Any) -> np.ndarray | None:
    return Landmarks(LandmarksConfig(**settings)).compute({"landmarks.csv": content})


def mouth(content: bytes, **settings: Any) -> list[float | None]:
    """How far the mouth is open at each step, None where no face is."""
    values = compute(content, **settings)
    assert values is not None
    return [round(float(step[66, 1]), 3) if step.any() else None for step in values]


def test_points_are_centred_between_the_eyes_and_scaled_by_their_distance() -> None:
    values = compute(csv(frames([True] * 10)))

    assert values is not None
    assert values.shape == (10, 68, 2)
    assert values.dtype == np.float32
    still = [point for point in range(68) if point != 66]
    assert np.abs(values[:, still] - FACE[still]).max() < 1e-5
    assert np.allclose(values[:, 66], [(0, step / 10) for step in range(10)], atol=1e-5)


def test_columns_are_found_by_name_wherever_they_are() -> None:
    rows = frames([True] * 3)
    usual = compute(csv(rows))

    assert np.array_equal(compute(csv(rows, order=slice(None, None, -1))), usual)
    published = [(frame, time, confidence, points) for frame, _, time, confidence, _, points in rows]
    assert np.array_equal(compute(csv(published, columns=("frame", "timestamp", "confidence"))), usual)
    assert np.array_equal(compute(csv(rows).replace(b", ", b",").replace(b"\n", b"\r\n")), usual)


@pytest.mark.parametrize("column", ["timestamp", "confidence", "x_0", "y_67"])
def test_a_missing_column_is_named(column: str) -> None:
    content = csv(frames([True])).replace(f", {column},".encode(), b", other,")

    with pytest.raises(DecodeError, match=rf"landmarks\.csv: no column {column};"):
        compute(content)


def test_steps_take_the_nearest_frame_in_time() -> None:
    thirty = csv(frames([True] * 30, fps=30))

    assert mouth(thirty, rate_hz=10) == [0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7]
    assert len(mouth(thirty)) == 25
    assert mouth(csv(frames([True] * 5, fps=12.5))) == [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]


def test_short_gaps_take_a_neighbour_and_longer_ones_are_marked() -> None:
    good = [True, False, True, True, False, False, True, True, False, False, False, False]

    assert mouth(csv(frames(good))) == [0, 0, 0.2, 0.3, 0.3, 0.6, 0.6, 0.7, 0.7, None, None, None]


def test_a_step_knows_nothing_outside_of_its_support() -> None:
    """Or the neighbours of a hidden word would tell how its mouth looked."""
    good = np.random.default_rng(1).random(50) < 0.6
    rows = frames([bool(seen) for seen in good])
    before = compute(csv(rows))
    spec = Landmarks(LandmarksConfig()).spec
    changed = [(*row[:-1], row[-1] * 3 if 20 <= index < 30 else row[-1]) for index, row in enumerate(rows)]
    for row in changed[20:30]:
        row[-1][36] += 7
    after = compute(csv(changed))

    assert before is not None
    assert after is not None
    start_s, stop_s = (np.arange(50)[:, None] / 25 + spec.support_s).T
    outside = (stop_s < 20 / 25 + 1e-6) | (start_s > 30 / 25 - 1e-6)
    assert outside.sum() > 30
    assert np.array_equal(before[outside], after[outside])
    assert not np.array_equal(before, after)


def test_what_the_tracker_doubts_is_lost() -> None:
    rows = [(*row[:3], confidence, *row[4:]) for row, confidence in zip(frames([True] * 10), [0.98] * 5 + [0.6] * 5)]

    assert mouth(csv(rows))[5:] == [0.4, None, None, None, None]
    assert None not in mouth(csv(rows), min_confidence=0.5)


def test_a_profile_and_what_is_no_number_are_lost() -> None:
    rows = frames([True] * 10)
    for row in rows[5:]:
        row[-1][45] = row[-1][36] + 1
    assert mouth(csv(rows))[6:] == [None] * 4
    rows = frames([True] * 10)
    for row in rows[5:]:
        row[-1][3] = np.nan
    assert mouth(csv(rows).replace(b"nan", b"-nan(ind)"))[6:] == [None] * 4


def test_of_several_faces_the_one_seen_longest_counts() -> None:
    passing = [(*row[:-1], row[-1] * 2) for row in frames([True] * 4 + [False] * 6, face=0)]
    staying = frames([True] * 10, face=1)
    both = [row for pair in zip(passing, staying) for row in pair]

    assert np.array_equal(compute(csv(both)), compute(csv(staying)))


@pytest.mark.parametrize("rows", [[], frames([False] * 5)])
def test_a_clip_without_any_good_frame_has_no_landmarks(rows: list[tuple[Any, ...]]) -> None:
    assert compute(csv(rows)) is None


def test_a_clip_without_the_file_has_no_landmarks() -> None:
    assert Landmarks(LandmarksConfig()).compute({"mp4": b""}) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (csv(frames([True] * 3))[:-400], "landmarks.csv: damaged"),
        (csv(frames([True] * 3)).replace(b"0.040", b"noon"), "landmarks.csv: damaged .*noon"),
        (csv(frames([True] * 3)).replace(b"0.040", b"1e9"), "times outside of 0 to 600 s"),
        (csv(frames([True] * 3)).replace(b"0.040", b"nan"), "times outside of 0 to 600 s"),
        (b"", "no column timestamp, confidence, x_0 and 135 more"),
        (bytes(range(256)), "no column timestamp"),
    ],
)
def test_damaged_files_are_refused(content: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        compute(content)


@pytest.mark.parametrize("settings", [{"rate_hz": 0}, {"min_confidence": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LandmarksConfig(**settings)


def test_what_was_tracked_proves_no_picture_and_lacking_landmarks_are_counted(
    make_clip, tmp_path: Path, capsys
) -> None:
    """The points come from a file of their own, which may be longer than the clip, lost or beside a damaged mp4."""
    root = tmp_path / "raw"
    tracked = {"id0": None, "id1": [False] * 10, "id2": [True] * 50, "id3": [True] * 10}
    for speaker, good in tracked.items():
        clip = make_clip(root / f"mp4/{speaker}/v/00001.mp4", seconds=0.4, audio=False)
        if good is not None:
            (root / f"openface/{speaker}/v").mkdir(parents=True)
            (root / f"openface/{speaker}/v/00001.csv").write_bytes(csv(frames(good)))
    clip.write_bytes(b"no video")
    config = WriteConfig(
        corpus=CorpusConfig(voxceleb2=VoxCeleb2Config(root=str(root), landmarks="openface")),
        out=str(tmp_path / "shards"),
        split=SplitConfig(train=1.0, valid=0.0, test=0.0),
        features=FeaturesConfig(video=VideoFeature(landmarks=LandmarksConfig(rate_hz=10))),
        workers=1,
        max_quarantined_share=0.25,
    )

    manifest = write(config)

    assert list(manifest.quarantined) == ["id3/v/00001"]
    assert (manifest.written, manifest.counts["without_video"]) == (3, 0)
    assert manifest.counts["without_landmarks"] == 2
    assert "2 clips have the medium of landmarks, but nothing in it" in capsys.readouterr().out
    split = ShardSet(tmp_path / "shards").split("train")
    assert split.durations == pytest.approx(0.4)
    found = inspect(tmp_path / "shards", manifest, quiet=True)
    assert found.problems == []
    assert found.lacking == {"landmarks": 2}
    manifest.counts["without_landmarks"] = 1
    (problem,) = inspect(tmp_path / "shards", manifest, quiet=True).problems
    assert problem.what == "without_landmarks: 1, the clips have 2"
    place = list(split.keys).index("id2/v/00001")
    assert split.read(place)["landmarks.csv"] == (root / "openface/id2/v/00001.csv").read_bytes()
