import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from triptych.models.norms import ClipGroupNorm, FrozenNorm, SynchronisedNorm, convert

PROGRAM = Path(__file__).with_name("norm_ranks.py")


def network(seed=0):
    """With statistics and affine maps as of a trained one."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv3d(2, 6, 1), nn.Sequential(nn.BatchNorm3d(6), nn.ReLU(inplace=True)), nn.Conv3d(6, 2, 1)
    )
    norm = model[1][0]
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def converted(norm):
    model = network()
    convert(model, norm)
    return model


def values(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def ragged():
    """x [4, 6, 5, 3] and a mask of lengths 5, 3, 1, 0."""
    return values(4, 6, 5, 3), torch.arange(5) < torch.tensor([5, 3, 1, 0])[:, None]


def test_frozen_is_evaluation_for_ever():
    x = torch.randn(3, 2, 4, 5, 5)
    frozen, trained = converted("frozen").train(), network().eval()
    before = copy.deepcopy(frozen.state_dict())
    for _ in range(2):
        torch.testing.assert_close(frozen(x), trained(x))
    frozen(x).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not list(frozen[1].parameters())


@pytest.mark.parametrize("norm", ["frozen", "synchronised"])
def test_a_converted_network_takes_the_states_of_the_one_it_was(norm):
    state = network(seed=1).state_dict()
    model = converted(norm)
    assert state.keys() - model.state_dict().keys() == {"1.0.num_batches_tracked"}
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    x = torch.randn(2, 2, 4, 5, 5)
    torch.testing.assert_close(model.eval()(x), network(seed=1).eval()(x))


def test_no_batch_normalisation_is_left():
    for norm in ("frozen", "synchronised", "group"):
        assert not any(isinstance(module, nn.BatchNorm3d) for module in converted(norm).modules())


def test_on_one_rank_synchronised_is_torchs_batch_normalisation():
    ours, theirs = converted("synchronised").double(), network().double()
    x = values(3, 2, 4, 5, 5)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for model, given in zip((ours, theirs), inputs, strict=True):
        model(given).pow(3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for statistic in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours[1][0], statistic), getattr(theirs[1][0], statistic))


def test_padded_steps_are_not_in_the_synchronised_statistics(ragged):
    x, mask = ragged
    norm = SynchronisedNorm(6).double()
    real = norm(x, mask).transpose(1, 2)[mask]  # [9, 6, 3]
    plain = nn.BatchNorm1d(6).double()
    torch.testing.assert_close(real, plain(x.transpose(1, 2)[mask]))
    torch.testing.assert_close(norm.running_var, plain.running_var)


def test_running_averages_take_up_what_is_learnt_from_only():
    norm = SynchronisedNorm(6)
    x = torch.randn(4, 6, 5) + 3
    with torch.no_grad():
        norm(x)
    norm.eval()(x)
    assert torch.equal(norm.running_mean, torch.zeros(6))
    norm.train()(torch.zeros(0, 6, 5))
    norm(x, torch.zeros(4, 5, dtype=torch.bool))
    assert torch.equal(norm.running_mean, torch.zeros(6))
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(dim=(0, 2)))


def test_low_precision_keeps_its_type_and_the_statistics_of_large_values():
    x = (torch.randn(64, 6, 50) + 300).to(torch.bfloat16)
    y = SynchronisedNorm(6)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float().var(dim=(0, 2)), torch.ones(6), atol=0.02, rtol=0)


@pytest.mark.dist
def test_ranks_together_are_one_process_with_the_joined_batch(run_ranks, tmp_path):
    spec = importlib.util.spec_from_file_location("norm_ranks", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    x = values(5, 6, 5, 3) * 2 + 7
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2])[:, None]
    weights = values(5, 6, 5, 3, seed=2) * mask[:, None, :, None]
    save_file({"x": x, "mask": mask, "weights": weights}, tmp_path / "batch.safetensors")
    rows, shared = program.run(SynchronisedNorm(6).double(), x, mask, weights)
    run_ranks(tmp_path, world=3, program=PROGRAM)
    ranks = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(3)]
    for name, value in rows.items():
        torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), value)
    for name, value in shared.items():
        if name.endswith(".grad"):  # what an engine adds up over the ranks
            torch.testing.assert_close(sum(rank[name] for rank in ranks), value)
        else:
            for rank in ranks:
                torch.testing.assert_close(rank[name], value)
    assert rows["x.grad"].abs().max() > 1e-3


def test_groups_of_a_clip_are_normalised_without_its_padding(ragged):
    x, mask = ragged
    norm = ClipGroupNorm(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    together = norm(x, mask)
    assert together.isfinite().all()
    for clip, length in enumerate((5, 3, 1)):
        alone = norm(x[clip : clip + 1, :, :length])
        torch.testing.assert_close(together[clip : clip + 1, :, :length], alone)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (45, 15), (921, 3), (7, 7), (37, 1)])
def test_as_many_groups_as_divide_the_channels_and_no_more_than_32(channels, groups):
    assert ClipGroupNorm(channels).num_groups == groups


def test_a_norm_without_statistics_is_refused():
    model = nn.Sequential(nn.BatchNorm3d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="running statistics"):
        convert(model, "frozen")


def test_a_frozen_norm_takes_any_shape():
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        assert FrozenNorm(3)(torch.ones(shape)).shape == shape
