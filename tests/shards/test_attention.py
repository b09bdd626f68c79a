import json
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import attention
from shards.attention_figure import Map, Side, attention_figure, heads_figure
from shards.contact_sheet import Clip
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.features.words import WORDS
from shards.record import ClipRecord, Word
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.models.attention_maps import recorded
from triptych.models.blocks import Source, TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, save_encoder
from triptych.models.load import build as build_encoder
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig
from triptych.models.tcn import TcnConfig

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


def side(modality, starts, length):
    return Side(modality=modality, times=np.array([(start, start + length) for start in starts], dtype=float))


def test_the_share_at_the_same_time_is_counted_by_hand():
    frames = side("video", (0.0, 0.5, 1.0, 1.5), 0.5)
    weights = np.array([[[0.5, 0.4, 0.1, 0.0], [0.0, 0.0, 0.3, 0.7]], np.full((2, 4), 0.25)])
    words = Map(stack="s", layer=1, num_layers=1, queries=side("text", (0, 1), 1), keys=frames, weights=weights)
    heads, even = words.same_time
    np.testing.assert_allclose(heads, [(0.9 + 1.0) / 2, 0.5])
    assert even == 0.5
    cls = Side(modality="text", times=np.full((1, 2), np.nan))
    of_cls = Map(stack="s", layer=1, num_layers=1, queries=cls, keys=frames, weights=weights[:, :1])
    assert of_cls.same_time is None


@torch.no_grad()
def test_the_curves_of_a_cls_hold_its_whole_weight():
    """SSE-FT: each modality's CLS over the other ones' steps; their own CLS has no time, and is told in words."""
    torch.manual_seed(0)
    cores = {name: CoreModality(width=8, max_steps=40, has_cls=name == "text") for name in INPUTS}
    model = SseFt(SseFtConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8), cores, 1).eval()
    batch = fake_batch(INPUTS, num_clips=2)
    sources = {name: Source(torch.randn(*track.mask.shape, 8), track.mask) for name, track in batch.tracks.items()}
    with recorded(model) as seen:
        model(sources)
    maps = attention.maps_of(seen, batch, 1, {name: 1 for name in seen if name.startswith("inter_modal")})
    assert [one.stack for one in maps if one.queries.is_cls] == [one.stack for one in maps]
    text = batch.tracks["text"]
    words = tuple(Word("word", *times) for times in text.times[1][text.mask[1]].tolist())
    record = ClipRecord(
        key="a",
        speaker="s",
        split="test",
        duration_s=1.8,
        has_audio=False,
        has_video=False,
        words=words,
        source={},
        labels={},
    )
    figure = attention_figure(Clip(record, {}), maps)
    drawn = [patch for axis in figure.axes[1:] for patch in axis.patches]
    for one, patch in zip(maps, drawn, strict=True):
        values, edges, _ = patch.get_data()
        rest = one.weights.mean(axis=0)[0, np.isnan(one.keys.times[:, 0])].sum()
        assert (values * np.diff(edges)).sum() + rest == pytest.approx(1, abs=1e-5)
    assert len(heads_figure(Clip(record, {}), maps).axes) == 3 * 2
