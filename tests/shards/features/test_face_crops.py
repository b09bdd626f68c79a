import json
from pathlib import Path

import av
import numpy as np
import pytest

from shards.features.config import FeaturesConfig, build
from shards.features.face_crops import FaceCrops, FaceCropsConfig
from triptych.config import UserError, load
from triptych.modalities import FeatureSpec


def test_crops_are_the_box_at_the_rate(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[32:48, 16:48] = 200
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"preset": "ultrafast", "qp": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    feature = FaceCrops(FaceCropsConfig(box=(0.5, 0.25, 0.25, 0.5), size=8))

    crops = feature.compute({"mp4": (tmp_path / "clip.mp4").read_bytes()})

    assert crops is not None
    assert crops.dtype == np.uint8
    assert crops.shape == (10, 8, 8)
    assert np.abs(crops.astype(int) - 200).max() < 12  # nothing black from outside the box


def test_no_picture_is_none(make_clip, tmp_path: Path) -> None:
    assert FaceCrops(FaceCropsConfig()).compute({"m4a": make_clip(tmp_path / "a.m4a").read_bytes()}) is None


def test_a_box_outside_the_frame_is_refused() -> None:
    with pytest.raises(UserError, match=r"box.*not inside the frame"):
        load(FeaturesConfig, {"video": {"face_crops": {"box": [0.5, 0.5, 0.6, 0.2]}}})


def test_specs_survive_json_and_tell_settings_apart() -> None:
    config = load(FeaturesConfig, {"audio": {"lfbe": {}}, "video": {"face_crops": {}}})
    specs = {modality: feature.spec for modality, feature in build(config).items()}

    assert list(specs) == ["audio", "video"]
    for modality, spec in specs.items():
        assert spec.modality == modality
        assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    other = load(FeaturesConfig, {"video": {"face_crops": {"box": [0.1, 0.1, 0.2, 0.2]}}})
    assert build(other)["video"].spec != specs["video"]


def test_a_choice_names_exactly_one_feature() -> None:
    with pytest.raises(UserError, match="exactly one of lfbe"):
        load(FeaturesConfig, {"audio": {}})
