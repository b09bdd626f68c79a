import pytest
import torch

from triptych.models.dropout import Dropout, dropped, kept, scale_of

MANY = 400_000


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_elements_are_dropped_at_the_rate_and_the_mean_stays(rate, dtype):
    torch.manual_seed(0)
    x = dropped(torch.ones(MANY, dtype=dtype), rate)
    assert x.dtype == dtype
    assert float((x == 0).float().mean()) == pytest.approx(rate, abs=0.004)
    assert x.unique().numel() == 2
    assert float(x.double().mean()) == pytest.approx(1, abs=0.03)


def test_neighbours_are_dropped_independently_of_each_other():
    """Four of them share a random number."""
    torch.manual_seed(0)
    x = kept(torch.Size((MANY // 4, 4)), 0.5, torch.float64).T
    correlations = torch.corrcoef(torch.cat([x[:, :-1], x[:, 1:]]))
    assert torch.all((correlations - torch.eye(8)).abs() < 0.02)


def test_what_is_kept_is_scaled_by_the_very_rate_at_which_it_is_kept():
    for rate in (0.1, 1 / 3, 0.999999):  # none of them a multiple of 2^-16
        assert scale_of(rate) == 65536 / (65536 - min(round(65536 * rate), 65535))
    assert scale_of(0.25) == 4 / 3


def test_the_gradient_is_dropped_as_the_values_are_and_evaluation_drops_nothing():
    torch.manual_seed(0)
    layer, x = Dropout(0.3), torch.ones(7, 5, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.equal(x.grad, out)
    assert 0 < int((out == 0).sum()) < 35
    torch.manual_seed(0)
    assert torch.equal(layer(x), out)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
