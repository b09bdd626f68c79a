"""The losses over a vocabulary, each against its formula written out."""

import itertools
import math

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pretrain.losses import vocabulary
from pretrain.losses.vocabulary import nce_loss, score_softmax, softmax_loss, unigram


def inputs(positions=13, words=29, width=5, dtype=torch.float64, scale=1.0):
    torch.manual_seed(0)
    hidden = (torch.randn(positions, width, dtype=dtype) * scale).requires_grad_()
    weight = torch.randn(words, width, dtype=dtype, requires_grad=True)
    bias = torch.randn(words, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(0, words, (positions,))


@pytest.fixture(params=[(14 * 2**20, 2048), (29 * 4, 7), (1, 1), (29 * 13, 28)])
def chunks(request, monkeypatch):
    """Everything at once, and parts that divide neither the positions nor the words."""
    monkeypatch.setattr(vocabulary, "CHUNK_ELEMENTS", request.param[0])
    monkeypatch.setattr(vocabulary, "BLOCK_WORDS", {"cpu": request.param[1]})


@pytest.mark.parametrize("scale", [1.0, 300.0])  # with the larger one a word's probability is 0 or 1 to all digits
@pytest.mark.parametrize("with_bias", [True, False])
def test_softmax_is_cross_entropy_with_all_its_gradients(chunks, with_bias, scale):
    hidden, weight, bias, targets = inputs(scale=scale)
    targets[[2, 7]] = -100
    bias = bias if with_bias else None
    given = [hidden, weight, bias] if with_bias else [hidden, weight]
    logits = functional.linear(hidden, weight, bias)
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    scored = score_softmax(hidden, weight, bias, targets)
    assert scored.count == 11
    assert scored.correct == (logits.argmax(dim=1) == targets).sum()
    torch.testing.assert_close(scored.loss, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(scored.loss * 0.3, given), torch.autograd.grad(expected * 0.3, given), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_softmax_in_float32_is_as_right_as_its_type(chunks):
    hidden, weight, bias, targets = (value.detach() for value in inputs())
    exact = [value.requires_grad_() for value in (hidden, weight, bias)]
    short = [value.detach().float().requires_grad_() for value in exact]
    expected = torch.autograd.grad(softmax_loss(*exact, targets)[0], exact)
    for ours, theirs in zip(torch.autograd.grad(softmax_loss(*short, targets)[0], short), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_softmax_takes_any_leading_dimensions_and_another_mark_for_nothing():
    hidden, weight, bias, targets = inputs(positions=12)
    loss, count = softmax_loss(hidden, weight, bias, targets)
    again, number = softmax_loss(hidden.view(3, 4, 5), weight, bias, targets.view(3, 4))
    assert (loss, count) == (again, number)
    rest, number = softmax_loss(hidden, weight, bias, torch.where(targets == targets[0], -1, targets), ignore_index=-1)
    assert number == (targets != targets[0]).sum()
    assert rest < loss


@pytest.mark.parametrize("positions", [0, 3])
@pytest.mark.parametrize("shared", [None, True, False])
def test_nothing_asked_is_a_zero_with_gradients_of_zero(positions, shared):
    hidden, weight, bias, _ = inputs(positions=positions)
    targets = torch.full((positions,), -100)
    if shared is None:
        loss, count = softmax_loss(hidden, weight, bias, targets)
    else:
        loss, count = nce_loss(hidden, weight, bias, targets, noise=unigram([1] * 29), samples=4, shared=shared)
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert all(not value.grad.any() for value in (hidden, weight, bias))


def test_a_tie_is_not_counted_as_right():
    hidden, weight, _, targets = inputs()
    assert score_softmax(torch.zeros_like(hidden), weight, None, targets).correct == 0


def test_a_vocabulary_of_one_word_costs_nothing():
    hidden, weight, bias, _ = inputs(words=1)
    loss, _ = softmax_loss(hidden, weight, bias, torch.zeros(13, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()


@pytest.mark.parametrize("target", [29, -1])
def test_a_target_that_is_no_word_is_refused(target):
    hidden, weight, bias, targets = inputs()
    targets[3] = target
    for loss in (softmax_loss, lambda *given: nce_loss(*given, noise=unigram([1] * 29), samples=2)):
        with pytest.raises(ValueError, match="the vocabulary has 29 words: expected 0 to 28"):
            loss(hidden, weight, bias, targets)


def test_frozen_weights_get_no_gradient_and_a_second_backward_pass_is_refused():
    hidden, weight, bias, targets = inputs()
    loss, _ = softmax_loss(hidden, weight.detach(), bias, targets)
    loss.backward(retain_graph=True)
    expected = functional.cross_entropy(functional.linear(hidden, weight.detach(), bias), targets, reduction="sum")
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(expected, hidden)[0])
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()


def test_without_gradients_the_loss_is_the_same_and_none_are_computed(monkeypatch):
    hidden, weight, bias, targets = inputs()
    expected, _ = softmax_loss(hidden, weight, bias, targets)
    monkeypatch.setattr(vocabulary._Chunk, "add_gradients", None)
    with torch.no_grad():
        loss, _ = softmax_loss(hidden, weight, bias, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)


def test_autocast_multiplies_in_bf16_and_gives_gradients_in_the_weights_own_type():
    hidden, weight, bias, targets = inputs(dtype=torch.float32)
    expected = functional.cross_entropy(functional.linear(hidden, weight, bias), targets, reduction="sum")
    exact = torch.autograd.grad(expected, [hidden, weight, bias])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = softmax_loss(hidden, weight, bias, targets)
    assert loss.dtype == torch.float32
    assert loss != expected
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    for ours, theirs in zip(torch.autograd.grad(loss, [hidden, weight, bias]), exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


class Watch(TorchFunctionMode):
    """Keeps the size of the largest tensor that any function returns."""

    largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_tensor_of_the_logits_size_is_made_or_saved(monkeypatch, dtype):
    monkeypatch.setattr(vocabulary, "CHUNK_ELEMENTS", 2000)
    hidden, weight, bias, targets = inputs(positions=100, words=200, dtype=dtype)
    saved = []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    with Watch() as watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        softmax_loss(hidden, weight, bias, targets)[0].backward()
    assert watch.largest == 2000
    assert sum(saved) <= hidden.numel() + 2 * len(targets)


def noise_of(words=29):
    return unigram([1000 // (word + 1) for word in range(words)])


def naive_nce(hidden, weight, bias, targets, noise, drawn):
    """[T, K] drawn words, one term after the other."""
    loss, k = 0.0, drawn.shape[1]
    for position, target in enumerate(targets.tolist()):

        def odds(word, position=position):
            score = hidden[position] @ weight[word] + bias[word] - math.log(len(weight))
            return score - math.log(k) - noise[word]

        loss = loss - torch.log(torch.sigmoid(odds(target)))
        for word in drawn[position].tolist():
            loss = loss - torch.log(1 - torch.sigmoid(odds(word)))
    return loss


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("gathered", [8 * 2**20, 60])  # 60: two positions at a time
def test_nce_is_its_formula_with_all_its_gradients(monkeypatch, shared, gathered):
    monkeypatch.setattr(vocabulary, "GATHERED_ELEMENTS", gathered)
    hidden, weight, bias, targets = inputs()
    noise = noise_of()
    number = 5 if shared else 5 * len(targets)
    torch.manual_seed(3)
    drawn = vocabulary._draw(noise, number)
    drawn = drawn.expand(len(targets), 5) if shared else drawn.view(-1, 5)
    expected = naive_nce(hidden, weight, bias, targets, noise.double(), drawn)
    torch.manual_seed(3)
    loss, count = nce_loss(hidden, weight, bias, targets, noise=noise, samples=5, shared=shared)
    assert count == 13
    torch.testing.assert_close(loss, expected)
    given = [hidden, weight, bias]
    for ours, theirs in zip(torch.autograd.grad(loss, given), torch.autograd.grad(expected, given), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_of_nce_tends_to_that_of_the_softmax(shared):
    hidden, weight, bias, targets = inputs(words=20)
    with torch.no_grad():  # the same context everywhere, so that one bias normalises exp(s) / V
        hidden[:] = hidden[0].clone()
        bias -= torch.logsumexp(weight @ hidden[0] + bias, dim=0) - math.log(20)
    given = [hidden, weight, bias]
    exact = torch.autograd.grad(softmax_loss(hidden, weight, bias, targets)[0], given)
    errors = []
    for samples in (10, 100, 1000, 10_000):
        squares = 0.0
        for seed in range(8):
            torch.manual_seed(seed)
            options = {"noise": noise_of(20), "samples": samples, "shared": shared}
            found = torch.autograd.grad(nce_loss(hidden, weight, bias, targets, **options)[0], given)
            squares += sum(((a - b) ** 2).sum().item() for a, b in zip(found, exact, strict=True)) / 8
        errors.append(math.sqrt(squares / sum((b**2).sum().item() for b in exact)))
    assert all(later < 0.6 * before for before, later in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.06  # of noise alone: it falls with the square root of the samples


def test_noise_is_drawn_by_frequency_also_the_rarest_of_many_words():
    counts = [10**9] + [1] * 9999
    torch.manual_seed(0)
    drawn = vocabulary._draw(unigram(counts), 10**6)
    assert 0 < (drawn > 0).sum() < 50  # 10 are expected
    even = vocabulary._draw(unigram([3, 1]), 10_000)
    assert (even == 0).float().mean() == pytest.approx(0.75, abs=0.02)


def test_a_word_never_counted_weighs_as_one_seen_once():
    torch.testing.assert_close(unigram([3, 1, 0]), torch.tensor([0.6, 0.2, 0.2]).log())


def test_nce_is_computed_in_float32_under_autocast():
    hidden, weight, bias, targets = inputs(dtype=torch.float32)
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            torch.manual_seed(0)
            losses.append(nce_loss(hidden, weight, bias, targets, noise=noise_of(), samples=9)[0])
    assert losses[0] == losses[1]


def test_nce_without_noise_words_is_refused():
    with pytest.raises(ValueError, match="samples: 0"):
        nce_loss(*inputs(), noise=noise_of(), samples=0)
