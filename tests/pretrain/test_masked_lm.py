import math
from dataclasses import replace

import pytest
import torch

from pretrain.config import PretrainConfig
from pretrain.masking import HideConfig, MaskConfig, hidden_steps
from pretrain.objectives.masked_lm import MaskedLMConfig, word_targets
from pretrain.objectives.objective import PretrainTask
from triptych.batch import fake_batch
from triptych.config import UserError, find, load
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


def make(anchor="text", modalities=("text", "audio"), **settings):
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    config = CrossModalConfig(modalities=modalities, anchor=anchor, transformer=transformer, positions="seconds")
    encoder = build(SystemConfig(cross_modal=config), SPECS, WORDS)
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


ANCHORS = pytest.mark.parametrize(
    ("anchor", "inputs"),
    [("audio", ("text", "audio")), ("audio", ("audio",)), ("each", ("text", "audio")), ("each", ("audio",))],
)


def spoken(seed):
    """Clips whose sound tells the words: each word is a pattern of its own in the steps that overlap it alone."""
    batch = fake_batch(SPECS, num_clips=8, num_words=10, vocabulary_size=5, seed=seed)
    text, audio = batch.tracks["text"], batch.tracks["audio"]
    starts, ends = audio.times[..., None, :].unbind(-1)
    during = (starts < text.times[:, None, :, 1]) & (ends > text.times[:, None, :, 0]) & text.mask[:, None]
    patterns = torch.nn.functional.one_hot(text.values, 8).float() * 3
    audio = replace(audio, values=(during.float() @ patterns) * audio.mask[..., None])
    return replace(batch, tracks={"text": text, "audio": audio}, keys=tuple(f"{seed}-{key}" for key in batch.keys))


@ANCHORS
def test_with_or_without_text_words_are_learned_from_their_sound(anchor, inputs):
    task = make(anchor=anchor, inputs=inputs, mask=MaskConfig(rate=0.7, hide=("text",)), evaluate="each_word")
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    for step in range(40):
        loss = task(task.prepare(spoken(step))).losses["masked_lm"]
        optimizer.zero_grad()
        (loss.sum / loss.count).backward()
        optimizer.step()
    with torch.no_grad():
        output = task.eval()(task.prepare(spoken(1000)))
    accuracy = output.report["accuracy/masked_lm"]
    assert accuracy.sum / accuracy.count > 0.8  # by chance .2


@ANCHORS
def test_nothing_of_a_masked_word_is_in_sight_of_any_anchor(anchor, inputs):
    task = make(anchor=anchor, inputs=inputs, mask=MaskConfig(rate=0.5)).eval()
    batch = task.prepare(fake_batch(SPECS))
    before = task(batch).losses["masked_lm"].sum
    for name in ("text", "audio"):
        batch.tracks[name].values[batch.targets[f"masked_lm/hidden/{name}"]] = 7
    assert torch.equal(task(batch).losses["masked_lm"].sum, before)


@pytest.mark.parametrize("anchor", ["audio", "each"])
def test_without_text_among_the_inputs_no_word_is_in_sight_and_all_weights_take_part(anchor):
    task = make(anchor=anchor, inputs=("audio",), mask=MaskConfig(rate=0.5, hide=("text",)))
    batch = task.prepare(fake_batch(SPECS))
    before = task(batch).losses["masked_lm"].sum
    batch.tracks["text"].values[:] = 7  # what is asked was drawn before
    after = task(batch).losses["masked_lm"].sum
    assert torch.equal(after, before)
    after.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())  # zero for the text's


def test_a_system_without_a_text_tower_tells_words_from_sound():
    task = make(anchor="audio", modalities=("audio",), mask=MaskConfig(rate=0.5))
    loss = task(task.prepare(fake_batch(SPECS))).losses["masked_lm"]
    assert loss.count > 0
    assert loss.sum.item() / loss.count == pytest.approx(math.log(len(WORDS)), rel=0.3)


def test_clips_without_an_anchor_are_not_asked():
    batch = fake_batch(SPECS, absent={"audio": (0, 2)})
    everywhere = make(anchor="each", mask=MaskConfig(rate=0.9)).prepare(batch).targets["masked_lm"]
    by_sound = make(anchor="audio", mask=MaskConfig(rate=0.9)).prepare(batch).targets["masked_lm"]
    assert (everywhere >= 0).any(dim=1).all()
    assert (by_sound >= 0).any(dim=1).tolist() == [False, True, False, True]
    assert torch.equal(by_sound[1::2], everywhere[1::2])
    task = make(anchor="audio", evaluate="each_word").eval()
    assert task.counts(batch)["masked_lm"] == batch.tracks["text"].mask[1::2].sum()


@pytest.mark.parametrize("evaluate", ["drawn", "each_word"])
def test_an_evaluation_tells_of_each_way_to_hide_as_if_it_were_the_only_one(evaluate):
    def score(**mask):
        task = make(mask=MaskConfig(rate=0.5, **mask), evaluate=evaluate).eval()
        output = task(task.prepare(fake_batch(SPECS)))
        return output.losses["masked_lm"], output.report

    both, report = score(hide=("text",), otherwise=[HideConfig(hide=("text", "audio"), share=0.25)])
    (text, _), (text_audio, _) = score(hide=("text",)), score(hide=("text", "audio"))
    assert report["loss/text/masked_lm"].sum == text.sum
    assert report["loss/text+audio/masked_lm"].sum == text_audio.sum
    assert both.sum.item() == pytest.approx(0.75 * text.sum.item() + 0.25 * text_audio.sum.item(), rel=1e-6)
    assert {total.count for total in report.values()} == {both.count} == {text.count}


def test_an_encoder_without_a_usable_anchor_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"inputs: \['audio'\] lack the encoder's anchor, text; add it, or set"):
        make(inputs=("audio",))
    with pytest.raises(ValueError, match=r"inputs: \['sound'\] must be some of text, audio, video"):
        make(inputs=("sound",))
    encoder = make().encoder
    encoder.anchors = ()
    with pytest.raises(ValueError, match="tells words from fused sequences, which this encoder does not have"):
        MaskedLMConfig().build(encoder, seed=0)


def test_shards_without_words_are_refused_with_the_way_out():
    system = SystemConfig(cross_modal=CrossModalConfig(modalities=("text",), anchor="text"))
    with pytest.raises(ValueError, match=r"no clip of the training split has words.*transcripts=\[words.ctm\]"):
        MaskedLMConfig().build(build(system, SPECS, ()), seed=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stream.text=false"], r"stream\.text: false, but objectives\.masked_lm asks for words"),
        (
            ["engine.zero_stage=3", "objectives.masked_lm.evaluate=each_word"],
            r"objectives\.masked_lm\.evaluate: each_word .* set engine\.zero_stage to 2 or less",
        ),
        (["objectives.masked_lm.output=glove"], r"objectives\.masked_lm\.output: glove starts from word vectors"),
    ],
)
def test_a_config_that_the_objective_cannot_train_is_refused_by_the_objective(overrides: list[str], message: str):
    path = find("grid_text_only", "pretrain")
    assert load(PretrainConfig, path, ["stream.shards=x"]).objectives.masked_lm is not None
    with pytest.raises(UserError, match=message):
        load(PretrainConfig, path, ["stream.shards=x", *overrides])
