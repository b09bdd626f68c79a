from dataclasses import replace

import pytest
import torch

from pretrain.objectives.masked_lm import MaskedLMConfig
from triptych import config as configs
from triptych.batch import Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.load import SystemConfig

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
    "video": FeatureSpec(
        name="crops", modality="video", version=1, rate_hz=25.0, shape=(4, 4), dtype="uint8", support_s=(0.0, 0.04),
        mean=128.0, std=64.0,
    ),
}  # fmt: skip
SMALL = {"width": 16, "layers": 2, "heads": 2, "feedforward": 32, "dropout": 0.0}
TCN = {"tcn": {"bottleneck": 8, "hidden": 16, "blocks": 3, "dropout": 0.0}}
LIGHT = {
    "frames": {
        "transformer": SMALL,
        "input": {"frame_hidden": 8, "convolution": 3, "normalize": True},
        "positions": "seconds",
    }
}
SYSTEMS = {
    "paper": {"text": {"transformer": SMALL}, "audio": TCN, "video": LIGHT},
    "light": {"text": {"transformer": {**SMALL, "positions": "seconds"}}, "audio": LIGHT, "video": LIGHT},
}


def build(towers="paper", seed=0, **settings):
    torch.manual_seed(seed)
    system = configs.load(SystemConfig, {"pairwise": {"width": 12, **SYSTEMS[towers], **settings}})
    return door.build(system, SPECS, WORDS).eval()


@pytest.mark.parametrize("towers", SYSTEMS)
def test_any_subset_encodes_to_one_vector_a_modality(towers):
    encoder = build(towers)
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (0, 1, 2, 3)})
    encoded = encoder.encode(batch)
    assert encoder.anchors == ()
    assert not encoded.fused
    assert dict(encoder.widths) == {name: pooled.shape[1] for name, pooled in encoded.pooled.items()}
    assert set(encoded.pooled) == {"text", "audio", "video"}
    for name, present in encoded.present.items():
        assert torch.equal(present, batch.tracks[name].present)
        assert torch.equal(encoded.pooled[name].abs().sum(dim=1) > 0, present)  # zeros where absent, nowhere else
    for subset in (("text",), ("audio",), ("audio", "video")):
        part = encoder.encode(replace(batch, tracks={name: batch.tracks[name] for name in subset}))
        assert set(part.pooled) == set(subset)
        for name in subset:
            torch.testing.assert_close(part.pooled[name], encoded.pooled[name])
    with pytest.raises(ValueError, match="none of text, audio, video"):
        encoder.encode(replace(batch, tracks={}))


@pytest.mark.parametrize("towers", SYSTEMS)
def test_padding_and_hidden_steps_have_exactly_no_influence(towers):
    encoder = build(towers)
    batch = fake_batch(SPECS)
    tracks = dict(batch.tracks)
    for name in ("audio", "video"):
        hidden = torch.zeros_like(tracks[name].mask)
        hidden[:, 3:6] = True
        tracks[name] = replace(tracks[name], values=tracks[name].values.float().requires_grad_(), hidden=hidden)
    encoded = encoder.encode(replace(batch, tracks=tracks))
    sum(pooled.square().sum() for pooled in encoded.pooled.values()).backward()
    for name in ("audio", "video"):
        track, grad = tracks[name], tracks[name].values.grad
        assert torch.all(grad[track.hidden | ~track.mask] == 0)
        seen = grad[track.mask & ~track.hidden].flatten(1).abs().sum(dim=-1) > 0
        assert seen.float().mean() > 0.9  # a frame may fall on the dead side of every ReLU


def test_a_hidden_word_is_not_seen_and_an_unhidden_one_is():
    encoder = build()
    text = fake_batch(SPECS).tracks["text"]
    hidden = torch.zeros_like(text.mask)
    hidden[:, 1] = True

    def pooled(values, hidden):
        return encoder.tower("text")(replace(text, values=values, hidden=hidden)).pooled

    other = text.values.clone()
    other[:, 1] = text.values[:, 1] % len(WORDS) + 1
    assert torch.equal(pooled(text.values, hidden), pooled(other, hidden))
    assert not torch.equal(pooled(text.values, None), pooled(other, None))


