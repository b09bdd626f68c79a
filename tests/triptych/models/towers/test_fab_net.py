import itertools

import pytest
import torch
from torch import nn

from triptych.config import UserError
from triptych.models.towers.fab_net import FabNet

CHANNELS = (3, 32, 64, 128, 256, 256, 256, 256, 256)
CONVOLUTIONS = (0, 2, 5, 8, 11, 14, 17, 20)
NORMS = (3, 6, 9, 12, 15, 18)


def public_shapes():
    """Names of the authors' checkpoint, and one of a part that is left out."""
    shapes = {"decoder.2.weight": (256, 512, 3, 3)}
    for number, (inputs, outputs) in zip(CONVOLUTIONS, itertools.pairwise(CHANNELS), strict=True):
        shapes |= {f"encoder.{number}.weight": (outputs, inputs, 4, 4), f"encoder.{number}.bias": (outputs,)}
    for number, channels in zip(NORMS, CHANNELS[2:], strict=False):
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"encoder.{number}.{name}"] = (channels,)
    return shapes


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    draws = {name: torch.rand(shape) for name, shape in public_shapes().items()}
    return {name: 0.2 * (draw - 0.45) if draw.dim() > 1 else draw for name, draw in draws.items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    file = tmp_path_factory.mktemp("fab_net") / "affectnet_4views.pth"
    counters = {f"encoder.{number}.num_batches_tracked": torch.tensor(7) for number in NORMS}
    torch.save({"state_dict_model": state | counters, "state_dict": {"1.weight": torch.zeros(8, 256)}}, file)
    return file


def test_a_picture_is_a_vector_of_256(file, state):
    layers = []
    for inputs, outputs in itertools.pairwise(CHANNELS):
        norm = [nn.BatchNorm2d(outputs)] if 0 < len(layers) < CONVOLUTIONS[-1] else []
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), *norm, nn.LeakyReLU(0.2)]
    reference = nn.Sequential(*layers[:-1]).eval()
    reference.load_state_dict({name.removeprefix("encoder."): state[name] for name in state if name[0] == "e"})
    torch.manual_seed(1)
    pictures = torch.rand(3, 3, 256, 256)
    blocks = []
    vectors = FabNet.load("video.weights", str(file))(pictures, blocks)
    with torch.no_grad():
        expected = reference(pictures).flatten(1)
        fourth = reference[:11](pictures).mean(dim=(2, 3))
    assert vectors.shape == (3, 256)
    assert expected.std() > 1e-3
    torch.testing.assert_close(vectors, expected)
    assert [rows.shape[1] for rows in blocks] == list(CHANNELS[1:])
    torch.testing.assert_close(blocks[3], fourth)
    assert torch.equal(blocks[-1], vectors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.20.bias": None}, "encoder.20.bias is not there$"),
        ({"encoder.23.bias": (256,)}, "encoder.23.bias has no place$"),
        ({"encoder.0.weight": (16, 3, 4, 4)}, r"encoder.0.weight is \[16, 3, 4, 4\], not \[32, 3, 4, 4\]$"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path, change, message):
    shapes = {name: shape for name, shape in (public_shapes() | change).items() if shape is not None}
    file = tmp_path / "other.pth"
    torch.save({"state_dict": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}}, file)
    with pytest.raises(UserError, match=message) as raised:
        FabNet.load("video.weights", str(file))
    assert str(raised.value).startswith(f"video.weights: {file} is no FAb-Net: ")


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="takes pictures of 3x256x256, not 3x128x128"):
        FabNet()(torch.rand(1, 3, 128, 128))


def test_it_trains_nothing():
    assert not any(weight.requires_grad for weight in FabNet().parameters())
