import pytest
import torch
from torch import nn

from triptych.batch import fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.attention import Attention, Pairs, SingleQueries
from triptych.models.attention_maps import recorded, sides, stacks, weights
from triptych.models.blocks import Source, TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig

WIDTH, HEADS = 24, 3
INPUTS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(4,), dtype="float32"),
    "video": FeatureSpec(name="frames", modality="video", version=1, rate_hz=5.0, shape=(3,), dtype="float32"),
}
LACKS = {"audio": (1,), "video": (0, 2), "text": (3,)}
CORES = {name: CoreModality(width=8, max_steps=9, has_cls=name == "text") for name in ("text", "audio", "video")}


def cross_modal(width, anchor="text"):
    """Of wide heads, the side of sound and picture is never projected."""
    transformer = TransformerConfig(width=width, layers=2, heads=2, feedforward=8)
    config = CrossModalConfig(anchor=anchor, transformer=transformer, positions="seconds")
    torch.manual_seed(0)
    return build(SystemConfig(cross_modal=config), INPUTS, ("a", "b")).eval()


@pytest.mark.parametrize("short", [None, "queries", "keys"])
@pytest.mark.parametrize("lengths", [([4, 0, 1, 3], [5, 0, 9, 2]), ([30, 2], [3, 40])])
def test_the_weights_are_those_of_torchs_attention(short, lengths):
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    nn.init.normal_(reference.in_proj_bias)
    ours = Attention(WIDTH, HEADS, 0.1, short).double()
    for part, weight, bias in zip(
        (ours.query, ours.key), reference.in_proj_weight.chunk(3), reference.in_proj_bias.chunk(3), strict=False
    ):
        part.load_state_dict({"weight": weight, "bias": bias})
    x, keys = (torch.randn(sum(side), WIDTH, dtype=torch.float64) for side in lengths)
    found = weights(ours, x, keys, Pairs(*lengths, torch.device("cpu")))
    assert sorted(found) == [clip for clip, steps in enumerate(lengths[0]) if steps]
    split = x.split(lengths[0]), keys.split(lengths[1])
    for clip, values in found.items():
        q, k = split[0][clip], split[1][clip]
        expected = reference(q, k, k, average_attn_weights=False)[1].float()
        torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(("width", "anchor"), [(8, "text"), (64, "each")])
@torch.no_grad()
def test_a_recorded_encoder_says_the_same_and_its_rows_sum_to_1(width, anchor):
    encoder, batch = cross_modal(width, anchor), fake_batch(INPUTS, vocabulary_size=2, absent=LACKS)
    before = encoder.encode(batch)
    with recorded(encoder) as maps:
        during = encoder.encode(batch)
    for name, pooled in before.pooled.items():
        torch.testing.assert_close(during.pooled[name], pooled, rtol=0, atol=1e-6)
    steps = {name: track.mask.sum(dim=1).tolist() for name, track in batch.tracks.items()}
    for stack, layers in maps.items():
        queries, keys = sides(stack, INPUTS, encoder.anchors)
        for clips in layers:
            assert set(clips) == {clip for clip in range(4) if steps[queries][clip] and steps[keys][clip]}
            for clip, values in clips.items():
                assert values.shape == (2, steps[queries][clip], steps[keys][clip])
                torch.testing.assert_close(values.sum(dim=-1), torch.ones(values.shape[:2]))
    assert all(not module._forward_pre_hooks for module in encoder.modules())


def test_stacks_are_called_as_in_the_model():
    towers = ["towers.text", "towers.audio", "towers.video"]
    assert list(stacks(cross_modal(8))) == [*towers, "cross.audio", "cross.video"]
    assert [len(layers) for layers in stacks(cross_modal(8)).values()] == [2] * 5
    model = nn.ModuleDict({"alone": Attention(8, 2, 0.0), "layers": nn.ModuleList([nn.Module(), nn.Module()])})
    for layer in model["layers"]:
        layer.own, layer.other = Attention(8, 2, 0.0), Attention(8, 2, 0.0)
    assert {name: len(layers) for name, layers in stacks(model).items()} == {
        "alone": 1,
        "layers.own": 2,
        "layers.other": 2,
    }


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ("cross.audio", ("text", "audio")),
        ("cross.audio_to_video", ("video", "audio")),
        ("head.inter_modal.text_from_audio", ("text", "audio")),
        ("self_attention.audio.layers", ("audio", "audio")),
        ("layers", None),
    ],
)
def test_names_tell_who_attends_to_whom(stack, expected):
    assert sides(stack, INPUTS, ("text",)) == expected


@torch.no_grad()
def test_a_cls_attends_to_the_real_steps_of_the_clips_that_have_them():
    torch.manual_seed(0)
    model = SseFt(SseFtConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8), CORES, 1).eval()
    lengths = {"text": [3, 2], "audio": [5, 0], "video": [2, 4]}
    sources = {
        name: Source(torch.randn(2, 5, 8), torch.arange(5) < torch.tensor(steps)[:, None])
        for name, steps in lengths.items()
    }
    before = model(sources).outputs
    with recorded(model) as maps:
        torch.testing.assert_close(model(sources).outputs, before, rtol=0, atol=1e-6)
    for values in maps["inter_modal.text_from_audio"]:
        assert set(values) == {0}  # clip 1 has no sound
        assert values[0].shape == (2, 1, 1 + 5)  # the sound's own CLS is its first step
        torch.testing.assert_close(values[0].sum(dim=-1), torch.ones(2, 1))
    assert maps["inter_modal.video_from_text"][0][1].shape == (2, 1, 2)
    assert maps["self_attention.video.layers"][0][1].shape == (2, 5, 5)


def test_steps_with_holes_are_the_real_ones():
    attention = Attention(8, 2, 0.0)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    keys = torch.randn(2, 3, 8)
    found = weights(attention, torch.ones(2, 8), keys, SingleQueries(mask))
    packed = weights(attention, torch.ones(1, 8), keys[0][mask[0]], Pairs([1], [2], torch.device("cpu")))
    assert list(found) == [0]
    torch.testing.assert_close(found[0], packed[0])
