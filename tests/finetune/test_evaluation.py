from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from finetune import losses
from finetune.evaluation import Scored, ScoreEvaluator, answers_of, figures, predict
from finetune.heads.linear import LinearConfig
from finetune.task import FinetuneTask
from triptych.batch import UNLABELLED, fake_batch
from triptych.config import UserError
from triptych.evaluation import results
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoded, Encoder
from triptych.protocols import registry
from triptych.training import distributed
from triptych.training.engine_accelerate import AccelerateEngine
from triptych.training.optim import OptimizerConfig
from triptych.training.step_loss import Arithmetic

SPECS = {"audio": FeatureSpec(name="b", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32")}
PROTOCOL = registry.find("synthetic", ("happy", "sad"))


class TinyEncoder(Encoder):
    def __init__(self):
        super().__init__()
        self.inputs, self.words, self.widths = SPECS, (), {"audio": 3}
        self.linear = nn.Linear(3, 3)

    def encode(self, batch, *, fuse=True, layers=False):
        audio = batch.tracks["audio"]
        pooled = self.linear(audio.values.mean(1)) * audio.present[:, None]
        return Encoded(pooled={"audio": pooled}, present={"audio": audio.present})


@pytest.fixture
def engine():
    torch.manual_seed(0)
    encoder = TinyEncoder()
    head = LinearConfig(dropout=0.5).build(encoder, ("audio",), 2, None)
    task = FinetuneTask(encoder, head, losses.build("", PROTOCOL, None))
    settings = {"optimizer": OptimizerConfig(), "max_steps": 1, "seed": 0}
    return AccelerateEngine(task, distributed.init("cpu"), Arithmetic(), **settings)


def loader(*classes):
    batch = replace(fake_batch(SPECS, num_clips=len(classes)), labels={"emotion": torch.tensor(classes)})
    return SimpleNamespace(batches=lambda: iter([batch]))


def scored(*classes):
    keys = tuple(f"clip-{number:04d}" for number in range(len(classes)))
    return Scored(split=results.Split(keys=keys, truth=np.array(classes)), steps=[])


def test_every_clip_is_predicted_without_dropout_whatever_its_label(engine):
    first, other = predict(engine, loader(0, UNLABELLED, 1)), predict(engine, loader(1, 1, UNLABELLED))
    assert list(first) == ["clip-0000", "clip-0001", "clip-0002"]
    assert all((first[key] == other[key]).all() for key in first)


def test_a_modality_that_is_removed_has_no_part_in_a_prediction(engine):
    without = predict(engine, loader(0, 1), ())
    assert (without["clip-0000"] == without["clip-0001"]).all()
    whole = predict(engine, loader(0, 1))
    assert (whole["clip-0000"] != whole["clip-0001"]).any()


def test_scores_on_valid_are_those_of_the_predictions(engine):
    with torch.no_grad():  # answer class 1 to everything
        engine.task.head.linear.weight.zero_()
        engine.task.head.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    found = ScoreEvaluator("valid", engine, loader(0, 0, 0, 1), PROTOCOL, scored(0, 0, 0, 1)).evaluate(10)
    assert found["WA"] == 0.25
    assert found["UA"] == 0.5


def test_series_are_cut_to_the_steps_of_their_clip_that_have_labels():
    series, steps = np.arange(10.0).reshape(5, 2), np.array([True, False, True])
    clips = Scored(split=results.Split(keys=("a",), truth=np.empty(1, dtype=object)), steps=[steps])
    (said,) = answers_of(registry.find("avec2017"), clips, [series])
    assert said.tolist() == [[0, 1], [4, 5]]


def test_a_split_on_which_the_choosing_metric_is_undefined_is_refused_and_other_metrics_are_left_out():
    emotions = registry.find("mosei_emotion")
    none = np.zeros((4, 6))
    with pytest.raises(UserError, match="valid: w-ACC, by which a step is chosen, is undefined on its 4 clips: happy"):
        figures(emotions, none, none.astype(int), "valid")
    found = figures(replace(emotions, select="accuracy"), none, none.astype(int), "valid")
    assert found["accuracy"] == 1
    assert "w-ACC" not in found
