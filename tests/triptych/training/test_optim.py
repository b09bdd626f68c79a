import pytest
import torch
from torch import nn

from triptych import config
from triptych.training.optim import OptimizerConfig, ScheduleConfig, lr_at, parameter_groups


def schedule(**fields):
    return OptimizerConfig(lr=2.0, schedule=ScheduleConfig(**fields))


def test_noam_is_the_papers_formula():
    noam = schedule(name="noam", warmup_steps=4000, width=512)
    for n in (1, 100, 4000, 4001, 90_000):
        assert lr_at(n - 1, noam, 10**6) == pytest.approx(2.0 * 512**-0.5 * min(n**-0.5, n * 4000**-1.5), rel=1e-12)
    assert max(lr_at(step, noam, 10**6) for step in range(0, 9000, 3)) <= lr_at(3999, noam, 10**6)


@pytest.mark.parametrize("fields", [{"name": "cosine"}, {"name": "polynomial", "power": 1.0}])
def test_a_decaying_schedule_rises_to_its_peak_and_falls_to_zero(fields):
    rates = [lr_at(step, schedule(warmup_steps=10, **fields), 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0, abs=1e-12)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_step_multiplies_every_so_many_steps_after_the_warm_up():
    config = schedule(name="step", warmup_steps=2, gamma=0.5, every_steps=3)
    assert [lr_at(step, config, 9) for step in range(9)] == [1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5]


def test_constant_stays():
    assert {lr_at(step, schedule(name="constant"), 5) for step in range(5)} == {2.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "noam", "warmup_steps": 10}, "schedule.width: belongs to noam"),
        ({"name": "noam", "width": 4}, "warmup_steps: 0 is too small"),
        ({"name": "cosine", "power": 2.0}, "schedule.power: belongs to polynomial and only to it; .* is cosine"),
        ({"name": "step", "gamma": 0.9}, "schedule.every_steps: belongs to step"),
        ({"name": "constant", "gamma": 0.9}, "schedule.gamma: belongs to step and only to it; .* is constant"),
        ({"name": "step", "gamma": 1.1, "every_steps": 5}, "schedule.gamma: 1.1 must lie between"),
        ({"name": "step", "gamma": 0.9, "every_steps": 0}, "schedule.every_steps: 0 must be at least 1"),
    ],
)
def test_a_field_of_another_schedule_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**fields)


def test_the_config_comes_from_yaml():
    loaded = config.load(OptimizerConfig, {"betas": [0.9, 0.999], "schedule": {"name": "constant"}}, ["lr=0.1"])
    assert loaded == OptimizerConfig(lr=0.1, betas=(0.9, 0.999), schedule=ScheduleConfig(name="constant"))


def test_franceschinis_optimizer_comes_from_yaml():
    """SGD of section III-D: momentum .9, weight decay 1e-3, rate 1e-3, times .9 every 5 epochs (here of 40 steps)."""
    text = {"name": "sgd", "momentum": 0.9, "lr": 1e-3, "weight_decay": 1e-3}
    loaded = config.load(OptimizerConfig, text | {"schedule": {"name": "step", "gamma": 0.9, "every_steps": 200}})
    assert lr_at(1000, loaded, 10_000) == pytest.approx(1e-3 * 0.9**5)
    assert (loaded.name, loaded.momentum, loaded.weight_decay) == ("sgd", 0.9, 1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"momentum": 0.9}, "optimizer.momentum: belongs to sgd and only to it; the optimizer is adamw"),
        ({"name": "sgd"}, "optimizer.momentum: belongs to sgd"),
        ({"name": "sgd", "momentum": 1.0}, "optimizer.momentum: 1.0 must lie between 0 and 1"),
        ({"name": "sgd", "momentum": 0.9, "eps": 1e-6}, "belong to adamw and only to it; the optimizer is sgd"),
    ],
)
def test_a_field_of_another_optimizer_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


def test_biases_norms_and_embeddings_do_not_decay():
    module = nn.ModuleDict(
        {"e": nn.Embedding(3, 4), "l": nn.Linear(4, 5), "n": nn.LayerNorm(5), "c": nn.Conv1d(4, 5, 3)}
    )
    module["l"].bias.requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(module["l"].weight), id(module["c"].weight)}
    assert len(plain["params"]) == 4
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(parameter_groups(nn.LayerNorm(3), 0.1)) == 1
    assert isinstance(plain["params"][0], torch.Tensor)
