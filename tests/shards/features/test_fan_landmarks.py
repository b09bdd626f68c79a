"""FAN on networks of its own class with random weights: the published ones cannot be downloaded everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shards.features import fan_landmarks
from shards.features.config import FeaturesConfig, VideoFeature, build
from shards.features.fan_landmarks import FanLandmarks, FanLandmarksConfig, find_points
from shards.features.recover import features_of
from triptych.config import UserError

FAN = pytest.importorskip("face_alignment.models").FAN


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the smallest FAN."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fan") / "fan.pth"
    torch.save(FAN(1).state_dict(), path)
    return path


@pytest.mark.slow
def test_points_are_those_of_the_package_s_own_way(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class takes one picture at a time and the weights of a file that it names."""
    from face_alignment import FaceAlignment, LandmarksType, api

    monkeypatch.setattr(api, "load_file_from_url", lambda url: str(weights))
    monkeypatch.setattr(api, "FAN", lambda size: FAN(1))
    theirs = FaceAlignment(LandmarksType.TWO_D, device="cpu", flip_input=False, face_detector="folder", compile=False)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)
    places = np.array([[80.0, 60.0, 50.0], [20.0, 30.0, 64.0], [81.5, 70.25, 33.0]])
    boxes = [np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2]) for x, y, side in places]

    ours = find_points(fan_landmarks._network(str(weights)), frames, places)

    for frame, box, points in zip(frames, boxes, ours, strict=True):
        (expected,) = theirs.get_landmarks_from_image(frame, detected_faces=[box])
        np.testing.assert_allclose(points, expected, atol=1e-3)


@pytest.mark.real
@pytest.mark.slow
def test_a_real_face_has_points_and_a_black_picture_none(real_data: Path, weights: Path) -> None:
    clip = min((real_data / "vox2_form_clips").rglob("*.mp4"), key=lambda path: path.stat().st_size)
    feature = FanLandmarks(FanLandmarksConfig(weights=str(weights), rate_hz=2.0))

    values = feature.compute({"mp4": clip.read_bytes()})

    assert values is not None
    assert (values.dtype, values.shape[1:]) == (np.float32, (68, 2))
    seen = values[(values != 0).any(axis=(1, 2))]
    assert len(seen) > 0
    np.testing.assert_allclose((seen[:, 36] + seen[:, 45]) / 2, 0, atol=1e-5)  # the middle of the outer eye corners
    np.testing.assert_allclose(np.linalg.norm(seen[:, 45] - seen[:, 36], axis=1), 1, atol=1e-5)


def test_a_clip_without_a_face_has_none(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_landmarks, "decode_video", lambda data, rate_hz: np.zeros((4, 64, 64, 3), np.uint8))
    assert FanLandmarks(FanLandmarksConfig(weights=str(weights))).compute({"mp4": b"black"}) is None
    assert FanLandmarks(FanLandmarksConfig(weights=str(weights))).compute({"wav": b""}) is None


def test_other_weights_are_another_feature(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save(FAN(1).state_dict(), other)
    specs = [FanLandmarks(FanLandmarksConfig(weights=str(path))).spec for path in (weights, other)]
    assert specs[0] != specs[1]
    assert FanLandmarks(FanLandmarksConfig()).spec.settings == (("weights", fan_landmarks.PUBLISHED),)


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nowhere.pth' is no file"):
        FanLandmarksConfig(weights="nowhere.pth")
    path = tmp_path / "page.pth"
    path.write_text("<html>")
    with pytest.raises(UserError, match=r"page.pth cannot be had .*give the file of a FAN"):
        fan_landmarks._network(str(path))


def test_an_encoder_finds_its_feature_by_the_weights_hash(weights: Path) -> None:
    for chosen in (fan_landmarks.PUBLISHED, str(weights)):
        config = FeaturesConfig(video=VideoFeature(fan_landmarks=FanLandmarksConfig(weights=chosen)))
        spec = build(config)["video"].spec
        assert features_of({"video": spec})["video"].spec == spec
    with pytest.raises(UserError, match=r"a hash does not say where they are"):
        fan_landmarks._network(dict(spec.settings)["weights"])
