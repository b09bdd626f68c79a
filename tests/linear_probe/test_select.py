"""Which head the validation clips choose."""

import numpy as np
import pytest
import torch

from linear_probe.heads.config import HeadsConfig, Linear, Logistic, Ridge
from linear_probe.rows import View
from linear_probe.select import Lesson, choose
from triptych.config import UserError
from triptych.protocols import registry

MOODS = registry.find("synthetic")
MOSI = registry.find("mosi")


def view(name: str) -> View:
    return View(name=name, blocks=())


def lesson(train: range, valid: range, name: str = "own") -> Lesson:
    return Lesson(division=name, train=np.array(train), valid=np.array(valid))


def moods(rows: int, told: bool) -> torch.Tensor:
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return x + 8 * torch.eye(4)[torch.arange(rows) % 4] if told else x


Y = torch.arange(40) % 4


def test_the_view_that_tells_is_chosen_and_all_that_was_tried_is_told():
    views = [(view("noise"), moods(40, told=False)), (view("told"), moods(40, told=True))]
    heads = HeadsConfig(logistic=Logistic(c=[0.1, 1.0]), ridge=Ridge(alpha=[1.0]))
    chosen, trials = choose(heads, MOODS, views, Y, [lesson(range(24), range(24, 40))], [0])
    assert chosen[0].view.name == "told"
    assert chosen[0].valid_score == 1.0
    assert [(trial.view, trial.head, trial.setting) for trial in trials] == [
        (name, head, setting)
        for name in ("noise", "told")
        for head, setting in (("logistic", "C 0.1"), ("logistic", "C 1"), ("ridge", "alpha 1"))
    ]


def test_a_tie_goes_to_what_comes_first():
    views = [(view("first"), moods(40, told=True)), (view("second"), moods(40, told=True))]
    heads = HeadsConfig(logistic=Logistic(c=[1.0, 0.1]))
    chosen, _ = choose(heads, MOODS, views, Y, [lesson(range(24), range(24, 40))], [0])
    assert (chosen[0].view.name, chosen[0].trial.setting) == ("first", "C 1")


def test_divisions_choose_for_themselves():
    early, late = moods(80, told=True), moods(80, told=True)
    early[40:], late[:40] = 0.0, 0.0  # each view tells the clips of one division
    y = torch.arange(80) % 4
    lessons = [lesson(range(24), range(24, 40), "one"), lesson(range(40, 64), range(64, 80), "two")]
    chosen, _ = choose(HeadsConfig(ridge=Ridge()), MOODS, [(view("a"), early), (view("b"), late)], y, lessons, [0])
    assert [one.view.name for one in chosen] == ["a", "b"]


def test_where_the_lowest_is_best_the_lowest_is_chosen():
    x = torch.linspace(-1, 1, 40)[:, None]
    y = 3 * x
    heads = HeadsConfig(ridge=Ridge(alpha=[1e4, 1e-3]))
    chosen, trials = choose(heads, MOSI, [(view("x"), x)], y, [lesson(range(0, 40, 2), range(1, 40, 2))], [0])
    assert chosen[0].trial.setting == "alpha 0.001"
    assert chosen[0].valid_score < 0.01 < trials[0].valid_scores[0]


def test_a_trained_head_is_chosen_by_its_mean_over_seeds():
    heads = HeadsConfig(linear=Linear(lr=[0.1, 1e-6], weight_decay=[0.0], epochs=5))
    lessons = [lesson(range(24), range(24, 40))]
    chosen, trials = choose(heads, MOODS, [(view("told"), moods(40, told=True))], Y, lessons, [3, 4])
    assert all(len(trial.valid_scores) == 2 for trial in trials)
    assert "0.1" in chosen[0].trial.setting
    assert chosen[0].valid_score == np.mean(chosen[0].trial.valid_scores)
    outputs = [chosen[0].outputs(run, moods(40, told=True)) for run in (0, 1)]
    assert outputs[0].shape == (40, 4)
    assert not torch.equal(outputs[0], outputs[1])


def test_a_stack_is_left_to_heads_that_weigh_it():
    stack = torch.stack([moods(40, told=False), moods(40, told=True)], dim=1)
    lessons = [lesson(range(24), range(24, 40))]
    both = HeadsConfig(logistic=Logistic(), linear=Linear(lr=[0.1], weight_decay=[0.0], epochs=5))
    chosen, trials = choose(both, MOODS, [(view("stack"), stack)], Y, lessons, [0])
    assert {trial.head for trial in trials} == {"linear"}
    assert chosen[0].valid_score > 0.8
    weights = chosen[0].layer_weights()
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > weights[0]  # the layer that tells
    with pytest.raises(UserError, match=r"heads\.linear="):
        choose(HeadsConfig(logistic=Logistic()), MOODS, [(view("stack"), stack)], Y, lessons, [0])


def test_validation_clips_that_cannot_choose_are_named():
    emotions = registry.find("mosei_emotion")
    y = torch.zeros(40, 6)
    y[:20, :] = (torch.arange(20) % 2).float()[:, None]
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=r"fold 3: w-ACC cannot choose on its 20 validation clips: happy"):
        choose(
            HeadsConfig(ridge=Ridge()), emotions, [(view("x"), x)], y, [lesson(range(20), range(20, 40), "fold 3")], [0]
        )
