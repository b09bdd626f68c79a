import dataclasses
import json
from typing import Any

import pytest

from shards.features.config import FeaturesConfig, build
from shards.features.recover import features_of
from triptych.config import UserError, load
from triptych.modalities import FeatureSpec

CHANGED: list[dict[str, Any]] = [
    {"audio": {"lfbe": {"bands": 23}}},
    {"audio": {"log_mel": {"bands": 128}}},
    {"audio": {"waveform": {"sample_rate_hz": 22050, "step_samples": 2205, "max_s": 180}}},
    {"video": {"face_crops": {"box": [0.1, 0.1, 0.2, 0.2], "size": 16, "rate_hz": 12.5}}},
    {"video": {"faces": {"size": 64, "color": False, "margin": 0.5, "rate_hz": 5}}},
    {"video": {"vgg16": {"weights": "random:7", "rate_hz": 5}}},
]


@pytest.mark.parametrize("config", CHANGED, ids=lambda config: next(iter(next(iter(config.values())))))
def test_an_encoders_inputs_name_the_feature_with_its_settings(config: dict[str, Any]) -> None:
    """Through JSON, as in an encoder's folder and in a manifest; nothing but the spec is known."""
    ((modality, feature),) = build(load(FeaturesConfig, config)).items()
    (default,) = build(load(FeaturesConfig, {modality: {feature.spec.name: {}}})).values()

    spec = FeatureSpec.from_json(json.loads(json.dumps(feature.spec.to_json())))

    assert features_of({modality: spec})[modality].spec == feature.spec
    assert default.spec != feature.spec


def test_numbers_that_this_version_does_not_compute_are_refused() -> None:
    spec = build(load(FeaturesConfig, {"audio": {"log_mel": {}}}))["audio"].spec

    with pytest.raises(UserError, match="differs in version"):
        features_of({"audio": dataclasses.replace(spec, version=99)})
