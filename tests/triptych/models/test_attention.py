import pytest
import torch
from torch import nn

from triptych.models.attention import Attention, Packing, Pairs, group
from triptych.models.blocks import Source, TransformerConfig, TransformerStack
from triptych.models.linear import Linear

WIDTH, HEADS = 24, 3
CPU = torch.device("cpu")


def masks(lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def with_weights_of(reference, short, dropout=0.0):
    """Our attention with the weights of torch's."""
    ours = Attention(WIDTH, HEADS, dropout, short).double()
    weights, biases = reference.in_proj_weight.chunk(3), reference.in_proj_bias.chunk(3)
    for part, weight, bias in zip((ours.query, ours.key, ours.value), weights, biases, strict=True):
        part.load_state_dict({"weight": weight, "bias": bias})
    ours.output.load_state_dict(reference.out_proj.state_dict())
    return ours


@pytest.fixture
def reference():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    return attention


@pytest.mark.parametrize("spare", [0, 10**9], ids=["clip by clip", "all clips at once"])
@pytest.mark.parametrize("short", [None, "tiles", "queries", "keys"])
@pytest.mark.parametrize("lengths", [([4, 1, 3], [5, 9, 2]), ([2, 2], [6, 6]), ([30, 2], [3, 40])])
def test_every_form_is_torchs_attention_of_each_clip_with_the_same_gradients(
    reference, lengths, short, spare, monkeypatch
):
    monkeypatch.setattr("triptych.models.attention.SCORES_OF_A_CALL", spare)
    if short == "tiles":  # what long clips get
        short = None
        monkeypatch.setattr("triptych.models.long_attention.LONG", 0)
    ours, pairs = with_weights_of(reference, short), Pairs(*lengths, CPU)
    x = torch.randn(sum(lengths[0]), WIDTH, dtype=torch.float64, requires_grad=True)
    keys, values = (torch.randn(sum(lengths[1]), WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    clips = zip(x.split(lengths[0]), keys.split(lengths[1]), values.split(lengths[1]), strict=True)
    expected = torch.cat([reference(*clip, need_weights=False)[0] for clip in clips])
    found = ours(x, keys, values, pairs)
    torch.testing.assert_close(found, expected)
    d_out = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, (x, keys, values, ours.query.weight, ours.value.bias, ours.output.weight), d_out),
        gradients_of(reference, expected, (x, keys, values), d_out),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def gradients_of(reference, expected, inputs, d_out):
    weights = (reference.in_proj_weight, reference.in_proj_bias, reference.out_proj.weight)
    *d_inputs, d_weight, d_bias, d_output = torch.autograd.grad(expected, (*inputs, *weights), d_out)
    return *d_inputs, d_weight[:WIDTH], d_bias[2 * WIDTH :], d_output


@pytest.mark.parametrize("short", ["queries", "keys"])
def test_dropout_leaves_the_mean_of_every_form_where_it_was(reference, short):
    """The values' bias is weighed with what dropout left of the weights, as in the plain form."""
    ours = with_weights_of(reference, short, dropout=0.3)
    x, keys = torch.randn(2, WIDTH, dtype=torch.float64), torch.randn(5, WIDTH, dtype=torch.float64)
    many = 4000
    pairs = Pairs([2] * many, [5] * many, CPU)
    with torch.no_grad():
        found = ours(x.repeat(many, 1), keys.repeat(many, 1), keys.repeat(many, 1), pairs).view(many, 2, WIDTH)
        plain = with_weights_of(reference, None, dropout=0.3)
        expected = plain(x.repeat(many, 1), keys.repeat(many, 1), keys.repeat(many, 1), pairs).view(many, 2, WIDTH)
    torch.testing.assert_close(found.mean(dim=0), expected.mean(dim=0), rtol=0, atol=0.08)
    torch.testing.assert_close(found.std(dim=0), expected.std(dim=0), rtol=0.1, atol=0)


@pytest.mark.parametrize("short", [None, "queries", "keys"])
def test_all_weights_take_part_even_where_no_clip_has_both_streams(short):
    stack = TransformerStack(TransformerConfig(width=WIDTH, layers=2, heads=HEADS, feedforward=8), short)
    x, source = (torch.randn(2, steps, WIDTH, requires_grad=True) for steps in (3, 4))
    one, other = torch.tensor([[True] * 3, [False] * 3]), torch.tensor([[False] * 4, [True] * 4])
    found = stack(x, one, Source(source, other))
    assert found.shape == x.shape
    assert torch.all(found == 0)
    found.sum().backward()
    assert all(
        parameter.grad is not None and torch.all(parameter.grad == 0) for parameter in (*stack.parameters(), x, source)
    )
    stack.zero_grad(set_to_none=True)
    stack(x, one, Source(source, torch.ones_like(other))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in stack.parameters())


def test_packing_keeps_the_real_steps_and_padding_is_zeros():
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    x = torch.arange(1.0, 10.0).view(3, 3, 1)
    packing = Packing(mask)
    assert packing.lengths == [2, 0, 3]
    assert packing.pack(x)[:, 0].tolist() == [1, 3, 7, 8, 9]
    assert torch.equal(packing.pad(packing.pack(x)), x * mask[..., None])


def test_clips_share_a_call_where_it_costs_little_padding():
    assert group([(3, 5)] * 4, spare=0) == [[(3, 5)] * 4]
    assert group([(3, 5), (4, 5), (4, 5)], spare=0) == [[(3, 5)], [(4, 5), (4, 5)]]
    assert group([(3, 5), (4, 5), (4, 5)], spare=5) == [[(3, 5), (4, 5), (4, 5)]]
    assert group([(1, 1), (90, 90)], spare=float("inf")) == [[(1, 1), (90, 90)]]
    assert group([], spare=0) == []


@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 24), (0, 24)])
def test_a_linear_map_is_torchs_with_its_gradients(shape):
    torch.manual_seed(0)
    ours, theirs = Linear(24, 7), nn.Linear(24, 7)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = layer(x)
        out.square().sum().backward()
        results.append((out, x.grad, layer.weight.grad, layer.bias.grad))
    for mine, their in zip(*results, strict=True):
        torch.testing.assert_close(mine, their)
