from dataclasses import replace

import pytest
import torch

from triptych.batch import Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.inputs import InputConfig
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


def build(seed=0, normalize=False, **settings):
    torch.manual_seed(seed)
    config = CrossModalConfig(
        transformer=TransformerConfig(width=16, layers=2, heads=2, feedforward=32, dropout=0.0),
        input=InputConfig(word_width=12, frame_hidden=8, convolution=3, normalize=normalize),
        **settings,
    )
    return door.build(SystemConfig(cross_modal=config), SPECS, WORDS).eval()


@pytest.mark.parametrize("positions", ["index", "seconds"])
def test_fused_sequence_has_the_anchors_length_and_any_subset_encodes(positions):
    encoder = build(positions=positions)
    batch = fake_batch(SPECS, absent={"audio": (1,)})
    encoded = encoder.encode(batch)
    assert {name: tuple(one.sequence.shape) for name, one in encoded.fused.items()} == {"text": (4, 6, 16)}
    assert set(encoded.pooled) == {"text", "audio", "video", "fused"}
    assert encoded.present["audio"].tolist() == [True, False, True, True]
    assert torch.all(encoded.pooled["audio"][1] == 0)
    for subset in (("text",), ("audio",), ("video",), ("audio", "video"), ("text", "video")):
        part = encoder.encode(replace(batch, tracks={name: batch.tracks[name] for name in subset}))
        assert ("fused" in part.pooled) == bool(part.fused) == ("text" in subset)
        for name in subset:  # a tower sees its own modality only
            torch.testing.assert_close(part.pooled[name], encoded.pooled[name])


def test_a_towers_sequence_is_what_its_pooled_vector_is_the_mean_of():
    batch, encoder = fake_batch(SPECS, absent={"audio": (1,)}), build()
    encoded = encoder.encode(batch)
    assert dict(encoder.sequence_widths) == {name: out.sequence.shape[2] for name, out in encoded.towers.items()}
    for name, output in encoded.towers.items():
        torch.testing.assert_close(encoded.pooled[name][0], output.sequence[0][output.mask[0]].mean(dim=0))
    towers = encoder.encode(batch, fuse=False)
    assert not towers.fused
    assert set(towers.pooled) == set(SPECS)
    assert all(torch.equal(towers.pooled[name], encoded.pooled[name]) for name in SPECS)


@pytest.mark.parametrize(
    ("anchor", "left"),
    [("text", ("text", "video")), ("audio", ("audio",)), ("each", ("audio", "video")), ("each", ("video",))],
)
def test_an_absent_modality_equals_one_that_the_batch_does_not_carry(anchor, left):
    encoder = build(anchor=anchor)
    batch = fake_batch(SPECS)
    absent = encoder.encode(batch.keep(left))
    without = encoder.encode(replace(batch, tracks={name: batch.tracks[name] for name in left}))
    torch.testing.assert_close(absent.pooled["fused"], without.pooled["fused"])
    assert absent.present["fused"].all()
    assert absent.pooled["fused"].abs().sum() > 0
    assert set(without.fused) == set(left) & set(encoder.anchors)
    for name, one in without.fused.items():
        torch.testing.assert_close(absent.fused[name].sequence, one.sequence)


def test_with_each_as_anchor_the_fused_output_is_the_mean_over_what_a_clip_has():
    encoder = build(anchor="each")
    absent = {"text": (0, 3), "audio": (1, 3), "video": (2, 3)}
    encoded = encoder.encode(fake_batch(SPECS, absent=absent))
    assert encoded.present["fused"].tolist() == [True, True, True, False]
    assert torch.all(encoded.pooled["fused"][3] == 0)
    for clip in range(3):
        means = [
            one.sequence[clip][one.mask[clip]].mean(dim=0) for one in encoded.fused.values() if one.mask[clip].any()
        ]
        assert len(means) == 2
        torch.testing.assert_close(encoded.pooled["fused"][clip], (means[0] + means[1]) / 2)


