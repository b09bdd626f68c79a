import copy
from argparse import Namespace

import pytest
import torch
from torch.nn import functional

from triptych.config import UserError
from triptych.models.towers.wav2vec_large import Wav2VecLarge, num_steps

KERNELS, STRIDES = (10, 8, 4, 4, 4, 1, 1), (5, 4, 2, 2, 2, 1, 1)


def public_shapes():
    """Names of fairseq's wav2vec_large.pt that matter, and one that does not."""
    shapes = {"wav2vec_predictions.project_to_steps.bias": (512,)}
    for number, kernel in enumerate(KERNELS):
        name = f"feature_extractor.conv_layers.{number}"
        shapes[f"{name}.0.weight"] = (512, 1 if number == 0 else 512, kernel)
        shapes |= {f"{name}.2.weight": (512,), f"{name}.2.bias": (512,)}
    for number, kernel in enumerate(range(2, 14)):
        name = f"feature_aggregator.conv_layers.{number}"
        shapes |= {f"{name}.1.weight": (512, 512, kernel), f"{name}.1.bias": (512,)}
        shapes |= {f"{name}.3.weight": (512,), f"{name}.3.bias": (512,)}
    return shapes


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {name: torch.rand(shape).sub_(0.4).mul_(0.1) for name, shape in public_shapes().items()}


@pytest.fixture(scope="module")
def model(state, tmp_path_factory):
    """From a checkpoint as fairseq writes it."""
    file = tmp_path_factory.mktemp("wav2vec") / "wav2vec_large.pt"
    torch.save({"args": Namespace(arch="wav2vec", lr=[0.005]), "model": state, "optimizer_history": [{}]}, file)
    return Wav2VecLarge.load("audio.weights", str(file))


def context(state, wave):
    """[T, 512] of the paper's equations, clip by clip."""

    def normed(x, name):
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        return (x * state[f"{name}.weight"][:, None] + state[f"{name}.bias"][:, None]).relu()

    x = wave[None]
    for number, stride in enumerate(STRIDES):
        name = f"feature_extractor.conv_layers.{number}"
        x = normed(functional.conv1d(x, state[f"{name}.0.weight"], stride=stride), f"{name}.2")
    x = (1 + x.abs()).log()
    for number, kernel in enumerate(range(2, 14)):
        name = f"feature_aggregator.conv_layers.{number}"
        longer = torch.cat([x[:, :1].repeat(1, kernel - 1), x], dim=1)
        mixed = functional.conv1d(longer, state[f"{name}.1.weight"], state[f"{name}.1.bias"])
        x = (normed(mixed, f"{name}.3") + x) * 0.5**0.5
    return x.T


def test_150_000_samples_are_935_steps(monkeypatch):
    assert num_steps(150_000) == 935
    monkeypatch.setattr("triptych.models.towers.wav2vec_large.WIDTH", 4)  # in a moment
    assert Wav2VecLarge()(torch.randn(1, 150_000), [150_000]).sequence.shape == (1, 935, 4)


@pytest.mark.parametrize(("samples", "steps"), [(0, 0), (464, 0), (465, 1), (624, 1), (625, 2), (16_000, 98)])
def test_a_step_sees_465_samples_and_the_next_comes_160_later(samples, steps):
    assert num_steps(samples) == steps


def test_contexts_are_the_papers_and_padding_has_no_influence(model, state):
    torch.manual_seed(1)
    waves = torch.randn(4, 2_000)
    lengths = [2_000, 900, 0, 464]
    said = model(waves.masked_fill(torch.arange(2_000) >= torch.tensor(lengths)[:, None], torch.nan), lengths)
    assert said.sequence.shape == (4, 10, 512)
    assert said.mask.sum(dim=1).tolist() == [10, 3, 0, 0]
    assert torch.all(said.sequence[~said.mask] == 0)
    for clip, steps in enumerate((10, 3)):
        torch.testing.assert_close(
            said.sequence[clip, :steps], context(state, waves[clip, : lengths[clip]]), rtol=1e-4, atol=1e-4
        )


def test_a_step_sees_nothing_later_but_through_the_norms(model):
    """Causal: without the norms, whose statistics are of the whole clip, the first steps stay."""
    aggregator = copy.deepcopy(model.feature_aggregator)
    for layer in aggregator.conv_layers:
        layer[3] = torch.nn.Identity()
    x = torch.randn(1, 512, 20)
    changed = torch.cat([x[..., :12], torch.randn(1, 512, 8)], dim=-1)
    torch.testing.assert_close(aggregator(x)[-1][..., :12], aggregator(changed)[-1][..., :12])


def test_it_trains_nothing(model):
    said = model(torch.randn(1, 500).requires_grad_(), [500])
    assert not said.sequence.requires_grad
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_aggregator.conv_layers.3.1.bias": None}, "feature_aggregator.conv_layers.3.1.bias is not there"),
        ({"feature_aggregator.conv_layers.12.1.bias": (512,)}, r"conv_layers.12.1.bias has no place$"),
        ({"feature_extractor.conv_layers.0.0.weight": (512, 1, 8)}, r"is \[512, 1, 8\], not \[512, 1, 10\]$"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path, change, message):
    shapes = {name: shape for name, shape in (public_shapes() | change).items() if shape is not None}
    file = tmp_path / "other.pt"
    torch.save({"model": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}}, file)
    with pytest.raises(UserError, match=message) as raised:
        Wav2VecLarge.load("audio.weights", str(file))
    assert str(raised.value).startswith(f"audio.weights: {file} is no wav2vec large: ")


class Code:
    """Something else than tensors and fairseq's arguments."""


def test_a_file_that_would_run_code_is_refused(tmp_path):
    file = tmp_path / "unsafe.pt"
    torch.save({"args": Code(), "model": {}}, file)
    with pytest.raises(UserError, match="no weights that can be read without running code"):
        Wav2VecLarge.load("audio.weights", str(file))
