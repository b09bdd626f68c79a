from unittest.mock import patch

import pytest
import torch

from linear_probe.blocks import Block
from linear_probe.sources import BAG_OF_WORDS, EncoderSource, InputMeans
from shards.words.words import Vocabulary
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.encoder import Encoded, Encoder, Fused
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig
from triptych.models.towers.tcn import TcnConfig
from triptych.models.towers.tower import Steps, TowerOutput
from triptych.models.towers.transformer_towers import TextTransformerConfig

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="bands", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32", mean=2.0, std=2.0
    ),
}
WORDS = tuple(f"word{number}" for number in range(20))


class Fake(Encoder):
    """Its towers say what is in the track and, as layer 0, twice that; "fused" counts what it was shown."""

    def __init__(self, anchors=()):
        super().__init__()
        self.inputs, self.words, self.anchors = SPECS, WORDS, anchors
        self.widths = {"text": 1, "audio": 3} | ({"fused": 2} if anchors else {})
        self.sequence_widths = {"text": 1, "audio": 3}
        self.passes = 0
        self.eval()

    def encode(self, batch, *, fuse=True, layers=False):
        self.passes += 1
        given = self.tracks(batch)
        outputs, kept = {}, {}
        for name, track in given.items():
            values = track.values.float().reshape(*track.mask.shape, -1)
            outputs[name] = TowerOutput(sequence=values, mask=track.mask, pooled=values.sum(1))
            # the picture of a tower with a CLS step in front
            first = torch.full_like(values[:, :1], 7)
            both = torch.cat([first, 2 * values], dim=1), torch.cat([track.present[:, None], track.mask], dim=1)
            kept[name] = (Steps(sequence=both[0], mask=both[1]), Steps(sequence=values, mask=track.mask))
        pooled = {name: output.pooled for name, output in outputs.items()}
        present = {name: track.present for name, track in given.items()}
        fused = {}
        if fuse and self.anchors:
            shown = torch.stack([present[name].float() for name in SPECS], dim=1)
            has = torch.stack([present[name] for name in self.anchors]).any(0)
            pooled["fused"], present["fused"] = shown * has[:, None], has
            for name in self.anchors:
                track = given[name]
                sequence = shown[:, None].expand(-1, track.mask.shape[1], -1)
                fused[name] = Fused(sequence=sequence, mask=track.mask, times=track.times)
        return Encoded(pooled=pooled, present=present, towers=outputs, fused=fused, layers=kept if layers else {})


def source(anchors=()):
    return EncoderSource(Fake(anchors), {"weights": 1})


def computed(given, batch, *blocks, num_rows=None):
    resolved = [given.resolve(block) for block in blocks]
    found = given.compute(batch, resolved, num_rows or [1] * len(batch))
    return [found[block] for block in resolved]


BOTH = ("text", "audio")


def test_one_forward_pass_serves_all_blocks_of_towers_that_do_not_fuse():
    given, batch = source(), fake_batch(SPECS)
    pooled, words, zero, last, first, stack = computed(
        given,
        batch,
        Block("audio", BOTH),
        Block("text", ("text",)),
        Block("audio", ("audio",), layer=0),
        Block("audio", ("audio",), layer=-1),
        Block("audio", ("audio",), layer=0, pooling="first"),
        Block("audio", ("audio",), layer="stack"),
    )
    assert given.encoder.passes == 2  # one of them to see which layers there are
    track = batch.tracks["audio"]
    means = torch.stack([clip[mask].mean(0) for clip, mask in zip(track.values, track.mask)])
    assert torch.allclose(last, means)
    assert torch.equal(pooled, track.values.sum(1))
    assert words[:, 0].tolist() == batch.tracks["text"].values.sum(1).tolist()
    assert torch.equal(first, torch.full((4, 3), 7.0))
    assert torch.equal(stack, torch.stack([zero, last], dim=1))


