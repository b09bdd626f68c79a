"""SSE-FT's extractors as towers, with few channels; test_wav2vec_large and test_fab_net have the whole networks."""

import re
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.nn import functional

from shards.reading.encoders import open_encoder
from shards.words.words import Vocabulary
from triptych import config as configs
from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.towers import fab_net, wav2vec_large

STEP, SIDE = 160, 8
SETTINGS = (("max_s", 60.0), ("sample_rate_hz", 16000), ("step_samples", STEP))
SPECS = {
    "audio": FeatureSpec(
        name="waveform", modality="audio", version=1, rate_hz=100.0, shape=(STEP,), dtype="float16", settings=SETTINGS
    ),
    "video": FeatureSpec(name="faces", modality="video", version=1, rate_hz=5.0, shape=(SIDE, SIDE, 3), dtype="uint8"),
}
SHARDS = SimpleNamespace(vocabulary=lambda: Vocabulary(()))


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Files as they are published, and the towers' settings."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wav2vec_large, "WIDTH", 8)
        patch.setattr(fab_net, "CHANNELS", (4, 4, 4, 4, 4, 4, 4, 6))
        patch.setattr(fab_net, "WIDTH", 6)
        torch.manual_seed(0)
        sound = {name: torch.randn_like(x) * 0.3 for name, x in wav2vec_large.Wav2VecLarge().state_dict().items()}
        face = {name: torch.rand_like(x) - 0.4 * (x.dim() > 1) for name, x in fab_net.FabNet().state_dict().items()}
        sound["wav2vec_predictions.project_to_steps.bias"] = torch.zeros(8)
        face |= {"encoder.3.num_batches_tracked": torch.tensor(7), "decoder.2.weight": torch.zeros(3)}
        torch.save({"args": Namespace(arch="wav2vec"), "model": sound}, folder / "wav2vec_large.pt")
        torch.save({"state_dict_model": face}, folder / "affectnet_4views.pth")
        yield {
            "audio": {"wav2vec_large": {"weights": str(folder / "wav2vec_large.pt")}},
            "video": {"fab_net": {"weights": str(folder / "affectnet_4views.pth")}},
        }


def build(towers, specs=SPECS, width=0):
    system = configs.load(door.SystemConfig, {"pairwise": {"width": width, **towers}})
    return door.build(system, specs, ()).eval()


@pytest.fixture(scope="module")
def encoder(towers):
    encoder = build(towers)
    encoder.start()
    return encoder


def track(spec, lengths, clips):
    """Of the clips with these numbers, the same ones in any batch; what lies in the padding is nobody's."""
    mask = torch.arange(max(max(lengths), 1)) < torch.tensor(lengths)[:, None]
    values = torch.full((*mask.shape, *spec.shape), 77.0)
    for row, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        draw = torch.rand(64, *spec.shape, generator=torch.Generator().manual_seed(clip))
        values[row, :length] = draw[:length] - 0.5 if spec.modality == "audio" else (draw[:length] * 255).round()
    return Track(
        values=values.to(getattr(torch, spec.dtype)), mask=mask, times=torch.zeros(*mask.shape, 2), hidden=None
    )


LENGTHS = {"audio": (20, 7, 0, 2, 12), "video": (3, 0, 1, 2, 5)}


def batch(*clips):
    tracks = {name: track(SPECS[name], [LENGTHS[name][clip] for clip in clips], clips) for name in SPECS}
    return Batch(keys=tuple(map(str, clips)), epochs=(0,) * len(clips), tracks=tracks)


def by_hand(towers, clip):
    """[T, D] of each modality that the clip has, by the networks alone."""
    tracks, said = batch(clip).tracks, {}
    if length := LENGTHS["audio"][clip]:
        network = wav2vec_large.Wav2VecLarge.load("a", towers["audio"]["wav2vec_large"]["weights"])
        samples = functional.pad(tracks["audio"].values.float().flatten(1), (0, max(0, 465 - length * STEP)))
        said["audio"] = network(samples, [samples.shape[1]]).sequence[0]
    if LENGTHS["video"][clip]:
        network = fab_net.FabNet.load("v", towers["video"]["fab_net"]["weights"])
        pictures = tracks["video"].values[0].permute(0, 3, 1, 2).float() / 255
        pictures = functional.interpolate(pictures, size=(256, 256), mode="bilinear", antialias=True)
        said["video"] = network(pictures)
    return said


@pytest.fixture(scope="module")
def expected(towers):
    return [by_hand(towers, clip) for clip in range(5)]