@pytest.mark.parametrize("towers", SYSTEMS)
def test_a_clip_is_encoded_alike_whatever_it_is_batched_with(towers):
    encoder = build(towers)
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (2,)})
    hidden = torch.rand(batch.tracks["audio"].mask.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    batch.tracks["audio"] = replace(batch.tracks["audio"], hidden=hidden)
    for name, track in batch.tracks.items():
        together = encoder.tower(name)(track)
        for clip in range(len(batch)):
            length = max(1, int(track.mask[clip].sum()))  # no padding at all
            alone = encoder.tower(name)(
                Track(
                    **{key: value[clip : clip + 1, :length] for key, value in vars(track).items() if value is not None}
                )
            )
            torch.testing.assert_close(alone.pooled[0], together.pooled[clip], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.sequence[0], together.sequence[clip, :length], rtol=0, atol=1e-5)
            assert torch.all(together.sequence[clip, length:] == 0)


@pytest.mark.parametrize("towers", SYSTEMS)
def test_the_order_of_steps_matters(towers):
    """Each tower tells a clip from the same steps backwards; a mean alone would not."""
    encoder = build(towers)
    for name, track in fake_batch(SPECS, num_clips=1).tracks.items():
        backwards = replace(track, values=track.values.flip(1))
        there, back = (encoder.tower(name)(one).pooled for one in (track, backwards))
        assert (there - back).abs().max() > 1e-4, name


@pytest.mark.parametrize("towers", SYSTEMS)
def test_activation_checkpointing_changes_no_gradient(towers):
    gradients, recomputed = [], 0
    for on in (False, True):
        encoder = build(towers).train()
        for module in encoder.modules():  # as the engine does
            if hasattr(module, "activation_checkpointing"):
                module.activation_checkpointing = on
                recomputed += on
        sum(pooled.square().sum() for pooled in encoder.encode(fake_batch(SPECS)).pooled.values()).backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])  # every weight has one
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)
    assert recomputed == 3


def test_saved_encoder_loads_back_equal(tmp_path):
    encoder = build(seed=3)
    door.save_encoder(encoder, tmp_path / "encoder")
    loaded, batch = door.load(tmp_path / "encoder"), fake_batch(SPECS)
    fresh = door.untrained(tmp_path / "encoder", seed=1)
    assert (loaded.words, loaded.inputs, loaded.system) == (WORDS, SPECS, encoder.system)
    for name, pooled in encoder.encode(batch).pooled.items():
        assert torch.equal(loaded.encode(batch).pooled[name], pooled)
        assert not torch.equal(fresh.encode(batch).pooled[name], pooled)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        pytest.param("r2plus1d", (8, 8, 3), "uint8", marks=pytest.mark.slow),  # 31 M weights
        ("st_gcn", (68, 2), "float32"),
    ],
)
def test_the_papers_video_towers_come_back_without_the_weights_that_they_started_from(tmp_path, name, shape, dtype):
    spec = FeatureSpec(name="x", modality="video", version=1, rate_hz=10.0, shape=shape, dtype=dtype)
    settings = {"weights": "KINETICS400_V1"} if name == "r2plus1d" else {"channels": [4, 8]}
    system = configs.load(SystemConfig, {"pairwise": {"audio": TCN, "video": {name: settings}, "width": 12}})
    encoder = door.build(system, {**SPECS, "video": spec}, ()).eval()
    batch = fake_batch(encoder.inputs, num_clips=2, absent={"video": (1,)})
    door.save_encoder(encoder, tmp_path / "encoder")
    pooled = encoder.encode(batch).pooled["video"]
    assert pooled.abs().sum(dim=1).gt(0).tolist() == [True, False]
    assert torch.equal(door.load(tmp_path / "encoder").encode(batch).pooled["video"], pooled)


def test_the_papers_text_tower_has_the_size_of_torchs():
    encoder = door.build(configs.load(SystemConfig, {"pairwise": {"text": {"transformer": {}}}}), SPECS, WORDS)
    layer = torch.nn.TransformerEncoderLayer(300, 5)
    expected = 6 * sum(p.numel() for p in layer.parameters()) + 21 * 300 + 300 * 512 + 512
    assert sum(p.numel() for p in encoder.parameters()) == expected


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ({}, "give a tower to one or more of text, audio, video"),
        ({"audio": {}}, "give exactly one of tcn, frames, encoder, wav2vec_large, stored; given: none"),
        ({"audio": {**TCN, **LIGHT}}, "given: tcn, frames"),
        ({"audio": {"tcn": {"kernel": 4}}}, "must be odd"),
    ],
)
def test_mistakes_are_refused(towers, message):
    with pytest.raises(UserError, match=message):
        configs.load(SystemConfig, {"pairwise": towers})


def test_towers_without_their_input_are_refused():
    system = configs.load(SystemConfig, {"pairwise": {"text": {"transformer": SMALL}, "audio": TCN}})
    with pytest.raises(UserError, match=r"encoder\.pairwise: no feature is configured for audio"):
        door.build(system, {"text": SPECS["text"]}, WORDS)
    with pytest.raises(UserError, match="the vocabulary is empty"):
        door.build(system, SPECS, ())


def test_masked_words_have_no_place_without_an_anchor():
    with pytest.raises(ValueError, match=r"use encoder\.cross_modal"):
        MaskedLMConfig().build(build(), seed=0)
