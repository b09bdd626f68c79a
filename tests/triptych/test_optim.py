import pytest
import torch
from torch import nn

from triptych import config
from triptych.optim import OptimizerConfig, ScheduleConfig, lr_at, parameter_groups


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


def test_constant_stays():
    assert {lr_at(step, schedule(name="constant"), 5) for step in range(5)} == {2.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "noam", "warmup_steps": 10}, "schedule.width: belongs to noam"),
        ({"name": "noam", "width": 4}, "warmup_steps: 0 is too small"),
        ({"name": "cosine", "power": 2.0}, "schedule.power: belongs to polynomial and only to it; .* is cosine"),
    ],
)
def test_a_field_of_another_schedule_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**fields)


def test_the_config_comes_from_yaml():
    loaded = config.load(OptimizerConfig, {"betas": [0.9, 0.999], "schedule": {"name": "constant"}}, ["lr=0.1"])
    assert loaded == OptimizerConfig(lr=0.1, betas=(0.9, 0.999), schedule=ScheduleConfig(name="constant"))


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
