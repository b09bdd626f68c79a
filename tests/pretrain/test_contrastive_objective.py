"""The contrastive objective over an encoder: heads, windows, missing panels, and others beside it."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from pretrain.losses.contrastive import pair_loss
from pretrain.objectives.contrastive import ContrastiveConfig, HeadConfig, TemperatureConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.windows import WindowsConfig
from triptych.batch import Batch, fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build
from triptych.training import compare
from triptych.training.distributed import alone

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
    "video": FeatureSpec(name="face_crops", modality="video", version=1, rate_hz=25.0, shape=(4, 4), dtype="uint8"),
}
HEAD = HeadConfig(hidden=16, width=8)
CPU = alone(torch.device("cpu"))


def make(masked_lm: bool = False, dropout: float = 0.0, **settings: Any) -> PretrainTask:
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=dropout)
    encoder = build(SystemConfig(cross_modal=CrossModalConfig(transformer=transformer)), SPECS, WORDS)
    config = ContrastiveConfig(**{"variant": "infonce", "head": HEAD, **settings})
    objectives: dict[str, Any] = {"contrastive": config.build(encoder, seed=0)}
    if masked_lm:
        objectives = {"masked_lm": MaskedLMConfig().build(encoder, seed=0), **objectives}
    return PretrainTask(encoder, objectives)


def loss_of(task: PretrainTask, batch: Batch) -> tuple[torch.Tensor, int]:
    embedded = task.embed(batch)["contrastive"]
    total, _ = task.compare("contrastive", embedded, slice(0, len(batch)), CPU)
    return total.sum, total.count


def test_the_loss_is_the_mean_over_ordered_pairs_of_each_pairs_own_heads() -> None:
    task = make()
    batch = fake_batch(SPECS, num_clips=5)
    rows = task.embed(batch)["contrastive"].rows
    assert set(rows) == {f"{m}_to_{n}" for m in SPECS for n in SPECS if m != n}
    pairs = [
        pair_loss(rows[f"{m}_to_{n}"][:, 0], rows[f"{n}_to_{m}"][:, 0], temperature=0.07, variant="infonce")
        for m in SPECS
        for n in SPECS
        if m != n
    ]
    total, count = loss_of(task, batch)
    assert count == task.counts(batch)["contrastive"] == 5
    torch.testing.assert_close(total / count, torch.stack(pairs).mean())


def test_a_head_for_each_modality_serves_all_its_pairs() -> None:
    task = make(head=replace(HEAD, per="modality"), modalities=("audio", "video"))
    rows = task.embed(fake_batch(SPECS, num_clips=5))["contrastive"].rows
    assert {name: tuple(value.shape) for name, value in rows.items()} == {"audio": (5, 1, 8), "video": (5, 1, 8)}


def test_segments_are_means_over_equal_parts_that_share_a_head() -> None:
    task = make(head=replace(HEAD, per="modality", segments=3), modalities=("audio", "video"))
    batch = fake_batch(SPECS, num_clips=2, num_words=6)
    rows = task.embed(batch)["contrastive"].rows
    assert rows["audio"].shape == (2, 1, 3 * 8)
    sequence = task.encoder.encode(batch, fuse=False).towers["audio"].sequence[0]  # 36 steps: parts of 12
    middle = task.objectives["contrastive"].heads["audio"](sequence[12:24].mean(dim=0))
    torch.testing.assert_close(rows["audio"][0, 0, 8:16], middle, rtol=1e-4, atol=1e-5)


def test_a_cls_is_in_no_segment() -> None:
    task = make(head=replace(HEAD, per="modality", segments=2), modalities=("text", "audio"))
    batch = fake_batch(SPECS, num_clips=2, num_words=5)
    encoder, head = task.encoder, task.objectives["contrastive"].heads["text"]
    sequence = encoder.encode(batch, fuse=False).towers["text"].sequence[0]
    with patch.object(type(encoder), "modalities_with_cls", ("text",)):  # its first word stands for one
        first, second = task.embed(batch)["contrastive"].rows["text"][0, 0].split(8)
    torch.testing.assert_close(first, head(sequence[1:3].mean(dim=0)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, head(sequence[3:5].mean(dim=0)), rtol=1e-4, atol=1e-5)


def test_a_clip_without_a_panel_has_no_part_in_its_pairs_and_one_with_a_single_panel_in_none() -> None:
    task = make()
    batch = task.prepare(fake_batch(SPECS, num_clips=6, absent={"text": (0, 1), "audio": (1,)}))
    assert task.counts(batch)["contrastive"] == 5  # clip 1 has its picture only
    before, count = loss_of(task, batch)
    assert count == 5
    batch.tracks["video"].values[1] += 7
    torch.testing.assert_close(loss_of(task, batch)[0], before, rtol=0, atol=0)


def test_two_windows_of_each_clip_are_compared_in_training_and_whole_clips_otherwise() -> None:
    task = make(variant="two_view", windows=WindowsConfig(seconds=0.8))
    batch = task.prepare(fake_batch(SPECS, num_clips=4, num_words=12))
    rows = task.train().embed(batch)["contrastive"].rows["audio_to_video"]
    assert rows.shape == (4, 2, 8)
    assert not torch.allclose(rows[:, 0], rows[:, 1])
    total, _ = loss_of(task, batch)
    assert total.requires_grad
    whole = task.eval().embed(batch)["contrastive"].rows["audio_to_video"]
    assert whole.shape == (4, 1, 8)
    plain = make().eval()
    plain.load_state_dict(task.state_dict())
    torch.testing.assert_close(
        whole, plain.embed(fake_batch(SPECS, num_clips=4, num_words=12))["contrastive"].rows["audio_to_video"]
    )
    assert loss_of(task, batch)[0].isfinite()


@pytest.mark.parametrize("settings", [{"temperature": TemperatureConfig(learn=True)}, {"variant": "sigmoid"}])
def test_temperature_and_bias_are_learnt_where_they_are_to_be(settings: dict[str, Any]) -> None:
    task = make(**settings)
    embedded = task.embed(fake_batch(SPECS, num_clips=5))
    compared = compare.compare(task, [embedded], {"contrastive": 1.0}, CPU)
    compare.pull_back(embedded, compared.gradients[0]).backward()
    contrastive = task.objectives["contrastive"]
    learnt = contrastive.bias if "variant" in settings else contrastive.log_temperature
    assert learnt.grad is not None
    assert learnt.grad.abs() > 0
    if "variant" in settings:
        assert not contrastive.log_temperature.requires_grad


def test_a_step_cut_into_micro_batches_gives_the_gradient_of_the_whole() -> None:
    task = make(temperature=TemperatureConfig(learn=True))
    batch = fake_batch(SPECS, num_clips=7)
    total, count = loss_of(task, batch)
    (total / count).backward()
    whole = {name: weight.grad.clone() for name, weight in task.named_parameters() if weight.grad is not None}
    task.zero_grad()
    parts = [cut(batch, 0, 3), cut(batch, 3, 7)]
    embedded = [task.embed(part) for part in parts]
    compared = compare.compare(task, embedded, {"contrastive": 1 / count}, CPU)
    for part, gradients in zip(embedded, compared.gradients, strict=True):
        compare.pull_back(part, gradients).backward()
    for name, weight in task.named_parameters():
        if name in whole:
            torch.testing.assert_close(weight.grad, whole[name], rtol=1e-4, atol=1e-6, msg=name)


def test_with_another_objective_both_losses_stand_side_by_side() -> None:
    task = make(masked_lm=True)
    batch = task.prepare(fake_batch(SPECS, num_clips=5))
    assert set(task.counts(batch)) == {"masked_lm", "contrastive"}
    assert set(task(batch).losses) == {"masked_lm"}
    assert set(task.embed(batch)) == {"contrastive"}
    assert task.compares
    assert task.has_losses
    assert not make().has_losses


def test_what_cannot_be_compared_is_refused() -> None:
    for settings, message in (
        ({"modalities": ("audio",)}, "two different"),
        ({"modalities": ("audio", "audio")}, "two different"),
        ({"variant": "two_view"}, "windows: two_view"),
    ):
        with pytest.raises(ValueError, match=message):
            ContrastiveConfig(**settings)
    encoder = make().encoder
    with pytest.raises(ValueError, match="the encoder has no faces; it has text, audio, video"):
        ContrastiveConfig(modalities=("audio", "faces")).build(encoder, seed=0)


def cut(batch: Batch, first: int, last: int) -> Batch:
    tracks = {
        name: replace(
            track, values=track.values[first:last], mask=track.mask[first:last], times=track.times[first:last]
        )
        for name, track in batch.tracks.items()
    }
    return replace(batch, keys=batch.keys[first:last], epochs=batch.epochs[first:last], tracks=tracks)
