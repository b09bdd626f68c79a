import pytest
import torch

from triptych.models import long_attention
from triptych.models.attention import Attention, Pairs
from triptych.models.long_attention import attend_by_tiles, kept, scale_of

HEADS, WIDTH = 3, 8


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Three of 4 or 5 queries for the longest clip below."""
    monkeypatch.setattr(long_attention, "TILE", 60)
    monkeypatch.setattr(long_attention, "FEWEST_QUERIES", 3)
    monkeypatch.setattr(long_attention, "LONG", 0)


def sides(lengths, dtype=torch.float64, width=WIDTH):
    """Queries, keys and values, padded by what is not a number."""
    torch.manual_seed(0)
    given = []
    for side in (0, 1, 1):
        steps = [clip[side] for clip in lengths]
        x = torch.randn(len(lengths), max(steps) + 1, HEADS, width, dtype=dtype)
        for clip, length in enumerate(steps):
            x[clip, length:] = torch.nan
        given.append(x.transpose(1, 2).requires_grad_())
    return given


def plain(q, k, v, lengths, factors=None):
    """[b, H, t, E] as one writes it down; factors [b][H, T, S] are dropout's."""
    out = torch.zeros_like(q)
    for clip, (t, s) in enumerate(lengths):
        weights = (q[clip, :, :t] @ k[clip, :, :s].mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        out[clip, :, :t] = (weights if factors is None else weights * factors[clip]) @ v[clip, :, :s]
    return out


@pytest.mark.parametrize("lengths", [[(13, 15)], [(13, 15), (2, 15), (13, 1), (5, 9)]])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_it_is_attention_with_its_gradients_and_padding_is_not_seen(lengths, dtype, near):
    given = sides(lengths, dtype)
    found, expected = attend_by_tiles(*given, lengths, 0.0), plain(*given, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=near)
    d_out = torch.randn_like(expected)
    for side, mine, theirs in zip(
        (0, 1, 1), *(torch.autograd.grad(out, given, d_out) for out in (found, expected)), strict=True
    ):
        for clip, length in enumerate(clip[side] for clip in lengths):
            torch.testing.assert_close(mine[clip, :, :length], theirs[clip, :, :length], rtol=0, atol=near)
            assert torch.all(mine[clip, :, length:] == 0)


def test_dropout_takes_the_same_weights_in_both_directions():
    lengths, rate = [(13, WIDTH), (7, WIDTH)], 0.3
    q, k, v = sides(lengths)
    with torch.no_grad():
        weights = attend_by_tiles(q, k, torch.eye(WIDTH + 1, WIDTH).expand_as(v).to(q), lengths, 0.0)
        torch.manual_seed(1)
        left = attend_by_tiles(q, k, torch.eye(WIDTH + 1, WIDTH).expand_as(v).to(q), lengths, rate)
    factors = [left[clip, :, :t] / weights[clip, :, :t] for clip, (t, _) in enumerate(lengths)]
    drawn = torch.cat([part.flatten() for part in factors])
    assert torch.all((drawn == 0) | ((drawn - scale_of(rate)).abs() < 1e-9))
    assert 0.2 < float((drawn == 0).double().mean()) < 0.4
    assert not torch.equal(factors[0][0] == 0, factors[0][1] == 0)  # each head draws its own
    torch.manual_seed(1)
    found, expected = attend_by_tiles(q, k, v, lengths, rate), plain(q, k, v, lengths, factors)
    torch.testing.assert_close(found, expected)
    d_out = torch.randn_like(expected)
    for mine, theirs in zip(*(torch.autograd.grad(out, (q, k, v), d_out) for out in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_attention_takes_it_for_long_clips_and_another_way_in_half_precision(rate, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "triptych.models.attention.attend_by_tiles", lambda *given: calls.append(given[3:]) or attend_by_tiles(*given)
    )
    attention, pairs = Attention(WIDTH, 2, rate), Pairs([13, 4], [13, 4], torch.device("cpu"))
    x = torch.randn(17, WIDTH, requires_grad=True)
    attention(x, x, x, pairs).sum().backward()
    attention.eval()(x, x, x, pairs)
    assert calls == [([(13, 13), (4, 4)], rate), ([(13, 13), (4, 4)], 0.0)]
    with torch.autocast("cpu", torch.bfloat16):
        attention.train()(x, x, x, pairs).sum().backward()
    monkeypatch.setattr(long_attention, "LONG", 13 * 13 + 1)
    attention(x, x, x, pairs)
    assert len(calls) == 2


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_dropped_at_the_rate_and_the_mean_stays(rate, dtype):
    x = kept(torch.Size((400, 1001)), rate, dtype, torch.Generator().manual_seed(0))
    assert x.dtype == dtype
    assert x.unique().tolist() == [0, 1]
    assert float(x.mean()) == pytest.approx(1 - rate, abs=0.004)
    assert float(x.mean()) * scale_of(rate) == pytest.approx(1, abs=0.03)


def test_neighbours_are_dropped_independently_of_each_other():
    """Four of them share a random number."""
    x = kept(torch.Size((100_000, 4)), 0.5, torch.float64, torch.Generator().manual_seed(0)).T
    correlations = torch.corrcoef(torch.cat([x[:, :-1], x[:, 1:]]))
    assert torch.all((correlations - torch.eye(8)).abs() < 0.02)


def test_what_is_kept_is_scaled_by_the_very_rate_at_which_it_is_kept():
    for rate in (0.1, 1 / 3, 0.999999):  # none of them a multiple of 2^-16
        assert scale_of(rate) == 65536 / (65536 - min(round(65536 * rate), 65535))
    assert scale_of(0.25) == 4 / 3