def test_a_cls_is_in_no_mean_and_no_step_of_a_series_and_is_what_comes_first():
    given, batch = source(), fake_batch(SPECS, absent={"audio": (1,)})
    blocks = [
        Block("audio", ("audio",), layer=0),
        Block("audio", ("audio",), layer=0, pooling="first"),
        Block("audio", ("audio",), layer=0, rate_hz=10),
    ]
    with patch.object(Fake, "modalities_with_cls", ("audio",)):
        mean, first, series = computed(given, batch, *blocks, num_rows=[1, 1, 1, 2])
    track = batch.tracks["audio"]
    rows = [2 * clip[mask] for clip, mask in zip(track.values, track.mask)]  # a step every tenth of a second
    for clip in (0, 2, 3):
        torch.testing.assert_close(mean[clip], rows[clip].mean(dim=0))
        assert first[clip].tolist() == [7, 7, 7]
    assert not mean[1].any()
    assert not first[1].any()
    zeros = torch.zeros(1, 3)
    torch.testing.assert_close(series, torch.cat([rows[0][:1], zeros, rows[2][:1], rows[3][:2]]))


def test_an_encoder_that_fuses_is_asked_once_for_each_set_of_modalities():
    given, batch = source(("text",)), fake_batch(SPECS)
    both, tower, words = computed(
        given, batch, Block("fused", BOTH), Block("audio", ("audio", "text")), Block("fused", ("text",))
    )
    assert given.encoder.passes == 2
    assert both.tolist() == [[1, 1]] * 4
    assert words.tolist() == [[1, 0]] * 4
    assert torch.equal(tower, batch.tracks["audio"].values.sum(1))


def test_blocks_that_mean_the_same_resolve_to_one():
    towers, fused = source(), source(("text",))
    assert towers.resolve(Block("audio", BOTH, layer=-1)) == towers.resolve(Block("audio", ("audio",), layer=1))
    assert fused.resolve(Block("fused", ("audio", "text"))) == Block("fused", BOTH)
    assert fused.resolve(Block("audio", ("audio",))) != fused.resolve(Block("audio", BOTH))
    for block in (Block("fused", ("audio",)), Block("text", ("audio",)), Block("audio", ())):
        assert fused.resolve(block).shown == ()  # zeros


def test_what_a_clip_lacks_is_zeros():
    batch = fake_batch(SPECS, absent={"audio": (2,)})
    blocks = [Block("audio", ("audio",), layer=layer, pooling=pool) for layer, pool in ((0, "first"), (1, "mean"))]
    for rows in computed(source(), batch, Block("audio", ("audio",)), *blocks):
        assert rows[2].eq(0).all()
        assert rows[[0, 1, 3]].ne(0).any(dim=1).all()


def test_rows_of_a_series_follow_the_clip():
    batch = fake_batch(SPECS, num_clips=2)
    rows, layer, stack, fused = computed(
        source(("text",)),
        batch,
        Block("audio", ("audio",), rate_hz=10),
        Block("audio", ("audio",), layer=1, rate_hz=10),
        Block("audio", ("audio",), layer="stack", rate_hz=10),
        Block("fused", ("text",), rate_hz=10),
        num_rows=[18, 17],
    )
    track = batch.tracks["audio"]
    assert torch.equal(rows, track.values[track.mask])  # the bands have that rate already
    assert torch.equal(layer, rows)
    assert stack.shape == (35, 2, 3)
    assert torch.equal(stack[:, 1], rows)
    assert fused.tolist() == [[1, 0]] * 35


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block("vidio", BOTH), "no output 'vidio'.* There are text, audio"),
        (Block("audio", ("adio",)), "Did you mean audio"),
        (Block("audio", BOTH, layer=2), "no layer 2; it has 0 to 1"),
        (Block("audio", BOTH, layer=-3), "no layer -3"),
        (Block("fused", BOTH, layer=0), "only towers have layers"),
        (Block("fused", BOTH, layer="stack"), "only towers have layers"),
        (Block("audio", BOTH, layer="moments"), "moments is of the inputs"),
    ],
)
def test_a_block_that_the_encoder_cannot_give_is_refused(block, message):
    with pytest.raises(UserError, match=message):
        source(("text",)).resolve(block)


def test_settings_that_do_not_go_together_are_refused():
    for settings in ({"pooling": "first"}, {"layer": 0, "pooling": "first", "rate_hz": 5.0}, {"rate_hz": 0.0}):
        with pytest.raises(UserError):
            Block("audio", BOTH, **settings)


