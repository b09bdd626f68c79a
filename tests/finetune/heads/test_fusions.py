"""The heads that fuse the towers, on a tiny encoder of three."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from finetune.heads.attention import AttentionConfig
from finetune.heads.config import HeadConfig
from finetune.heads.late_fusion import LateFusionConfig
from finetune.heads.mult import MultHeadConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from triptych import config as configs
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.encoder import Encoded
from triptych.models.load import SystemConfig
from triptych.models.towers.tower import TowerOutput

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64", max_length=9),
    "audio": FeatureSpec(name="a", modality="audio", version=1, rate_hz=5, shape=(3,), dtype="float32", max_length=20),
    "video": FeatureSpec(name="v", modality="video", version=1, rate_hz=4, shape=(5,), dtype="float32", max_length=20),
}  # fmt: skip
SHOWN = tuple(SPECS)
TOWERS = {
    name: {"layers": 1, "heads": 2, "feedforward": 8, "width": width, "dropout": 0.0}
    for name, width in (("text", 16), ("audio", 12), ("video", 8))
}
QUIET = {"feedforward": 10, "dropout": 0.0, "self_attention_heads": 2, "inter_modal_heads": 2}
MULT = MultHeadConfig(width=4, layers=2, heads=2, dropout=0.0, embedding_dropout=0.0)
WITH_CLS = "sse_ft with the text's own CLS"
HEADS = {
    "late_fusion": LateFusionConfig(hidden=6, dropout=0.0),
    "late_fusion of logits": LateFusionConfig(join="logits", hidden=0, dropout=0.0),
    "attention": AttentionConfig(width=10, heads=2, hidden=6, dropout=0.0),
    "sse_ft": SseFtHeadConfig(**QUIET, self_attention_blocks=1, inter_modal_blocks=1),
    WITH_CLS: SseFtHeadConfig(**QUIET, fusion="concatenation"),
    "mult": MULT,
    "mult of means": replace(MULT, pool="mean"),
}
ON_SEQUENCES = [name for name in HEADS if name.startswith(("sse_ft", "mult"))]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    towers = {
        "text": {"transformer": TOWERS["text"]},
        "audio": {"frames": {"transformer": TOWERS["audio"]}},
        "video": {"frames": {"transformer": TOWERS["video"]}},
    }
    system = configs.load(SystemConfig, {"pairwise": {"width": 10, **towers}})
    return door.build(system, SPECS, tuple(f"w{i}" for i in range(20))).eval()


def head_of(name, encoder, shown=SHOWN, num_outputs=2):
    """With weights far from the start, so that everything counts."""
    torch.manual_seed(0)
    with patch.object(encoder.tower("text"), "has_cls", name == WITH_CLS):
        head = HEADS[name].build(encoder, shown, num_outputs, None).eval()
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return head


def only(batch, clip):
    """That clip alone, without padding but for one step of a modality that it lacks."""
    tracks = {}
    for name, track in batch.tracks.items():
        real = max(1, int(track.mask[clip].sum()))
        parts = {field: getattr(track, field)[clip : clip + 1, :real] for field in ("values", "mask", "times")}
        tracks[name] = replace(track, **parts)
    return replace(batch, keys=batch.keys[clip : clip + 1], epochs=(0,), tracks=tracks)


@pytest.mark.parametrize("name", HEADS)
def test_a_clip_is_told_the_same_in_any_batch_whatever_it_lacks(name, encoder):
    head = head_of(name, encoder)
    batch = fake_batch(SPECS, absent={"text": (1, 3), "audio": (2, 3), "video": (2,)}, num_clips=5)
    with torch.no_grad():
        together = head(encoder.encode(batch, fuse=head.fuses), batch)
        assert together.shape == (5, 2)
        for clip in range(5):
            alone = only(batch, clip)
            torch.testing.assert_close(head(encoder.encode(alone), alone)[0], together[clip], rtol=0, atol=2e-5)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", HEADS)
def test_what_a_batch_does_not_carry_is_what_its_clips_lack(name, encoder):
    head, batch = head_of(name, encoder), fake_batch(SPECS)
    hidden = batch.keep(("audio",))
    without = replace(batch, tracks={"audio": batch.tracks["audio"]})
    with torch.no_grad():
        torch.testing.assert_close(head(encoder.encode(without), without), head(encoder.encode(hidden), hidden))


@pytest.mark.parametrize("name", HEADS)
def test_all_weights_learn_from_whole_clips_and_none_breaks_on_empty_ones(name, encoder):
    head, batch = head_of(name, encoder), fake_batch(SPECS, absent=dict.fromkeys(SPECS, (3,)))
    head(encoder.encode(batch), batch)[:3].square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in head.parameters())
    head.zero_grad()
    nothing = batch.keep(())
    assert head(encoder.encode(nothing), nothing).isfinite().all()


@pytest.mark.parametrize("name", ON_SEQUENCES)
def test_padding_has_a_gradient_of_exactly_0(name, encoder):
    head = head_of(name, encoder)
    batch = fake_batch(SPECS, absent={"audio": (1,)})
    encoded = encoder.encode(batch)
    towers = {
        modality: TowerOutput(
            sequence=torch.randn_like(tower.sequence).requires_grad_(), mask=tower.mask, pooled=tower.pooled
        )
        for modality, tower in encoded.towers.items()
    }
    head(Encoded(pooled=encoded.pooled, present=encoded.present, towers=towers), batch).square().sum().backward()
    for tower in towers.values():
        assert torch.all(tower.sequence.grad[~tower.mask] == 0)
        assert torch.all(tower.sequence.grad[tower.mask].abs().sum(dim=1) > 0)


def test_logits_are_averaged_over_the_modalities_that_a_clip_has(encoder):
    batch = fake_batch(SPECS, absent={"text": (0,)})
    head = head_of("late_fusion of logits", encoder)
    encoded = encoder.encode(batch)
    each = {name: head.classifiers[name](encoded.pooled[name]) for name in SPECS}
    said = head(encoded, batch)
    torch.testing.assert_close(said[0], (each["audio"] + each["video"])[0] / 2)
    torch.testing.assert_close(said[1], sum(each.values())[1] / 3)


@pytest.mark.parametrize("name", HEADS)
def test_one_modality_is_read_alone(name, encoder):
    head = head_of(name, encoder, shown=("video",))
    batch = fake_batch(SPECS)
    with torch.no_grad():
        first = head(encoder.encode(batch), batch)
        other = fake_batch(SPECS, seed=1)
        mixed = replace(other, tracks={**other.tracks, "video": batch.tracks["video"]})
        torch.testing.assert_close(head(encoder.encode(mixed), mixed), first)


def linear(inputs, outputs):
    return inputs * outputs + outputs


def count(head):
    return sum(weight.numel() for weight in head.parameters())


def test_the_baselines_have_the_weights_counted_by_hand(encoder):
    assert count(head_of("late_fusion", encoder)) == linear(30, 6) + linear(6, 2)
    assert count(head_of("late_fusion", encoder, shown=("audio",))) == linear(10, 6) + linear(6, 2)
    assert count(head_of("late_fusion of logits", encoder)) == 3 * linear(10, 2)
    assert count(head_of("attention", encoder)) == 4 * linear(10, 10) + linear(10, 6) + linear(6, 2)
    wider = replace(HEADS["attention"], width=12).build(encoder, SHOWN, 2, None)
    assert count(wider) == 3 * linear(10, 12) + 4 * linear(12, 12) + linear(12, 6) + linear(6, 2)


def test_the_ablations_of_sse_ft_have_the_weights_counted_by_hand(encoder):
    """Towers of 16, 12 and 8; the text with a CLS of its own, as in the paper; two layers of everything."""
    width = {"text": 16, "audio": 12, "video": 8}

    def layer(query, source):
        feedforward = linear(query, 10) + linear(10, query)
        return 2 * linear(query, query) + 2 * linear(source, query) + 4 * query + feedforward

    def in_front(name):  # CLS, 1 + 20 positions, a norm, two layers
        return 0 if name == "text" else (1 + 21 + 2) * width[name] + 2 * layer(width[name], width[name])

    def expected(*names, stacks=True, products=True):
        pairs = [(one, other) for one in names for other in names if one != other] if stacks else []
        fused = sum(width[name] for name in names) if products else sum(width[one] for one, _ in pairs)
        return (
            sum(in_front(name) for name in names)
            + sum(2 * layer(width[one], width[other]) for one, other in pairs)
            + linear(fused, fused)
            + linear(fused, 7)
        )

    def found(*names, has_cls=True, **settings):
        with patch.object(encoder.tower("text"), "has_cls", has_cls):
            return count(SseFtHeadConfig(**QUIET, **settings).build(encoder, names, 7, None))

    for names in (("text",), ("audio",), ("video",), ("text", "audio"), ("text", "video"), ("audio", "video"), SHOWN):
        assert found(*names) == expected(*names)
    assert found(*SHOWN, fusion="cls") == expected(*SHOWN, stacks=False)
    assert found(*SHOWN, fusion="concatenation") == expected(*SHOWN, products=False)
    # without a CLS of its own the text gets one: 1 + 9 positions beside it, and self-attention as the others
    assert found(*SHOWN, has_cls=False) == expected(*SHOWN) + (1 + 10 + 2) * 16 + 2 * layer(16, 16)
    assert found("audio", max_steps={"audio": 30}) == expected("audio") + 10 * 12


@pytest.mark.parametrize("name", HEADS)
def test_series_are_refused(name, encoder):
    with pytest.raises(UserError, match=r"10 numbers a second; take head\.linear"):
        HEADS[name].build(encoder, SHOWN, 2, 10.0)


def test_mistakes_are_told_in_one_sentence(encoder):
    for settings, message in (
        ({"max_steps": {"vido": 5}}, "Did you mean video"),
        ({"self_attention_heads": 5}, "the tower of text is 16 wide"),
    ):
        with pytest.raises(UserError, match=message):
            SseFtHeadConfig(**{**QUIET, **settings}).build(encoder, SHOWN, 2, None)
    with (
        patch.object(encoder.tower("text"), "has_cls", True),
        pytest.raises(UserError, match=r"max_steps\.text: without"),
    ):
        SseFtHeadConfig(**QUIET, max_steps={"text": 9}).build(encoder, SHOWN, 2, None)
    with pytest.raises(UserError, match="7 do not divide"):
        AttentionConfig(heads=7).build(encoder, SHOWN, 2, None)
    short = SseFtHeadConfig(**QUIET, max_steps={"audio": 4}).build(encoder, SHOWN, 2, None)
    batch = fake_batch(SPECS)
    with pytest.raises(UserError, match=r"max_steps\.audio: 4, and the tower gives 9 steps"):
        short(encoder.encode(batch), batch)


def test_a_config_names_them(encoder):
    with patch("triptych.models.sse_ft.SseFt._start"):  # its drawing takes a while
        for name in ("late_fusion", "attention", "sse_ft", "mult"):
            settings = {"heads": 2, "width": 4} if name in ("mult", "attention") else {}
            settings = {"self_attention_heads": 2, "inter_modal_heads": 2} if name == "sse_ft" else settings
            chosen = configs.load(HeadConfig, {name: settings})
            assert chosen.name == name
            assert not chosen.build(encoder, SHOWN, 2, None).fuses
    with pytest.raises(UserError, match="head: give one"):
        configs.load(HeadConfig, {"mult": {}, "sse_ft": {}})
