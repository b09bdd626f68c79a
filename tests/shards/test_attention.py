import json
from pathlib import Path

import numpy as np
import pytest

from shards import attention
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.features.words import WORDS
from triptych.config import UserError
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, save_encoder
from triptych.models.load import build as build_encoder
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig
from triptych.models.towers.tcn import TcnConfig

FEATURES = FeaturesConfig(
    audio=AudioFeature(lfbe=LfbeConfig(bands=4)), video=VideoFeature(face_crops=FaceCropsConfig(size=8, rate_hz=5.0))
)
INPUTS = {"text": WORDS, **{modality: feature.spec for modality, feature in build(FEATURES).items()}}
WHOLE, WORDLESS = "train-speaker0/clip00", "train-speaker0/clip01"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """`cross`: words attend to sound and picture; `tcn`: no attention at all."""
    folder = tmp_path_factory.mktemp("encoders")
    cross = CrossModalConfig(transformer=TransformerConfig(width=8, layers=2, heads=2, feedforward=8))
    tcn = PairwiseConfig(width=4, audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=4, hidden=4)))
    for name, system in {"cross": SystemConfig(cross_modal=cross), "tcn": SystemConfig(pairwise=tcn)}.items():
        save_encoder(build_encoder(system, INPUTS, ("set", "red")), folder / name)
    return folder


def test_pictures_and_numbers_of_chosen_clips(encoders, tiny_shards, tmp_path, capsys):
    overrides = [f"encoder={encoders / 'cross'}", f"keys=[{WHOLE},{WORDLESS}]", f"out={tmp_path / 'out'}"]
    assert attention.run(str(tiny_shards()), overrides) == 0
    name = WHOLE.replace("/", "+")
    files = {f"{name}.png", f"{name}.heads.png", f"{WORDLESS.replace('/', '+')}.png", "attention.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    whole, wordless = json.loads((tmp_path / "out" / "attention.json").read_text())["clips"]
    assert (wordless["lacks"], wordless["maps"]) == (["text"], [])
    assert f"{WORDLESS} (without text)" in capsys.readouterr().out
    assert [(one["stack"], one["layer"], one["queries"]["modality"]) for one in whole["maps"]] == [
        ("cross.audio", 2, "text"),
        ("cross.video", 2, "text"),
    ]
    for one, steps in zip(whole["maps"], (20, 5), strict=True):
        weights = np.array(one["weights"])
        assert weights.shape == (2, len(whole["words"]), len(one["keys"]["times_s"]))
        assert abs(weights.shape[2] - steps) <= 1  # of a second
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)


def test_mistakes_are_told_before_anything_is_drawn(encoders, tiny_shards, tmp_path):
    shards = str(tiny_shards())
    for encoder, override, message in (
        ("cross", "keys=[trian-speaker0/clip00]", "the key 'trian-speaker0/clip00'; the nearest is 'train-speaker0/cl"),
        ("cross", "keys=[]", "keys: names no clip"),
        ("cross", "stack=cross.adio", "Did you mean cross.audio?"),
        ("cross", "layer=3", "layer: 3 of cross.audio, which has 1 to 2"),
        ("cross", "layer=0", "layer: 0 of cross.audio"),
        ("tcn", "layer=1", "has no attention to draw"),
    ):
        given = [f"encoder={encoders / encoder}", f"keys=[{WHOLE}]", f"out={tmp_path / 'out'}", override]
        with pytest.raises(UserError) as error:
            attention.run(shards, given)
        assert message in str(error.value)
    assert not (tmp_path / "out").exists()