def tiny_encoder(kind):
    transformer = TransformerConfig(width=8, layers=2, heads=2)
    system = {
        "one anchor": load.SystemConfig(
            cross_modal=CrossModalConfig(modalities=BOTH, anchor="text", transformer=transformer)
        ),
        "each anchor": load.SystemConfig(
            cross_modal=CrossModalConfig(modalities=BOTH, anchor="each", transformer=transformer)
        ),
        "towers": load.SystemConfig(
            pairwise=PairwiseConfig(
                text=TextTowerConfig(transformer=TextTransformerConfig(width=8, layers=2, heads=2, feedforward=8)),
                audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=8, hidden=16, blocks=2)),
                width=16,
            )
        ),
    }[kind]
    torch.manual_seed(0)
    return load.build(system, SPECS, WORDS).eval()


@pytest.mark.parametrize("kind", ["one anchor", "each anchor", "towers"])
def test_the_systems_give_every_block_whatever_else_is_read(kind):
    given = EncoderSource(tiny_encoder(kind), {})
    batch = fake_batch(SPECS, absent={"text": (1,), "audio": (3,)})
    layers = ["pooled", "stack", 0, -1] if kind != "towers" else ["pooled", 0, -1]
    blocks = [Block("audio", ("audio",), layer=layer) for layer in layers]
    blocks += [Block("fused", shown) for shown in (BOTH, ("text",), ("audio",)) if kind != "towers"]
    steps = [Block(block.output, block.shown, block.layer, rate_hz=4.0) for block in blocks]
    for wanted, num_rows in ((blocks, [1] * 4), (steps, [8, 7, 7, 6])):
        resolved = [block for block in map(given.resolve, wanted) if block.shown]
        with torch.no_grad():
            together = given.compute(batch, resolved, num_rows)
            for block in resolved:
                assert together[block].shape == (sum(num_rows), *given.shape(block))
                alone = type(batch)(
                    keys=batch.keys, epochs=batch.epochs, tracks={name: batch.tracks[name] for name in block.shown}
                )
                assert torch.allclose(given.compute(alone, [block], num_rows)[block], together[block], atol=1e-6)
                if block.output == "audio":
                    assert together[block][-num_rows[-1] :].eq(0).all()


def test_the_inputs_are_means_over_real_steps_and_word_counts():
    given = InputMeans(SPECS, Vocabulary(WORDS))
    batch = fake_batch(SPECS, absent={"audio": (2,)})
    counts, means, moments = computed(
        given, batch, Block("text", BOTH), Block("audio", BOTH), Block("audio", BOTH, layer="moments")
    )
    assert counts.shape == (4, BAG_OF_WORDS + 1)
    assert counts.sum(1).tolist() == batch.tracks["text"].mask.sum(1).tolist()
    audio = batch.tracks["audio"]
    real = audio.values[1][audio.mask[1]]
    assert torch.allclose(means[1], (real.mean(0) - 2) / 2)
    assert torch.equal(moments[:, :3], means)
    assert torch.allclose(moments[1, 3:], real.std(0, correction=0) / 2)
    assert moments[2].eq(0).all()


def test_the_inputs_of_a_series_are_read_by_step():
    given = InputMeans(SPECS, Vocabulary(WORDS))
    batch = fake_batch(SPECS, num_clips=1)
    words, bands = computed(
        given, batch, Block("text", BOTH, rate_hz=10), Block("audio", BOTH, rate_hz=5), num_rows=[9]
    )
    assert words.sum(1).tolist() == [1] * 9
    assert torch.allclose(bands, (batch.tracks["audio"].values[0].reshape(9, 2, 3).mean(1) - 2) / 2, atol=1e-6)


@pytest.mark.parametrize(
    "block", [Block("text", BOTH, "moments"), Block("audio", BOTH, "moments", rate_hz=5.0), Block("audio", BOTH, 0)]
)
def test_what_the_inputs_do_not_have_is_refused(block):
    with pytest.raises(UserError, match="moments"):
        InputMeans(SPECS, Vocabulary(WORDS)).resolve(block)
