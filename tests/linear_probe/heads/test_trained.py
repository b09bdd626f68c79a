import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from linear_probe.heads import base
from linear_probe.heads.base import Problem
from linear_probe.heads.config import Linear, Mlp
from linear_probe.heads.trained import order
from triptych.config import UserError

GRID = {"lr": [0.001, 0.03], "weight_decay": [0.0, 0.1]}
SHORT = {"epochs": 4, "batch_size": 16}


class Alone(nn.Module):
    """The same head in torch's own layers."""

    def __init__(self, seed, features, hidden, num_outputs):
        super().__init__()
        torch.manual_seed(seed)
        width = features[-1]
        wide = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        self.head = nn.Sequential(*wide, nn.Linear(hidden or width, num_outputs))
        self.layers = nn.Parameter(torch.zeros(features[0])) if len(features) == 2 else None

    def forward(self, x):
        if self.layers is not None:
            x = torch.einsum("l,bld->bd", self.layers.softmax(0), x)
        return self.head(x)


def train_alone(settings, setting, x, y, problem, loss, num_outputs):
    """Outputs of one head, trained by torch's optimizer on the same order: a plain loop."""
    lr, decay = setting
    train = problem.train
    mean, deviation = x[train].double().mean(0), x[train].double().std(0, correction=0)
    x = ((x - mean) / deviation).float()
    model = Alone(problem.seed, tuple(x.shape[1:]), getattr(settings, "hidden", None), num_outputs)
    weights = [part for part in model.parameters() if part.ndim > 1]
    others = [part for part in model.parameters() if part.ndim == 1]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.SGD
    optimizer = kind(groups, lr=lr, **({} if settings.optimizer == "adamw" else {"momentum": 0.9}))
    steps = math.ceil(len(train) / settings.batch_size)
    for epoch in range(settings.epochs):
        shown = train[order(problem.seed, epoch, len(train))]
        for step in range(steps):
            rows = shown[step * settings.batch_size : (step + 1) * settings.batch_size]
            share = {
                "constant": 1.0,
                "cosine": 0.5 * (1 + math.cos(math.pi * (epoch * steps + step) / (steps * settings.epochs))),
                "step": 0.9 ** (epoch // (settings.step_epochs or 1)),
            }[settings.schedule]
            for group in optimizer.param_groups:
                group["lr"] = lr * share
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return model(x)


def same_as_alone(settings, x, y, problems, kind, num_outputs, loss):
    fitted = settings.fit(x, y, problems, kind, num_outputs)
    for number, problem in enumerate(problems):
        outputs = fitted.outputs(number, x)
        assert fitted.converged(number) == (True,) * 4
        pairs = [(lr, decay) for lr in settings.lr for decay in settings.weight_decay]
        for head, pair in zip(outputs, pairs, strict=True):
            assert torch.allclose(head, train_alone(settings, pair, x, y, problem, loss, num_outputs), atol=1e-5)


def folds(num):
    """Divisions of different sizes (43, 40 and 20 of 60 rows), and two seeds."""
    parts = [np.arange(17, 60), np.arange(40), np.arange(40, 60), np.arange(40)]
    return [Problem(part, np.setdiff1d(np.arange(num), part), seed) for part, seed in zip(parts, (0, 0, 0, 7))]


@pytest.mark.parametrize("kind", [Linear, Mlp])
@pytest.mark.parametrize(
    "how", [{}, {"optimizer": "sgd", "schedule": "constant"}, {"schedule": "step", "step_epochs": 3}]
)
def test_every_head_is_what_it_would_be_alone(rows, kind, how) -> None:
    x, y = rows(60, 12)
    settings = kind(**GRID, **SHORT, **how, **({"hidden": 10} if kind is Mlp else {}))
    same_as_alone(settings, x, y, folds(60), "classes", 4, F.cross_entropy)


@pytest.mark.parametrize("kind", [Linear, Mlp])
def test_a_head_on_a_stack_is_what_it_would_be_alone(rows, kind) -> None:
    x, y = rows(60, 12)
    stack = torch.stack([x.flip(0), x, x.roll(5, 0)], dim=1)
    settings = kind(**GRID, **SHORT, **({"hidden": 10} if kind is Mlp else {}))
    same_as_alone(settings, stack, y, folds(60), "classes", 4, F.cross_entropy)


def labelled_mean(losses, y):
    return losses[~y.isnan()].mean()


def test_losses_are_those_of_torch(rows, halves) -> None:
    x, classes = rows(60, 12)
    problems = [halves(60)]
    emotions = torch.stack([(classes == 0).float(), (classes % 2).float()], dim=1)
    emotions[::3, 0] = torch.nan
    numbers = (classes[:, None] - 1.3) * torch.tensor([1, 0.3])
    numbers[::4, 1] = torch.nan

    def bce(outputs, y):
        return labelled_mean(F.binary_cross_entropy_with_logits(outputs, y.nan_to_num(), reduction="none"), y)

    same_as_alone(Linear(**GRID, **SHORT), x, emotions, problems, "emotions", 2, bce)
    squared = Linear(**GRID, **SHORT, loss="mse")
    same_as_alone(squared, x, numbers, problems, "series", 2, lambda o, y: labelled_mean((o - y.nan_to_num()) ** 2, y))
    same_as_alone(Linear(**GRID, **SHORT), x, numbers[:, :1], problems, "sentiment", 1, F.mse_loss)
    absolute = Linear(**GRID, **SHORT, loss="l1")
    same_as_alone(absolute, x, numbers[:, :1], problems, "sentiment", 1, F.l1_loss)


def test_balanced_classes_are_those_of_torch(rows, halves) -> None:
    x, y = rows(60, 12)
    y[10:40] = 1
    weights = len(y[:30]) / (4 * torch.bincount(y[:30], minlength=4))
    loss = nn.CrossEntropyLoss(weight=weights)
    same_as_alone(Linear(**GRID, **SHORT, balanced=True), x, y, [halves(60)], "classes", 4, loss)


def test_balanced_emotions_do_not_follow_the_share_of_their_rows(rows, halves) -> None:
    x, _ = rows(80, 3)
    y = (torch.arange(80) % 10 == 0).float()[:, None]
    settings = {"lr": [0.1], "weight_decay": [0.0], "epochs": 40, "batch_size": 40}
    constant = torch.full_like(x, 2.0)
    plain, balanced = (
        Linear(**settings, balanced=balanced).fit(constant, y, [halves(80)], "emotions", 1).outputs(0, constant)
        for balanced in (False, True)
    )
    assert plain.sigmoid().mean() == pytest.approx(0.1, abs=0.03)
    assert balanced.sigmoid().mean() == pytest.approx(0.5, abs=0.03)


def test_series_are_trained_for_their_concordance(rows, halves) -> None:
    x, classes = rows(60, 12)
    y = torch.stack([classes - 1.0, -classes * 2.0], dim=1)
    y[::7, 0] = torch.nan

    def one_less(outputs, wanted):
        seen = ~wanted.isnan()
        scores = []
        for dimension in (0, 1):
            a, b = wanted[seen[:, dimension], dimension], outputs[seen[:, dimension], dimension]
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            spread = a.var(correction=0) + b.var(correction=0) + (a.mean() - b.mean()) ** 2
            scores.append(2 * covariance / spread)
        return 1 - sum(scores) / 2

    same_as_alone(Linear(**GRID, **SHORT), x, y, [halves(60)], "series", 2, one_less)


def test_the_layer_that_knows_gets_the_weight(rows, halves) -> None:
    x, y = rows(120, 12)
    noise = torch.randn(120, 3, 12, generator=torch.Generator().manual_seed(0))
    stack = noise * torch.tensor([1, 0.1, 1])[:, None]
    stack[:, 1, :4] += F.one_hot(y, 4)
    settings = Linear(lr=[0.02, 0.05], weight_decay=[0.0], epochs=20, batch_size=16)
    fitted = settings.fit(stack, y, [halves(120)], "classes", 4)
    shares = fitted.layer_weights(0)
    assert shares.shape == (2, 3)
    assert torch.allclose(shares.sum(1), torch.ones(2))
    assert (shares.argmax(1) == 1).all()
    assert Linear(**SHORT).fit(x, y, [halves(120)], "classes", 4).layer_weights(0) is None


@pytest.mark.parametrize("stacked", [False, True])
def test_chunks_change_nothing(rows, stacked, monkeypatch) -> None:
    x, y = rows(60, 12)
    x = torch.stack([x, -x], dim=1) if stacked else x
    settings = Mlp(**GRID, **SHORT, hidden=10)
    whole = settings.fit(x, y, folds(60), "classes", 4)
    wanted = [whole.outputs(number, x) for number in range(4)]
    monkeypatch.setitem(base.CHUNK_BYTES, "cpu", 1)
    parts = settings.fit(x, y, folds(60), "classes", 4)
    for number in range(4):
        assert torch.allclose(parts.outputs(number, x), wanted[number], atol=1e-5)


def test_a_head_that_diverges_says_so_and_leaves_its_neighbours_alone(rows, halves) -> None:
    x, y = rows(60, 12)
    how = {"weight_decay": [0.1], "optimizer": "sgd", "schedule": "constant", **SHORT}
    beside = Linear(lr=[0.01, 1e30], **how).fit(x, y, [halves(60)], "classes", 4)
    alone = Linear(lr=[0.01], **how).fit(x, y, [halves(60)], "classes", 4)
    assert beside.converged(0) == (True, False)
    assert torch.allclose(beside.outputs(0, x)[0], alone.outputs(0, x)[0], atol=1e-5)
    assert (beside.outputs(0, x)[1] == 0).all()


def test_only_training_rows_are_looked_at(rows, halves) -> None:
    x, y = rows(60, 12)
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[30:], spoilt_y[30:] = torch.nan, -1000
    for settings in (Linear(**GRID, **SHORT), Mlp(**GRID, **SHORT, hidden=10)):
        clean = settings.fit(x, y, [halves(60)], "classes", 4)
        spoilt = settings.fit(spoilt_x, spoilt_y, [halves(60)], "classes", 4)
        assert torch.equal(clean.outputs(0, x), spoilt.outputs(0, x))


def test_a_seed_is_a_start_and_an_order(rows, halves) -> None:
    x, y = rows(60, 12)
    fitted = Linear(**GRID, **SHORT).fit(x, y, [halves(60, 1), halves(60, 1), halves(60, 2)], "classes", 4)
    first, again, other = (fitted.outputs(number, x) for number in range(3))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert fitted.settings == ("lr 0.001, wd 0", "lr 0.001, wd 0.1", "lr 0.03, wd 0", "lr 0.03, wd 0.1")
    assert sorted(order(3, 0, 50)) == list(range(50))
    assert order(3, 0, 50) != order(3, 1, 50)


def test_a_constant_feature_changes_nothing(rows, halves) -> None:
    x, y = rows(60, 12)
    constant = torch.cat([x[:, :11], torch.full((60, 1), 123.456)], dim=1)
    outputs = Linear(**GRID, **SHORT).fit(constant, y, [halves(60)], "classes", 4).outputs(0, constant)
    moved = torch.cat([x[:, :11], torch.full((60, 1), -7.0)], dim=1)
    moved[30:, 11] = torch.arange(30)
    assert torch.equal(Linear(**GRID, **SHORT).fit(moved, y, [halves(60)], "classes", 4).outputs(0, moved), outputs)


def test_what_it_cannot_fit_is_refused(rows, halves) -> None:
    x, y = rows(20, 4)
    with pytest.raises(UserError, match="loss=mse is for numbers; these labels are classes"):
        Linear(loss="mse").fit(x, y, [halves(20)], "classes", 4)
    with pytest.raises(UserError, match="balanced is for classes and emotions"):
        Linear(balanced=True).fit(x, y[:, None].float(), [halves(20)], "sentiment", 1)
    with pytest.raises(UserError, match="no labels"):
        Linear().fit(x, torch.full((20, 1), torch.nan), [halves(20)], "sentiment", 1)
    with pytest.raises(UserError, match="no training rows"):
        Linear().fit(x, y, [Problem(np.arange(0), np.arange(20))], "classes", 4)
