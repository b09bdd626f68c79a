"""The decoder half of CAE-LR, and a run of both."""

from pathlib import Path

import pytest
import torch

from pretrain.build import build_task
from pretrain.config import PretrainConfig
from pretrain.masking import MaskConfig
from pretrain.objectives.contrastive import ContrastiveConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.objectives.reconstruction import ReconstructionConfig
from pretrain.objectives.weak_labels import WeakLabelsConfig
from shards.reading.index import ShardSet
from shards.reading.read import TrainLoader
from triptych import config
from triptych.batch import Batch, Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.load import SystemConfig, build, load, save_encoder

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
}
WIDTHS = {"text": 12, "audio": 8}


def make(**settings):
    torch.manual_seed(0)
    system = {"autoencoder": {"modalities": list(SPECS), "first_channels": 4, "word_width": 12}}
    encoder = build(config.load(SystemConfig, system), SPECS, WORDS)
    return PretrainTask(encoder, {"reconstruction": ReconstructionConfig(**settings).build(encoder, seed=0)})


def say_zero(task):
    """Let the decoder answer 0 everywhere, so that the error is what the matrix holds."""
    last = task.objectives["reconstruction"].convolutions[0]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)


def test_the_loss_is_the_squared_error_of_what_is_real():
    task = make(weights={"audio": 0.5})
    say_zero(task)
    batch = task.prepare(fake_batch(SPECS, absent={"audio": (1,)}))
    output = task(batch)
    words = batch.tracks["text"].mask.sum(dim=1)  # 6, 5, 4, 3
    counts = {"text": 12 * int(words.sum()), "audio": 8 * int(words[[0, 2, 3]].sum())}
    assert {name: output.report[f"error_{name}/reconstruction"].count for name in SPECS} == counts
    total = output.losses["reconstruction"]
    assert task.counts(batch)["reconstruction"] == total.count == sum(counts.values())
    text, audio = task.encoder.squeeze(batch.tracks).matrix.square().split([12, 8], dim=2)
    torch.testing.assert_close(total.sum, text.sum() + 0.5 * audio.sum())
    torch.testing.assert_close(output.report["error_audio/reconstruction"].sum, audio.sum())


def test_what_is_said_where_nothing_is_real_costs_nothing():
    task = make()
    say_zero(task)
    batch = fake_batch(SPECS, num_clips=2, absent={"text": (0, 1), "audio": (0, 1)})
    total = task(batch).losses["reconstruction"]
    assert (total.sum.item(), total.count) == (0.0, 0)
    total.sum.backward()  # on a rank that has none, too
    assert all(weight.grad is not None for weight in task.parameters() if weight.requires_grad)


def test_a_batch_loses_what_its_clips_lose_alone():
    """So that neither the cut into micro-batches nor the ranks matter."""
    task = make()
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (2,)})
    whole = task(batch).losses["reconstruction"]
    alone = []
    for clip in range(len(batch)):
        tracks = {}
        for name, track in batch.tracks.items():
            values, mask, times = (getattr(track, part)[clip : clip + 1] for part in ("values", "mask", "times"))
            tracks[name] = Track(values=values, mask=mask, times=times)
        alone.append(task(Batch(keys=("a",), epochs=(0,), tracks=tracks)).losses["reconstruction"])
    assert whole.count == sum(one.count for one in alone)
    torch.testing.assert_close(whole.sum, torch.stack([one.sum for one in alone]).sum(), rtol=1e-5, atol=0)


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r"no modality 'audoi'. Did you mean audio\?"):
        ReconstructionConfig(weights={"audoi": 1.0})
    with pytest.raises(ValueError, match=r"audio: -1\.0 must be"):
        ReconstructionConfig(weights={"audio": -1.0})
    with pytest.raises(ValueError, match="every weight is 0"):
        make(weights={"audio": 0.0, "text": 0.0})
    small = {"modalities": ["text"], "transformer": {"width": 8, "layers": 1, "heads": 2}}
    other = build(config.load(SystemConfig, {"cross_modal": small}), SPECS, WORDS)
    with pytest.raises(ValueError, match=r"that encoder\.autoencoder sees; use that encoder"):
        ReconstructionConfig().build(other, seed=0)


def test_other_objectives_say_whether_they_suit_the_encoder():
    encoder = make().encoder
    with pytest.raises(ValueError, match="compares towers, which this encoder does not have"):
        ContrastiveConfig().build(encoder, seed=0)
    with pytest.raises(ValueError, match="which this encoder does not have"):
        MaskedLMConfig(mask=MaskConfig()).build(encoder, seed=0)
    labelled = PretrainTask(encoder, {"weak_labels": WeakLabelsConfig(labels={"x": ["a", "b"]}).build(encoder, 0)})
    batch = fake_batch(SPECS, absent={"audio": (1,), "text": (1,)})
    batch.labels["x"] = torch.tensor([0, 1, 1, -1])  # a clip without anything to see is not asked
    assert labelled.prepare(batch).targets["weak_labels"][:, 0].tolist() == [0, -100, 1, -100]


def sound_alone(tones: Path, *overrides: str) -> PretrainConfig:
    """The shipped config on half-second tones, whose shards have no words and no picture."""
    small = ["stream.features.video=null", "stream.features.audio.lfbe.bands=8", "stream.text=false"]
    small += ["encoder.autoencoder.modalities=[audio]", "encoder.autoencoder.first_channels=4"]
    small += [f"stream.shards={tones / 'shards'}", "stream.global_batch=4", "stream.micro_batch=4", "stream.workers=0"]
    return config.load(PretrainConfig, config.find("cae", "pretrain"), [*small, *overrides])


def test_the_shipped_config_learns_on_any_clips_and_leaves_its_decoder_behind(tones: Path, tmp_path: Path):
    settings = sound_alone(tones)
    shard_set = ShardSet(settings.stream.shards, settings.stream.cache)
    torch.manual_seed(0)
    task = build_task(settings, ())
    loader = TrainLoader(
        shard_set, settings.stream, vocabulary=shard_set.vocabulary(), seed=0, rank=0, world=1, prepare=task.prepare
    )
    weights = [weight for weight in task.parameters() if weight.requires_grad]
    errors = []
    for _, (batch,) in zip(range(20), loader.steps(0), strict=False):
        total = task(batch).losses["reconstruction"]
        errors.append(total.sum.item() / total.count)
        gradients = torch.autograd.grad(total.sum / total.count, weights)
        with torch.no_grad():  # by hand, for torch's optimizers take 5 s to import
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.1 * gradient
    assert sum(errors[-3:]) < 0.5 * sum(errors[:3])
    save_encoder(task.encoder, tmp_path / "encoder")
    again = load(tmp_path / "encoder")
    assert set(again.widths) == {"audio", "fused"}
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in task.encoder.parameters())


def test_word_vectors_that_are_targets_too_cannot_be_trained(tones: Path):
    with pytest.raises(UserError, match=r"word_vectors\.train: encoder\.autoencoder reconstructs the vectors"):
        sound_alone(tones, "word_vectors.file=x", "word_vectors.train=true")
