"""Small networks of both libraries with random weights, as published ones are: no weights are downloaded."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from triptych import config as configs
from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.towers import image_model
from triptych.models.towers.hub_model import hub_models

COLOUR = FeatureSpec(name="faces", modality="video", version=1, rate_hz=5.0, shape=(32, 32, 3), dtype="uint8")
GREY = replace(COLOUR, name="face_crops", shape=(32, 32))
NETWORKS = {
    # library, model: width, blocks
    ("torchvision", "resnet18"): (512, 4),
    ("torchvision", "mobilenet_v3_small"): (1024, 13),
    ("timm", "test_vit"): (64, 6),
    ("timm", "test_convnext"): (64, 4),
}
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


def whole(library, model):
    """The network as its library makes it, with its classifier."""
    if library == "timm":
        import timm

        return timm.create_model(model)
    from torchvision import models

    return models.get_model(model)


@pytest.fixture(scope="module", params=NETWORKS, ids=":".join)
def network(request, tmp_path_factory):
    """Library, model, the network and a file of its weights, which are no fresh ones."""
    torch.manual_seed(0)
    made = whole(*request.param)
    for module in made.modules():  # statistics as a training leaves them, else a deep network forgets its picture
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 64, 64) if "vit" not in request.param[1] else torch.randn(4, 3, 160, 160))
    made.eval()
    file = tmp_path_factory.mktemp("weights") / f"{request.param[1]}.safetensors"
    save_file(made.state_dict(), file)
    return (*request.param, made, file)


def build(library, model, weights, spec=COLOUR, width=0):
    image = {"library": library, "model": model, "weights": str(weights)}
    system = configs.load(door.SystemConfig, {"pairwise": {"width": width, "video": {"image": image}}})
    encoder = door.build(system, {"video": spec}, ()).eval()
    encoder.start()
    return encoder


def batch(*lengths, spec=COLOUR, hidden=None):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = torch.randint(0, 256, (*mask.shape, *spec.shape), generator=generator, dtype=torch.uint8)
    track = Track(values=values, mask=mask, times=torch.zeros(*mask.shape, 2), hidden=hidden)
    return Batch(keys=tuple(map(str, lengths)), epochs=(0,) * len(lengths), tracks={"video": track})


@torch.no_grad()
def test_a_frame_is_what_the_networks_own_classifier_sees(network, monkeypatch):
    library, model, made, file = network
    monkeypatch.setattr(image_model, "FRAMES_AT_ONCE", 2)  # as with long clips
    encoder, clips = build(library, model, file), batch(3, 0, 1)
    encoded = encoder.encode(clips, layers=True)
    output, layers = encoded.towers["video"], encoded.layers["video"]
    side = encoder.tower("video").side
    pictures = clips.tracks["video"].values[0].permute(0, 3, 1, 2).float()
    pictures = torch.nn.functional.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True) / 255
    if (library, model) == ("torchvision", "resnet18"):
        mean, std = IMAGENET
        last = torch.nn.Sequential(*list(made.children())[:-1])
        expected = last((pictures - mean[:, None, None]) / std[:, None, None]).flatten(1)
        torch.testing.assert_close(output.sequence[0], expected, rtol=1e-4, atol=1e-4)
    elif library == "timm":
        told = made.pretrained_cfg
        mean, std = torch.tensor(told["mean"]), torch.tensor(told["std"])
        features = made.forward_features((pictures - mean[:, None, None]) / std[:, None, None])
        expected = made.forward_head(features, pre_logits=True)
        torch.testing.assert_close(output.sequence[0], expected, rtol=1e-4, atol=1e-4)
    width, blocks = NETWORKS[library, model]
    assert encoder.widths == {"video": width}
    assert output.sequence[output.mask].std(dim=0).max() > 1e-3
    assert len(layers) == blocks + 1
    assert torch.equal(layers[-1].sequence, output.sequence)
    assert all(torch.equal(layer.mask, clips.tracks["video"].mask) for layer in layers)
    torch.testing.assert_close(encoded.pooled["video"][0], output.sequence[0].mean(dim=0))
    assert torch.all(encoded.pooled["video"][1] == 0)


@torch.no_grad()
def test_a_clip_is_the_same_in_any_batch_and_in_grey(network):
    library, model, _, file = network
    encoder, together = build(library, model, file, GREY), batch(3, 0, 1, spec=GREY)
    track = together.tracks["video"]
    colours = track.values[..., None].expand(*track.values.shape, 3)
    coloured = replace(together, tracks={"video": replace(track, values=colours)})
    in_colour = build(library, model, file).encode(coloured, layers=True)
    encoded = encoder.encode(together, layers=True)
    alone = encoder.encode(
        Batch(
            keys=("a",),
            epochs=(0,),
            tracks={"video": Track(values=track.values[2:, :1], mask=track.mask[2:, :1], times=track.times[2:, :1])},
        ),
        layers=True,
    )
    for there, here, colour in zip(*(one.layers["video"] for one in (encoded, alone, in_colour)), strict=True):
        torch.testing.assert_close(there.sequence[2, :1], here.sequence[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(there.sequence, colour.sequence)
        assert torch.all(there.sequence[~there.mask] == 0)


@torch.no_grad()
def test_nothing_tells_of_a_hidden_frame_and_a_batch_without_any_picture_gives_zeros(tmp_path):
    made = whole("timm", "test_vit")
    save_file(made.state_dict(), tmp_path / "vit.safetensors")
    encoder = build("timm", "test_vit", tmp_path / "vit.safetensors", width=5)
    hidden = torch.tensor([[False, True]])
    one, other = batch(2, hidden=hidden), batch(2, hidden=hidden)
    other.tracks["video"].values[0, 1] = 0
    assert torch.equal(encoder.encode(one).pooled["video"], encoder.encode(other).pooled["video"])
    nothing = encoder.encode(one.keep(()), layers=True)
    assert torch.equal(nothing.pooled["video"], torch.zeros(1, 5))
    assert {tuple(layer.sequence.shape) for layer in nothing.layers["video"]} == {(1, 2, 64)}


@torch.no_grad()
def test_a_saved_encoder_needs_no_file_of_weights(network, tmp_path):
    library, model, _, file = network
    encoder, clips = build(library, model, file), batch(2)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    door.save_encoder(encoder.train(), tmp_path / "encoder")
    again = door.load(tmp_path / "encoder")
    assert torch.equal(again.encode(clips).pooled["video"], encoder.encode(clips).pooled["video"])


def test_mistakes_are_told_in_one_message(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    flat = FeatureSpec(name="vgg16", modality="video", version=1, rate_hz=5.0, shape=(4096,), dtype="float16")
    for library, model, weights, spec, message in (
        ("torchvision", "resnet19", "published", COLOUR, r"torchvision has no 'resnet19'\. Did you mean resnet1"),
        ("timm", "test_vitt", "published", COLOUR, r"timm has no 'test_vitt'\. Did you mean .*test_vit"),
        ("torchvision", "resnet18", "IMAGENET1K_V9", COLOUR, r"image\.weights: .* no weights by name.*IMAGENET1K_V1\?"),
        ("timm", "test_vit", "nowhere.safetensors", COLOUR, r"'nowhere\.safetensors' is no file"),
        ("torchvision", "resnet18", tmp_path / "other.safetensors", COLOUR, "is no resnet18 as its library names it"),
        ("torchvision", "squeezenet1_0", "published", COLOUR, "does not end in a linear classifier"),
        ("torchvision", "resnet18", "published", flat, r"video\.image: takes square pictures"),
    ):
        with pytest.raises(UserError, match=message):
            build(library, model, weights, spec)


def test_let_train_all_but_its_batch_norms_learn(network):
    library, model, _, file = network
    encoder, clips = build(library, model, file), batch(2, 1)
    (tower,) = hub_models(encoder)
    assert not encoder.train().encode(clips).towers["video"].sequence.requires_grad
    tower.let_train()
    before = {name: value.clone() for name, value in tower.network.named_buffers()}
    encoder.train().encode(clips).towers["video"].sequence.square().sum().backward()
    norms = {f"{name}." for name, part in tower.network.named_modules() if isinstance(part, torch.nn.BatchNorm2d)}
    for name, weight in tower.network.named_parameters():
        held = any(name.startswith(norm) for norm in norms)
        assert (weight.grad is None) == held, name
    tower.let_train(from_scratch=True)
    encoder.train().encode(clips).towers["video"].sequence.square().sum().backward()
    assert all(weight.grad is not None for weight in tower.network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tower.network.named_buffers())
