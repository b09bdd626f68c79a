"""The layers of every tower: what a probe may read beside the sequence."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from triptych import config as configs
from triptych.batch import Batch, Track, fake_batch
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.load import SystemConfig
from triptych.models.towers import r2plus1d

WORDS = ("happy", "sad", "unhappy", "zoo", "a")
SMALL = {"width": 16, "layers": 2, "heads": 2, "feedforward": 32}
LIGHT = {"frames": {"transformer": SMALL}}


def spec(modality, rate_hz, shape, dtype="float32"):
    return FeatureSpec(name="x", modality=modality, version=1, rate_hz=rate_hz, shape=shape, dtype=dtype)


TEXT, SOUND, PIXELS = spec("text", None, (), "int64"), spec("audio", 20.0, (8,)), spec("video", 10.0, (32, 32), "uint8")
LANDMARKS = spec("video", 25.0, (68, 2))
TOWERS = {
    "transformer": ("text", {"transformer": SMALL}, TEXT, [16] * 3),
    "text encoder": ("text", {"encoder": {"model": "bert"}}, TEXT, [16] * 3),
    "frames": ("audio", LIGHT, SOUND, [16] * 3),
    "tcn": ("audio", {"tcn": {"bottleneck": 8, "hidden": 16, "blocks": 2, "repeats": 1}}, SOUND, [8] * 3),
    "st_gcn": ("video", {"st_gcn": {"channels": [8, 16]}}, LANDMARKS, [2, 8, 16]),
    "r2plus1d": ("video", {"r2plus1d": {"weights": "random", "frames": 4}}, PIXELS, [64, 64, 128, 256, 512]),
}
"""Name -> modality, settings, feature, the layers' widths."""


@pytest.fixture(scope="module", params=[*TOWERS, "cross_modal"])
def tower(request, text_models):
    """A system with this tower, its modality and the widths of its layers."""
    patch = pytest.MonkeyPatch()
    patch.setattr(r2plus1d, "SIZE", 32)
    torch.manual_seed(0)
    if request.param == "cross_modal":
        system = {"cross_modal": {"transformer": SMALL}}
        modality, inputs, widths = "audio", {"text": TEXT, "audio": SOUND, "video": LANDMARKS}, [16] * 3
    else:
        modality, settings, feature, widths = TOWERS[request.param]
        if "encoder" in settings:
            settings = {"encoder": {"model": str(text_models / "bert")}}
        system, inputs = {"pairwise": {modality: settings, "width": 12}}, {modality: feature}
    yield door.build(configs.load(SystemConfig, system), inputs, WORDS).eval(), modality, widths
    patch.undo()


def batch_of(encoder):
    """Three clips of different lengths, the second without any modality."""
    absent = dict.fromkeys(encoder.inputs, (1,))
    return fake_batch(encoder.inputs, num_clips=3, vocabulary_size=len(WORDS), absent=absent)


def alone(batch: Batch, clip: int) -> Batch:
    """One clip without its padding."""
    tracks = {
        name: Track(
            values=track.values[clip : clip + 1, : track.mask[clip].sum()],
            mask=track.mask[clip : clip + 1, : track.mask[clip].sum()],
            times=track.times[clip : clip + 1, : track.mask[clip].sum()],
        )
        for name, track in batch.tracks.items()
    }
    return replace(batch, tracks=tracks, keys=batch.keys[clip : clip + 1], epochs=(0,))


@torch.no_grad()
def test_the_layers_lead_from_the_first_blocks_input_to_the_towers_sequence(tower):
    encoder, modality, widths = tower
    batch = batch_of(encoder)
    plain, encoded = encoder.encode(batch), encoder.encode(batch, layers=True)
    layers = encoded.layers[modality]
    assert not plain.layers
    assert set(encoded.layers) == set(encoder.inputs)
    assert [layer.sequence.shape[2] for layer in layers] == widths
    assert torch.equal(layers[-1].sequence, encoded.towers[modality].sequence)
    assert torch.equal(layers[-1].mask, encoded.towers[modality].mask)
    assert all(torch.equal(encoded.pooled[name], pooled) for name, pooled in plain.pooled.items())
    for before, after in pairwise(layers):
        assert before.mask.any(dim=1).tolist() == [True, False, True]
        assert before.sequence.shape != after.sequence.shape or not torch.equal(before.sequence, after.sequence)


@torch.no_grad()
def test_a_clips_layers_are_the_same_in_any_batch(tower):
    encoder, modality, _ = tower
    batch = batch_of(encoder)
    track = batch.tracks[modality]
    noise = torch.where(track.mask.view(track.mask.shape + (1,) * (track.values.dim() - 2)), track.values, 3)
    padded = replace(batch, tracks={**batch.tracks, modality: replace(track, values=noise)})
    for clip in (0, 2):
        own = encoder.encode(alone(batch, clip), layers=True).layers[modality]
        for there, here in zip(encoder.encode(padded, layers=True).layers[modality], own, strict=True):
            steps = here.mask.shape[1]
            torch.testing.assert_close(there.sequence[clip, :steps], here.sequence[0], rtol=0, atol=1e-5)
            assert there.mask[clip].tolist() == [True] * steps + [False] * (there.mask.shape[1] - steps)
            assert torch.all(there.sequence[~there.mask] == 0)