def test_every_ordered_pair_has_layers_of_its_own_and_a_single_anchor_keeps_its_names():
    assert set(build().cross) == {"audio", "video"}
    assert set(build(anchor="video").cross) == {"text", "audio"}
    pairs = {"audio_to_text", "video_to_text", "text_to_audio", "video_to_audio", "text_to_video", "audio_to_video"}
    encoder = build(anchor="each").train()
    assert set(encoder.cross) == pairs
    encoder.encode(fake_batch(SPECS)).pooled["fused"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(("normalize", "anchor"), [(False, "text"), (True, "text"), (True, "audio"), (True, "each")])
def test_padding_and_hidden_steps_have_exactly_no_influence(normalize, anchor):
    encoder = build(positions="seconds", normalize=normalize, anchor=anchor)
    batch = fake_batch(SPECS)
    hidden = torch.zeros_like(batch.tracks["audio"].mask)
    hidden[:, 3:6] = True
    audio = replace(batch.tracks["audio"], values=batch.tracks["audio"].values.float().requires_grad_(), hidden=hidden)
    encoded = encoder.encode(replace(batch, tracks={**batch.tracks, "audio": audio}))
    said = [one.sequence[one.mask].square().sum() for one in encoded.fused.values()]
    (sum(said) + sum(p.sum() for p in encoded.pooled.values())).backward()
    grad = audio.values.grad
    assert torch.all(grad[hidden] == 0)
    assert torch.all(grad[~audio.mask] == 0)
    seen = grad[audio.mask & ~hidden].abs().sum(dim=-1) > 0  # a frame may fall on the dead side of every ReLU
    assert seen.float().mean() > 0.9


@pytest.mark.parametrize(
    ("positions", "normalize", "anchor"),
    [("index", False, "text"), ("seconds", True, "text"), ("seconds", True, "each")],
)
def test_a_clip_is_encoded_alike_whatever_it_is_batched_with(positions, normalize, anchor):
    encoder = build(positions=positions, normalize=normalize, anchor=anchor)
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (2,)})
    hidden = torch.rand(batch.tracks["audio"].mask.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    batch.tracks["audio"] = replace(batch.tracks["audio"], hidden=hidden)
    together = encoder.encode(batch)
    for clip in range(len(batch)):
        alone = {}
        for name, track in batch.tracks.items():
            length = max(1, int(track.mask[clip].sum()))  # no padding at all
            alone[name] = Track(
                **{key: value[clip : clip + 1, :length] for key, value in vars(track).items() if value is not None}
            )
        encoded = encoder.encode(replace(batch, keys=batch.keys[clip : clip + 1], epochs=(0,), tracks=alone))
        for name, pooled in encoded.pooled.items():
            torch.testing.assert_close(pooled[0], together.pooled[name][clip], rtol=0, atol=1e-5)
        for name, one in encoded.fused.items():
            length = int(one.mask.sum())
            beside = together.fused[name].sequence[clip, :length]
            torch.testing.assert_close(one.sequence[0, :length], beside, rtol=0, atol=1e-5)


def test_key_projections_start_as_query_projections_in_seconds_only():
    def same(encoder):
        attention = encoder.cross["audio"][0].attention
        return torch.equal(attention.key.weight, attention.query.weight)

    assert same(build(positions="seconds"))
    assert not same(build(positions="index"))


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for on in (False, True):
        encoder = build().train()
        for module in encoder.modules():  # as the engine does
            if hasattr(module, "activation_checkpointing"):
                module.activation_checkpointing = on
        encoder.encode(fake_batch(SPECS)).pooled["fused"].square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_saved_encoder_loads_back_equal_and_damage_is_named(tmp_path):
    encoder = build(seed=3)
    door.save_encoder(encoder, tmp_path / "encoder")
    loaded = door.load(tmp_path / "encoder")
    batch = fake_batch(SPECS)
    assert torch.equal(loaded.encode(batch).pooled["fused"], encoder.encode(batch).pooled["fused"])
    assert loaded.words == WORDS
    assert loaded.inputs == SPECS
    fresh = door.untrained(tmp_path / "encoder", seed=1)
    assert not torch.equal(fresh.encode(batch).pooled["fused"], encoder.encode(batch).pooled["fused"])
    with pytest.raises(UserError, match="no encoder here"):
        door.load(tmp_path)
    weights = tmp_path / "encoder" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors: missing or damaged"):
        door.load(tmp_path / "encoder")


def test_paper_size_has_the_papers_parameter_count():
    """Five stacks of four layers: 4 (D^2 + D) of attention, 2 D F + D + F of feed-forward, two norms of 2 D each."""
    width, feedforward, words = 512, 200, 100
    config = SystemConfig(cross_modal=CrossModalConfig())
    encoder = door.build(config, SPECS, tuple(map(str, range(words))))
    layer = 4 * (width**2 + width) + 2 * width * feedforward + width + feedforward + 4 * width
    inputs = (words + 1) * 300 + 300 * width + 8 * width + 16 * width + 3 * width
    assert sum(p.numel() for p in encoder.parameters()) == 5 * 4 * layer + inputs


@pytest.mark.parametrize("anchor", ["text", "each"])
def test_leaving_out_projections_beside_words_changes_neither_the_weights_names_nor_the_numbers(anchor, monkeypatch):
    config = CrossModalConfig(
        transformer=TransformerConfig(width=64, layers=2, heads=2, feedforward=16), anchor=anchor, positions="seconds"
    )
    short = door.build(SystemConfig(cross_modal=config), SPECS, WORDS).eval()
    monkeypatch.setattr("triptych.models.cross_modal.FEW_WORDS", 33)
    plain = door.build(SystemConfig(cross_modal=config), SPECS, WORDS).eval()
    plain.load_state_dict(short.state_dict(), strict=True)
    kinds = [{layer.attention.short for layers in one.cross.values() for layer in layers} for one in (short, plain)]
    assert kinds == [{"queries"} if anchor == "text" else {"queries", "keys", None}, {None}]
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (2,)})
    pooled = [one.encode(batch).pooled["fused"] for one in (short, plain)]
    torch.testing.assert_close(*pooled, rtol=0, atol=1e-5)
    gradients = [
        torch.autograd.grad(vectors.square().sum(), [p for n, p in one.named_parameters() if "key.bias" not in n])
        for one, vectors in zip((short, plain), pooled, strict=True)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
