"""The output layer of masked LM: how it starts, what it shares, and that it learns by either loss."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from pretrain.masking import MaskConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.objectives.word_output import NCEConfig, WordOutput
from triptych.batch import fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.inputs import InputConfig, WordInput
from triptych.models.load import SystemConfig, build

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {"text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64")}


def make(**settings):
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    config = CrossModalConfig(modalities=("text",), transformer=transformer, input=InputConfig(word_width=12))
    encoder = build(SystemConfig(cross_modal=config), SPECS, WORDS)
    settings = {"mask": MaskConfig(rate=0.5), **settings}
    return PretrainTask(encoder, {"masked_lm": MaskedLMConfig(**settings).build(encoder, seed=0)})


def train(task, optimizer, steps, batches):
    """Losses a word; each step is seeded as the engine does it."""
    losses = []
    for step in steps:
        torch.manual_seed(step)
        loss = task.train()(batches[step % len(batches)]).losses["masked_lm"]
        optimizer.zero_grad()
        (loss.sum / loss.count).backward()
        optimizer.step()
        losses.append(loss.sum.item() / loss.count)
    return losses


def evaluate(task, batches):
    with torch.no_grad():
        outputs = [task.eval()(batch) for batch in batches]
    losses = [output.losses["masked_lm"] for output in outputs]
    return sum(loss.sum.item() for loss in losses) / sum(loss.count for loss in losses)


@pytest.mark.parametrize("shared", [True, False])
def test_the_first_loss_of_nce_is_that_of_guessing_by_frequency(shared):
    counts = [10**6 // (word + 1) for word in range(5000)]
    torch.manual_seed(0)
    output = WordOutput(torch.nn.Module(), 64, len(counts), "linear", NCEConfig(samples=256, shared=shared))
    output.start(torch.nn.Module(), counts)
    hidden = 0.5 * torch.randn(2000, 64)
    targets = torch.multinomial(torch.tensor(counts).double(), 2000, replacement=True)
    loss, _ = output.train()(hidden, targets)
    # every word is taken for data with probability 1 / (1 + k), whatever it is
    assert loss.item() / 2000 == pytest.approx(math.log(257) + 256 * math.log(1 + 1 / 256), rel=0.03)
    exact, _ = output.eval()(hidden, targets)
    shares = torch.tensor(counts).double() / sum(counts)
    assert exact.item() / 2000 == pytest.approx(
        -(shares * shares.log()).sum().item(), rel=0.03
    )  # the unigram's entropy


@pytest.mark.parametrize("shared", [True, False])
def test_training_by_nce_lowers_the_cross_entropy_and_continues_to_the_last_bit(shared):
    task = make(nce=NCEConfig(samples=16, shared=shared))
    task.objectives["masked_lm"].start(task.encoder, range(20, 0, -1))
    batches = [task.prepare(fake_batch(SPECS, num_clips=8, seed=seed)) for seed in range(2)]
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    before = evaluate(task, batches)
    losses = train(task, optimizer, range(100), batches)
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    moments = copy.deepcopy(optimizer.state_dict())
    losses += train(task, optimizer, range(100, 106), batches)
    assert evaluate(task, batches) < 0.6 * before
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])

    again = make(nce=NCEConfig(samples=16, shared=shared))  # not started: all is in the state
    again.load_state_dict(kept)
    optimizer = torch.optim.Adam(again.parameters(), lr=0.01)
    optimizer.load_state_dict(moments)
    assert train(again, optimizer, range(100, 106), batches) == losses[100:]


def test_nce_tells_its_accuracy_only_where_all_words_are_scored():
    task = make(nce=NCEConfig(samples=4))
    batch = task.prepare(fake_batch(SPECS))
    assert task.train()(batch).report["accuracy/masked_lm"].count == 0
    assert task.eval()(batch).report["accuracy/masked_lm"].count == task.counts(batch)["masked_lm"] > 0


def test_a_tied_output_scores_with_the_word_vectors_and_trains_them():
    task = make(output="tied")
    vectors = task.encoder.input["text"].vectors.weight
    output = task.objectives["masked_lm"].output
    assert sum(parameter is vectors for parameter in task.parameters()) == 1
    hidden, targets = torch.randn(6, 16), torch.tensor([0, 1, 2, 3, 4, 19])
    loss, _ = output(hidden, targets)
    logits = functional.linear(output.project(hidden), vectors[1:], output.bias)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, targets, reduction="sum"))
    loss.backward()
    assert vectors.grad[1:].any(dim=1).all()
    assert not vectors.grad[0].any()  # any other word is no class


def test_an_output_of_its_own_starts_from_the_word_vectors_and_parts_from_them():
    task = make(output="glove")
    vectors, output = task.encoder.input["text"].vectors.weight, task.objectives["masked_lm"].output
    with torch.no_grad():
        vectors.normal_()
    task.objectives["masked_lm"].start(task.encoder, [1] * 20)
    assert torch.equal(output.weight, vectors[1:])
    train(task, torch.optim.Adam(task.parameters(), lr=0.01), range(2), [task.prepare(fake_batch(SPECS))])
    assert not torch.equal(output.weight, vectors[1:])


def test_word_vectors_start_where_they_are_given_and_elsewhere_with_the_same_spread():
    torch.manual_seed(0)
    words = WordInput(400, 16, InputConfig(word_width=30))
    given = torch.zeros(401, 30)
    given[1:200] = 0.3 * torch.randn(199, 30)
    found = torch.zeros(401, dtype=torch.bool)
    found[1:200] = True
    words.start(given, found)
    assert torch.equal(words.vectors.weight[1:200], given[1:200])
    drawn = words.vectors.weight[~found]
    assert drawn.std().item() == pytest.approx(0.3, rel=0.05)
    assert len(drawn.unique(dim=0)) == 202
