import math
from dataclasses import replace

import pytest
import torch

from pretrain.masking import MaskConfig, hidden_steps
from pretrain.objectives.masked_lm import MaskedLMConfig, word_targets
from pretrain.objectives.objective import PretrainTask
from triptych.batch import fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
}


def make(**settings):
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    system = SystemConfig(cross_modal=CrossModalConfig(modalities=tuple(SPECS), transformer=transformer))
    encoder = build(system, SPECS, WORDS)
    return PretrainTask(encoder, {"masked_lm": MaskedLMConfig(**settings).build(encoder, seed=0)})


def test_loss_is_the_summed_cross_entropy_of_the_masked_words_and_starts_near_uniform():
    task = make(mask=MaskConfig(rate=0.5))
    batch = task.prepare(fake_batch(SPECS, num_clips=64))
    output = task(batch)
    loss = output.losses["masked_lm"]
    assert loss.count == task.counts(batch)["masked_lm"] == (batch.targets["masked_lm"] >= 0).sum()
    assert loss.sum.item() / loss.count == pytest.approx(math.log(len(WORDS)), rel=0.2)
    assert 0 <= output.report["accuracy/masked_lm"].sum <= loss.count


def test_what_is_hidden_cannot_change_the_prediction():
    task = make(mask=MaskConfig(rate=0.5)).eval()
    batch = task.prepare(fake_batch(SPECS))
    before = task(batch).losses["masked_lm"].sum
    for name in ("text", "audio"):
        hidden = batch.targets[f"masked_lm/hidden/{name}"]
        batch.tracks[name].values[hidden] = 7  # in place: the masked words' own ids and sound
    assert torch.equal(task(batch).losses["masked_lm"].sum, before)


def test_each_word_asks_every_word_once_with_the_others_in_sight():
    task = make(mask=MaskConfig(rate=0.01), evaluate="each_word").eval()
    batch = fake_batch(SPECS)
    together = task(batch).losses["masked_lm"]
    assert together.count == task.counts(batch)["masked_lm"] == batch.tracks["text"].mask.sum()
    task.train()  # there is no dropout: training mode only takes the masks from the batch
    alone = 0.0
    for clip in range(len(batch)):
        for position in range(int(batch.tracks["text"].mask[clip].sum())):
            words = torch.zeros_like(batch.tracks["text"].mask)
            words[clip, position] = True
            hidden = hidden_steps(batch, words, MaskConfig())
            targets = {f"masked_lm/hidden/{name}": steps for name, steps in hidden.items()}
            targets["masked_lm"] = word_targets(batch, words)
            alone += task(replace(batch, targets=targets)).losses["masked_lm"].sum.item()
    assert together.sum.item() == pytest.approx(alone, rel=1e-5)


def test_a_batch_without_targets_gives_a_zero_that_can_be_summed():
    task = make(mask=MaskConfig(rate=0.5))
    batch = task.prepare(fake_batch(SPECS, absent={"text": (0, 1, 2, 3)}))
    loss = task(batch).losses["masked_lm"]
    assert loss.count == 0
    assert loss.sum.item() == 0
    loss.sum.backward()


def test_an_encoder_with_another_anchor_is_refused():
    system = SystemConfig(cross_modal=CrossModalConfig(modalities=("audio",), anchor="audio"))
    with pytest.raises(ValueError, match="anchor must be text"):
        MaskedLMConfig().build(build(system, SPECS, WORDS), seed=0)


def test_shards_without_words_are_refused_with_the_way_out():
    system = SystemConfig(cross_modal=CrossModalConfig(modalities=("text",), anchor="text"))
    with pytest.raises(ValueError, match=r"no clip of the training split has words.*transcripts=\[words.ctm\]"):
        MaskedLMConfig().build(build(system, SPECS, ()), seed=0)
