import json
from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
import pytest

from shards.check import inspect
from shards.features import faces
from shards.features.config import FeaturesConfig, VideoFeature
from shards.features.faces import Faces, FacesConfig, detect
from shards.media.media_form import StoreConfig
from shards.reading.index import load_manifest
from shards.writing.probe import Job, open_clip


@pytest.fixture
def disc(tmp_path: Path) -> bytes:
    """Two seconds of a red disc, 40 pixels wide, that moves to the right over grey."""
    path = tmp_path / "disc.mp4"
    rows, columns = np.mgrid[:96, :160]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"preset": "ultrafast", "qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for index in range(50):
            picture = np.full((96, 160, 3), 90, dtype=np.uint8)
            picture[(rows - 48) ** 2 + (columns - 40 - index) ** 2 < 400] = (220, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def find_red(frames: np.ndarray, every: int) -> dict[int, np.ndarray]:
    """Stands for the detector: the box of what is red."""
    found = {}
    for instant in sorted({*range(0, len(frames), every), len(frames) - 1}):
        red = (frames[instant, ..., 0] > 150) & (frames[instant, ..., 1] < 100)
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        found[instant] = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)
    return found


def find_nothing(frames: np.ndarray, every: int) -> dict[int, np.ndarray]:
    return {instant: np.zeros((0, 4)) for instant in range(0, len(frames), every)}


def test_crops_follow_the_face(disc: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "detect", find_red)
    feature = Faces(FacesConfig(size=40, margin=0.5))

    crops = feature.compute({"mp4": disc})

    assert crops is not None
    assert (crops.dtype, crops.shape) == (np.uint8, (25, *feature.spec.shape))
    assert feature.spec.shape == (40, 40, 3)
    columns = np.arange(40)
    for crop in crops:
        red = crop[..., 0].astype(int) - crop[..., 1] > 60
        assert abs(red.any(axis=0) @ columns / red.any(axis=0).sum() - 19.5) < 3  # where the average lags at the ends
        assert 23 <= red.any(axis=1).sum() <= 31  # 40 / 1.5 of the 40 pixels


def test_grey_crops_are_the_luma_of_the_same_square(disc: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "detect", find_red)
    feature = Faces(FacesConfig(size=16, color=False))

    grey, color = feature.compute({"mp4": disc}), Faces(FacesConfig(size=16)).compute({"mp4": disc})

    assert grey is not None
    assert color is not None
    assert grey.shape == (25, 16, 16)
    np.testing.assert_allclose(grey, color @ np.array([0.299, 0.587, 0.114]), atol=2)


def test_steps_without_the_face_are_black(disc: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_first(frames: np.ndarray, every: int) -> dict[int, np.ndarray]:
        return {0: find_red(frames, every)[0]}

    monkeypatch.setattr(faces, "detect", only_first)

    crops = Faces(FacesConfig(size=16)).compute({"mp4": disc})

    assert crops is not None
    brightest = crops.reshape(25, -1).max(axis=1)
    assert (brightest[:6] > 100).all()
    assert (brightest[10:] == 0).all()


def test_no_picture_and_no_face_are_none(
    disc: bytes, make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "detect", find_nothing)

    assert Faces(FacesConfig()).compute({"m4a": make_clip(tmp_path / "a.m4a").read_bytes()}) is None
    assert Faces(FacesConfig()).compute({"mp4": disc}) is None


def test_a_clip_without_a_face_is_opened_with_its_picture(
    disc: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "detect", find_nothing)
    job = Job(key="a", video=tmp_path / "disc.mp4", audio=None)

    opened = open_clip(job, FeaturesConfig(video=VideoFeature(faces=FacesConfig())), StoreConfig())

    assert opened.members.keys() == {"mp4"}
    assert opened.has_video
    assert opened.duration_s == pytest.approx(2.0, abs=0.05)


def test_check_counts_clips_without_a_face_and_finds_nothing_wrong(tiny_shards: Callable[..., Path]) -> None:
    """The tiny set has 28 clips with a picture, and none with this feature."""
    spec = Faces(FacesConfig()).spec.to_json()
    folder = tiny_shards(features=[spec])

    found = inspect(folder, load_manifest(folder), quiet=True)

    assert [problem for problem in found.problems if problem.check == "features"] == []
    assert found.lacking == {"faces": 28}
    must = json.loads(json.dumps({**spec, "optional": False}))
    manifest = load_manifest(folder)
    manifest.features[:] = [must]
    assert sum(problem.check == "features" for problem in inspect(folder, manifest, quiet=True).problems) > 0


def test_the_detector_finds_no_face_in_noise() -> None:
    pytest.importorskip("facenet_pytorch")
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)

    found = detect(frames, every=2)

    assert {instant: len(there) for instant, there in found.items()} == {0: 0, 2: 0}


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["vox2_form_clips", "ravdess"])
def test_crops_of_real_clips_show_the_face_in_their_middle(real_data: Path, folder: str) -> None:
    pytest.importorskip("facenet_pytorch")
    feature = Faces(FacesConfig(size=112, rate_hz=6.25))
    for clip in sorted((real_data / folder).rglob("*.mp4"))[:2]:
        media: Mapping[str, bytes] = {"mp4": clip.read_bytes()}
        crops = feature.compute(media)
        assert crops is not None
        found = detect(crops, every=4)
        middles = [(there[0, :2] + there[0, 2:]) / 2 for there in found.values() if len(there)]
        assert len(middles) >= 0.8 * len(found)
        assert np.abs(np.array(middles) - 56).max() < 20
        again = feature.compute(media)
        assert again is not None
        np.testing.assert_array_equal(crops, again)
