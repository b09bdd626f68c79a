"""A second objective needs its own class and nothing else: encoder, masks, weights and engine stay as they are."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from pretrain.masking import MaskConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import Objective, ObjectiveConfig, PretrainTask
from triptych.batch import fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build
from triptych.training import distributed
from triptych.training.engine_accelerate import AccelerateEngine
from triptych.training.optim import OptimizerConfig
from triptych.training.step_loss import Arithmetic
from triptych.training.task import Total

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
}


@dataclass(frozen=True)
class DrawLengths:
    """The number of sound steps of each clip, in tens."""

    def __call__(self, batch):
        lengths = batch.tracks["audio"].mask.sum(dim=1) / 10
        return replace(batch, targets={**batch.targets, "length": lengths})


class Length(Objective):
    """Tell a clip's length from its sound; clips without sound are not asked."""

    name = "length"
    prepare = DrawLengths()

    def __init__(self, encoder):
        super().__init__(ObjectiveConfig(weight=0.25))
        self.output = nn.Linear(encoder.widths["audio"], 1)

    def count(self, batch):
        return int((batch.targets["length"] > 0).sum())

    def forward(self, encoder, batch):
        truth = batch.targets["length"]
        wrong = (self.output(encoder.encode(batch).pooled["audio"])[:, 0] - truth).abs() * (truth > 0)
        count = self.count(batch)
        return Total(wrong.sum(), count), {"error": Total(wrong.sum().detach(), count)}


def make_task():
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    system = SystemConfig(cross_modal=CrossModalConfig(modalities=tuple(SPECS), transformer=transformer))
    encoder = build(system, SPECS, WORDS)
    masked_lm = MaskedLMConfig(mask=MaskConfig(rate=0.5)).build(encoder, seed=0)
    return PretrainTask(encoder, {"masked_lm": masked_lm, "length": Length(encoder)})


def make_batches(task, sizes=(4, 2)):
    """Micro-batches of different sizes; the first has a clip without sound."""
    return [
        task.prepare(fake_batch(SPECS, num_clips=size, seed=seed, absent={} if seed else {"audio": (1,)}))
        for seed, size in enumerate(sizes)
    ]


@pytest.fixture
def engine(monkeypatch):
    from accelerate.state import AcceleratorState, PartialState

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # so that they are as before afterwards
        monkeypatch.delenv(name)
    dist = distributed.init("cpu")
    optimizer = OptimizerConfig(lr=0.01)
    yield AccelerateEngine(make_task(), dist, Arithmetic(), optimizer=optimizer, max_steps=40, seed=0)
    dist.shutdown()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


def test_two_objectives_train_one_encoder_each_over_its_own_items(engine):
    batches = make_batches(engine.task)
    assert engine.task.counts(batches[0])["length"] == 3
    with torch.no_grad():
        outputs = [engine.task(batch) for batch in batches]
    expected = {
        name: sum(output.losses[name].sum.item() for output in outputs)
        / sum(output.losses[name].count for output in outputs)
        for name in ("masked_lm", "length")
    }
    results = [engine.train_step(batches, step) for step in range(40)]
    assert results[0].losses == pytest.approx(expected, rel=1e-5)
    assert results[0].loss == pytest.approx(expected["masked_lm"] + 0.25 * expected["length"], rel=1e-5)
    assert set(results[0].report) == {"accuracy/masked_lm", "error/length"}
    assert results[-1].losses["masked_lm"] < 0.5 * results[0].losses["masked_lm"]
    assert results[-1].losses["length"] < 0.5 * results[0].losses["length"]


def test_an_objectives_weight_follows_its_schedule_and_its_loss_is_told_while_it_counts_nothing(engine):
    engine.task.objectives["length"].config = ObjectiveConfig(weight=0.25, weight_at={0: 0.0, 10: 1.0})
    batches = make_batches(engine.task)
    head = engine.task.objectives["length"].output.weight
    before = head.detach().clone()
    for step, weight in ((0, 0.0), (5, 0.125), (10, 0.25)):
        result = engine.train_step(batches, step)
        losses = result.losses
        assert losses["length"] > 0
        assert result.loss == pytest.approx(losses["masked_lm"] + weight * losses["length"], rel=1e-6)
        if step == 0:
            torch.testing.assert_close(head, before, rtol=0.001, atol=0)  # weight decay alone
    assert (head - before).abs().max() > 0.001


def test_what_one_objective_draws_does_not_change_the_other():
    both = make_task()
    alone = PretrainTask(both.encoder, {"masked_lm": both.objectives["masked_lm"]})
    for with_length, without in zip(make_batches(both), make_batches(alone), strict=True):
        assert torch.equal(with_length.targets["masked_lm"], without.targets["masked_lm"])
        assert torch.equal(both(with_length).losses["masked_lm"].sum, alone(without).losses["masked_lm"].sum)
