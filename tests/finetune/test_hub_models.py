"""A model that others published, inside of the encoder that is fine-tuned."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import FinetuneConfig
from finetune.plan import make_plan
from finetune.train import run
from finetune.trained_weights import rates_of
from triptych.config import UserError
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

ROBERTA = "towers.text.encoder.model."


def config(encoder: Path, moods: Path, out: Path, **settings) -> FinetuneConfig:
    return FinetuneConfig(
        encoder=str(encoder),
        shards=str(moods / "shards"),
        out=str(out),
        protocol="mosei_sentiment",
        seeds=[0],
        global_batch=8,
        micro_batch=4,
        missing=False,
        num_resamples=20,
        optimizer=OptimizerConfig(lr=0.01),
        trainer=TrainerConfig(max_steps=4, log_every=1, evaluate_every=4, checkpoint_every=2, keep_checkpoints=1),
        **settings,
    )


def moved(encoder: Path, trained: Path) -> set[str]:
    """Names of the weights that differ."""
    before, after = load_file(encoder / "model.safetensors"), load_file(trained / "encoder" / "model.safetensors")
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_it_trains_with_the_rest_unless_it_is_frozen(moods: Path, over_roberta: Path, tmp_path: Path):
    assert run(config(over_roberta, moods, tmp_path / "all", init=["frozen", "pretrained"])) == 0
    assert run(config(over_roberta, moods, tmp_path / "hub", freeze="hub")) == 0

    names = {name for name in load_file(over_roberta / "model.safetensors") if name.startswith(ROBERTA)}
    whole = moved(over_roberta, tmp_path / "all" / "runs" / "pretrained-seed-0")
    layers = {name for name in names if "encoder.layer." in name and "key.bias" not in name}  # which softmax takes out
    assert layers <= whole
    assert moved(over_roberta, tmp_path / "all" / "runs" / "frozen-seed-0") == set()
    rest = moved(over_roberta, tmp_path / "hub" / "runs" / "pretrained-seed-0")
    assert rest == whole - names != set()


def test_it_goes_on_where_it_was_interrupted(moods: Path, over_roberta: Path, tmp_path: Path, stopped_at):
    assert run(config(over_roberta, moods, tmp_path / "whole")) == 0
    with stopped_at(2):
        assert run(config(over_roberta, moods, tmp_path / "cut")) == 75
    assert run(config(over_roberta, moods, tmp_path / "cut")) == 0
    for file in ("predictions.csv", "runs/pretrained-seed-0/encoder/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    report = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert report["systems"][-1]["system"] == "fine-tuned"


def test_its_layers_have_rates_and_join_from_the_top(moods: Path, over_roberta: Path, tmp_path: Path):
    plan = make_plan(config(over_roberta, moods, tmp_path, freeze="hub", unfreeze_every=5, layer_decay=0.5))
    task = plan.task(plan.parts[1.0][0], "pretrained", 0)
    rates = rates_of(task.encoder, plan.config.encoder_training("pretrained"))
    last, first = (rates[f"{ROBERTA}encoder.layer.{layer}.output.dense.weight"] for layer in (1, 0))
    assert (last.scale, last.from_step) == (1, 5)
    assert (first.scale, first.from_step) == (0.5, 10)
    assert all(rate.from_step == 0 for name, rate in rates.items() if "audio" in name)


def test_where_there_is_none_it_cannot_be_frozen(moods: Path, tmp_path: Path):
    with pytest.raises(UserError, match="freeze: the encoder has no model of transformers"):
        make_plan(config(moods / "encoder", moods, tmp_path, freeze="hub"))
