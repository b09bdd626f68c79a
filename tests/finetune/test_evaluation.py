from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from finetune.evaluation import ScoreEvaluator, predict
from finetune.heads.linear import LinearConfig
from finetune.task import FinetuneTask
from triptych import distributed
from triptych.batch import UNLABELLED, fake_batch
from triptych.engine_accelerate import AccelerateConfig, AccelerateEngine
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoded, Encoder
from triptych.optim import OptimizerConfig
from triptych.protocols import registry

SPECS = {"audio": FeatureSpec(name="b", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32")}
PROTOCOL = registry.find("synthetic", ("happy", "sad"))


class TinyEncoder(Encoder):
    def __init__(self):
        super().__init__()
        self.inputs, self.words, self.widths = SPECS, (), {"audio": 3}
        self.linear = nn.Linear(3, 3)

    def encode(self, batch, *, fuse=True, layers=False):
        audio = batch.tracks["audio"]
        return Encoded(pooled={"audio": self.linear(audio.values.mean(1))}, present={"audio": audio.present})


@pytest.fixture
def engine():
    torch.manual_seed(0)
    encoder = TinyEncoder()
    task = FinetuneTask(encoder, LinearConfig(dropout=0.5).build(encoder, ("audio",), 2, None), "emotion")
    settings = {"optimizer": OptimizerConfig(), "max_steps": 1, "seed": 0}
    return AccelerateEngine(task, distributed.init("cpu"), AccelerateConfig(), **settings)


def loader(*classes):
    batch = replace(fake_batch(SPECS, num_clips=len(classes)), labels={"emotion": torch.tensor(classes)})
    return SimpleNamespace(batches=lambda: iter([batch]))


def test_predictions_leave_unlabelled_clips_out_and_use_no_dropout(engine):
    first = predict(engine, loader(0, UNLABELLED, 1), "emotion")
    assert first.split.keys == ("clip-0000", "clip-0002")
    assert first.split.left_out == 1
    assert first.probabilities.sum(axis=1) == pytest.approx(1)
    assert (predict(engine, loader(0, UNLABELLED, 1), "emotion").probabilities == first.probabilities).all()


def test_scores_on_valid_are_those_of_the_predictions(engine):
    with torch.no_grad():  # answer class 1 to everything
        engine.task.head.linear.weight.zero_()
        engine.task.head.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    figures = ScoreEvaluator("valid", engine, loader(0, 0, 0, 1), PROTOCOL).evaluate(10)
    assert figures["WA"] == 0.25
    assert figures["UA"] == 0.5