@pytest.mark.parametrize("clips", [(0, 1, 2, 3, 4), (4, 2), (0,), (1,), (2,), (3,)])
def test_a_clip_gives_the_networks_numbers_in_any_batch(encoder, expected, clips):
    encoded = encoder.encode(batch(*clips))
    assert encoder.sequence_widths == encoder.widths == {"audio": 8, "video": 6}
    for name, output in encoded.towers.items():
        assert torch.all(output.sequence[~output.mask] == 0)
        for row, clip in enumerate(clips):
            wanted = expected[clip].get(name)
            assert bool(encoded.present[name][row]) == bool(output.mask[row].any()) == (wanted is not None)
            if wanted is None:
                assert torch.all(encoded.pooled[name][row] == 0)
                continue
            assert wanted.std() > 1e-3
            torch.testing.assert_close(output.sequence[row, output.mask[row]], wanted, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(encoded.pooled[name][row], wanted.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_layers_end_in_the_sequence(encoder):
    layers = encoder.encode(batch(0, 3, 2), layers=True)
    assert {name: len(steps) for name, steps in layers.layers.items()} == {"audio": 13, "video": 8}
    for name, steps in layers.layers.items():
        torch.testing.assert_close(steps[-1].sequence, layers.towers[name].sequence)
        assert torch.equal(steps[0].mask, layers.towers[name].mask)
        assert not torch.allclose(steps[-2].sequence.sum(), steps[-1].sequence.sum())


def test_what_is_hidden_is_not_seen(encoder):
    given = batch(0)
    tracks = {}
    for name, one in given.tracks.items():
        hidden = torch.zeros_like(one.mask)
        hidden[:, 1] = True
        tracks[name] = replace(one, hidden=hidden)
    other = {name: replace(one, values=one.values.clone()) for name, one in tracks.items()}
    for one in other.values():
        one.values[:, 1] = 1
    outputs = [encoder.encode(replace(given, tracks=some)).pooled for some in (tracks, other, given.tracks)]
    for name in SPECS:
        assert torch.equal(outputs[0][name], outputs[1][name])
        assert not torch.allclose(outputs[0][name], outputs[2][name])


def test_the_networks_are_frozen_and_the_layer_behind_them_trains(towers):
    encoder = build(towers, width=3)
    sum(pooled.sum() for pooled in encoder.encode(batch(0)).pooled.values()).backward()
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trained == {f"towers.{name}.output.{part}" for name in SPECS for part in ("weight", "bias")}
    assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)


def test_a_saved_encoder_needs_no_file(encoder, towers, tmp_path):
    gone = build({name: {tower: {"weights": "gone.pt"}} for name in towers for tower in towers[name]})
    gone.load_state_dict(encoder.state_dict())
    door.save_encoder(gone, tmp_path / "encoder")
    again = door.load(tmp_path / "encoder")
    wanted = encoder.encode(batch(0, 3)).pooled
    for name, pooled in again.encode(batch(0, 3)).pooled.items():
        assert torch.equal(pooled, wanted[name])


@pytest.mark.parametrize(("modality", "tower"), [("audio", "wav2vec_large"), ("video", "fab_net")])
def test_a_file_that_is_missing_or_anothers_is_one_error(towers, modality, tower, tmp_path):
    features = {"audio": {"waveform": {}}, "video": {"face_crops": {"size": 16}}}[modality]
    other = {"wav2vec_large": towers["video"]["fab_net"], "fab_net": towers["audio"]["wav2vec_large"]}[tower]
    for weights, said in (
        ("nowhere.pt", "there is no file 'nowhere.pt'"),
        (other["weights"], "(is no |holds something else)"),
    ):
        file = tmp_path / "mine.yaml"
        system = {"pairwise": {"width": 0, modality: {tower: {"weights": weights}}}}
        file.write_text(yaml.safe_dump({"system": system, "features": {modality: features}}))
        with pytest.raises(UserError, match=re.escape(f"{modality}.{tower}.weights: ") + f".*{said}"):
            open_encoder(str(file), SHARDS)


@pytest.mark.parametrize(
    ("modality", "change", "message"),
    [
        ("audio", {"name": "lfbe"}, "audio.wav2vec_large: takes waveform, not lfbe"),
        ("audio", {"settings": (("sample_rate_hz", 8000),)}, "16000 samples a second, and .* is 8000"),
        ("video", {"shape": (8, 6, 3)}, "video.fab_net: takes square pictures"),
    ],
)
def test_a_feature_that_does_not_fit_is_refused(towers, modality, change, message):
    specs = {**SPECS, modality: replace(SPECS[modality], **change)}
    with pytest.raises(UserError, match=message):
        build(towers, specs)
