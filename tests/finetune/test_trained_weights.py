import pytest
import torch
from torch import nn

from finetune.engine import EngineConfig
from finetune.trained_weights import EncoderTraining, depths, freeze, rates_of
from triptych.batch import Batch
from triptych.config import UserError
from triptych.training import distributed
from triptych.training.engine_deepspeed import ZeroConfig
from triptych.training.optim import OptimizerConfig, Rate, ScheduleConfig, parameter_groups
from triptych.training.task import Output, Task, Total


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(2, 2)
        self.convolutions = nn.ModuleList([nn.Linear(2, 2)])
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.norm = nn.LayerNorm(2)


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = nn.ModuleDict({"audio": nn.Linear(2, 2)})
        self.towers = nn.ModuleDict({"text": Tower(), "audio": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
        self.cross = nn.ModuleDict({"audio_text": nn.ModuleList([nn.Linear(2, 2)])})


def test_layers_are_counted_along_each_tower_from_its_end():
    found = {name.removesuffix(".weight"): depth for name, depth in depths(TwoTowers()).items() if "weight" in name}
    assert found == {
        "input.audio": 2,
        "towers.audio.0": 1,
        "towers.audio.1": 0,
        "towers.text.embedding": 3,
        "towers.text.convolutions.0": 2,
        "towers.text.layers.0": 1,
        "towers.text.layers.1": 0,
        "towers.text.norm": 0,
        "cross.audio_text.0": 0,
    }


def test_rates_fall_from_layer_to_layer_and_frozen_layers_join_from_the_top():
    training = EncoderTraining(freeze="towers", unfreeze_every=10, encoder_lr_scale=0.5, layer_decay=0.1)
    encoder = TwoTowers()
    assert freeze(encoder, training) == []
    rates = rates_of(encoder, training)
    assert rates["towers.audio.1.weight"] == Rate(0.5, 10)
    assert rates["towers.audio.0.weight"] == Rate(pytest.approx(0.05), 20)
    assert rates["input.audio.bias"] == Rate(pytest.approx(0.005), 30)
    assert rates["cross.audio_text.0.weight"] == Rate(0.5, 0)


def test_what_is_frozen_for_good_has_no_gradient():
    encoder = TwoTowers()
    parts = freeze(encoder, EncoderTraining(freeze="towers"))
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trained == {"cross.audio_text.0.weight", "cross.audio_text.0.bias"}
    assert len(parts) == 2
    with pytest.raises(UserError, match="no towers"):
        freeze(nn.Linear(2, 2), EncoderTraining(freeze="towers"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"unfreeze_every": 5}, "nothing is frozen"),
        ({"encoder_lr_scale": 2}, "1"),
    ],
)
def test_settings_without_a_meaning_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EncoderTraining(**fields)


def test_an_optimizers_groups_have_one_rate_each_and_every_parameter_once():
    encoder = TwoTowers()
    rates = rates_of(encoder, EncoderTraining(layer_decay=0.5))
    by_id = {id(weight): rates[name] for name, weight in encoder.named_parameters()}
    groups = parameter_groups(encoder, 0.1, by_id)
    assert all({by_id[id(weight)] for weight in group["params"]} == {group["rate"]} for group in groups)
    grouped = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(grouped) == sorted(by_id)
    assert {group["weight_decay"] for group in groups if any(w.ndim == 1 for w in group["params"])} == {0.0}


@pytest.mark.parametrize("deepspeed", [None, pytest.param(ZeroConfig(zero_stage=0), marks=pytest.mark.slow)])
def test_a_layer_that_is_not_due_neither_moves_nor_counts_and_others_move_by_their_scale(deepspeed):
    class Two(Task):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Module()
            for name in ("slow", "late", "plain"):
                setattr(self.encoder, name, nn.Parameter(torch.ones(1)))

        def counts(self, batch):
            return {"x": 1}

        def forward(self, batch):
            return Output({"x": Total(sum(weight.sum() for weight in self.encoder.parameters()), 1)}, {})

    task = Two()
    optimizer = OptimizerConfig(lr=0.1, schedule=ScheduleConfig(name="constant"))
    rates = {"encoder.slow": Rate(0.5), "encoder.late": Rate(1.0, from_step=1)}
    engine = EngineConfig(clip_norm=0, deepspeed=deepspeed).build(
        task,
        distributed.init("cpu"),
        optimizer=optimizer,
        num_micro_batches=1,
        max_steps=2,
        seed=0,
        rates=rates,
    )
    batch = Batch(keys=("a",), epochs=(0,), tracks={})
    moved = []
    for step in (0, 1):
        engine.train_step([batch], step)
        moved.append({name: round(1 - weight.item(), 3) for name, weight in task.encoder.named_parameters()})
    assert moved == [{"slow": 0.05, "late": 0.0, "plain": 0.1}, {"slow": 0.1, "late": 0.1, "plain": 0.2}]
    assert engine.state()["optimizer"]["step/encoder.late"] == 1
