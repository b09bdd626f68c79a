"""The encoder half of CAE-LR."""

from dataclasses import replace

import pytest
import torch

from triptych import config as configs
from triptych.batch import Batch, Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.autoencoder import AutoencoderConfig, rows_of, squeezed_length
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


def build(seed=0, specs=SPECS, **settings):
    torch.manual_seed(seed)
    given = {"first_channels": 4, "word_width": 12, **settings}
    return door.build(configs.load(SystemConfig, {"autoencoder": given}), specs, WORDS).eval()


def test_the_code_has_the_sizes_of_the_authors_code():
    """15 maps: 225 numbers of sound and words, as a layer of theirs takes; 15 x 17 with the picture."""
    facet = {"shape": (35,), "dtype": "float32"}
    covarep = {"shape": (74,), "dtype": "float32"}
    specs = {**SPECS, "audio": replace(SPECS["audio"], **covarep), "video": replace(SPECS["video"], **facet)}
    papers = {"first_channels": 32, "word_width": 300}
    assert build(specs=specs, modalities=("text", "audio"), **papers).widths["fused"] == 225
    encoder = build(specs=specs, **papers)
    assert encoder.widths["fused"] == 255
    batch = fake_batch(specs, num_clips=1)
    with torch.no_grad():
        assert encoder.encode(batch).pooled["fused"].shape == (1, 255)


def test_any_subset_encodes():
    encoder = build()
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (0, 1, 2)})
    encoded = encoder.encode(batch)
    assert dict(encoder.widths) == {name: pooled.shape[1] for name, pooled in encoded.pooled.items()}
    for name, present in encoded.present.items():
        expected = torch.ones(4, dtype=torch.bool) if name == "fused" else batch.tracks[name].present
        assert torch.equal(present, expected)
        assert torch.equal(encoded.pooled[name].abs().sum(dim=1) > 0, present)
    for subset in (("text",), ("audio",), ("audio", "video")):
        part = encoder.encode(replace(batch, tracks={name: batch.tracks[name] for name in subset}))
        assert set(part.pooled) == {*subset, "fused"}
        for name in subset:
            torch.testing.assert_close(part.pooled[name], encoded.pooled[name])
        # a modality that the batch does not carry, and one that no clip of it has, are the same
        torch.testing.assert_close(part.pooled["fused"], encoder.encode(batch.keep(subset)).pooled["fused"])
    assert set(encoder.encode(batch, fuse=False).pooled) == set(SPECS)
    with pytest.raises(ValueError, match="none of text, audio, video"):
        encoder.encode(replace(batch, tracks={}))


def test_a_clip_is_encoded_alike_whatever_it_is_batched_with():
    encoder = build()
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (2,)})
    together = encoder.encode(batch).pooled
    for clip in range(len(batch)):
        tracks = {}
        for name, track in batch.tracks.items():
            length = max(1, int(track.mask[clip].sum()))  # no padding at all
            parts = (getattr(track, part)[clip : clip + 1, :length] for part in ("values", "mask", "times"))
            tracks[name] = Track(**dict(zip(("values", "mask", "times"), parts, strict=True)))
        alone = encoder.encode(Batch(keys=("a",), epochs=(0,), tracks=tracks)).pooled
        for name, pooled in alone.items():
            torch.testing.assert_close(pooled[0], together[name][clip], rtol=0, atol=1e-5)


def test_padding_and_hidden_steps_have_exactly_no_influence():
    encoder = build()
    batch = fake_batch(SPECS)
    tracks = dict(batch.tracks)
    for name in ("audio", "video"):
        hidden = torch.zeros_like(tracks[name].mask)
        hidden[:, 3:6] = True
        values = tracks[name].values.float().requires_grad_()
        tracks[name] = replace(tracks[name], values=values, hidden=hidden)
    squeezed = encoder.squeeze(tracks)
    squeezed.matrix.square().sum().backward()
    for name in ("audio", "video"):
        track, grad = tracks[name], tracks[name].values.grad
        assert torch.all(grad[track.hidden | ~track.mask] == 0)
        assert grad.abs().sum() > 0


def test_a_row_is_a_word_with_what_was_heard_and_seen_meanwhile():
    encoder = build()
    batch = fake_batch(SPECS, num_clips=1)
    squeezed = encoder.squeeze(batch.tracks)
    text, audio = batch.tracks["text"], batch.tracks["audio"]
    start, end = text.times[0, 2].tolist()  # .6 to .85 s
    heard = [
        audio.values[0, step]
        for step, (first, last) in enumerate(audio.times[0].tolist())
        if first < end and last > start
    ]
    row = squeezed.matrix[0, 2]
    assert torch.equal(row[:12], encoder.word_input.vectors.weight[text.values[0, 2]])
    torch.testing.assert_close(row[12:20], torch.stack(heard).mean(dim=0))
    assert squeezed.real["audio"][0].tolist() == [True] * 6 + [False] * 14
    assert not squeezed.matrix[0, 6:].any()


def test_what_was_said_later_than_the_last_row_is_left_out():
    batch = fake_batch(SPECS, num_clips=1, num_words=25)
    squeezed = build().squeeze(batch.tracks)
    assert squeezed.real["text"].shape == (1, 20)
    assert squeezed.real["text"].all()


def test_a_clip_without_words_has_rows_of_equal_length_up_to_its_end():
    batch = fake_batch(SPECS, num_clips=2, absent={"text": (1,)})  # of 1.8 s; the second 50 and 40 ms shorter
    rows = rows_of(batch.tracks, AutoencoderConfig(row_s=0.5))
    assert rows.mask.sum(dim=1).tolist() == [6, 4]
    torch.testing.assert_close(rows.times[1, :3], torch.tensor([[0.0, 0.5], [0.5, 1.0], [1.0, 1.5]]))
    assert torch.equal(rows.times[0, :6], batch.tracks["text"].times[0])
    assert not rows_of({"text": batch.tracks["text"]}, AutoencoderConfig()).mask[1].any()


def test_words_vectors_are_not_trained_and_all_else_is():
    encoder = build()
    frozen = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert frozen == ["word_input.vectors.weight"]
    encoder.encode(fake_batch(SPECS)).pooled["fused"].square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == frozen


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
    ("settings", "message"),
    [
        ({"rows": 17}, "rows: 17 are too few for the four pools; give 18 or more"),
        ({"modalities": ["smell"]}, "must be some of text, audio, video"),
        ({"modalities": ["audio"]}, "8 numbers a step; four pools need 18 or more"),
        ({"row_s": 0.0}, "row_s above 0"),
    ],
)
def test_mistakes_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)
    assert squeezed_length(18) == 1
