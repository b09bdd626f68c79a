"""The command from shards to the report, with a tiny encoder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import FinetuneConfig
from finetune.heads.config import HeadConfig
from finetune.heads.linear import LinearConfig
from finetune.plan import make_plan
from finetune.train import run
from triptych.config import UserError
from triptych.models.load import load
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig


def config(tones: Path, out: Path, **settings) -> FinetuneConfig:
    settings = {"seeds": [0], "encoder": str(tones / "encoder"), "trainer": trainer(20), **settings}
    return FinetuneConfig(
        shards=str(tones / "shards"),
        out=str(out),
        classes=["happy", "sad"],
        global_batch=4,
        optimizer=OptimizerConfig(lr=0.01),
        num_resamples=50,
        **settings,
    )


def trainer(max_steps: int) -> TrainerConfig:
    return TrainerConfig(max_steps=max_steps, log_every=1, evaluate_every=5, checkpoint_every=5, keep_checkpoints=1)


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("samples_per_s", "data_wait_share", "time_s")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.mark.slow
def test_two_tones_are_learnt_from_both_initial_weights(tones: Path, tmp_path: Path):
    assert run(config(tones, tmp_path, init=["pretrained", "random"])) == 0
    numbers = json.loads((tmp_path / "results.json").read_text())
    ua = {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}
    assert list(ua) == ["majority class", "from scratch", "fine-tuned"]
    assert ua["majority class"] == 0.5
    assert ua["fine-tuned"] == 1
    assert numbers["protocol"]["splits"]["test"]["clips"] + numbers["protocol"]["splits"]["train"]["clips"] < 24
    tuned = load(tmp_path / "runs" / "pretrained-seed-0" / "encoder").state_dict()
    before = load(tones / "encoder").state_dict()
    assert any(not torch.equal(tuned[name], before[name]) for name in before)


def test_the_step_that_valid_chose_is_tested(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path))
    folder = tmp_path / "runs" / "pretrained-seed-0"
    rows = [row for row in metrics(folder) if "valid/UA" in row]
    best = json.loads((folder / "best.json").read_text())
    first_best = max(rows, key=lambda row: row["valid/UA"])
    assert (best["step"], best["value"]) == (first_best["step"], first_best["valid/UA"])
    assert f"step {best['step']} " in (tmp_path / "report.md").read_text()


def test_an_encoder_without_fusion_trains(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path, encoder=str(tones / "pairwise"), trainer=trainer(5)))
    tuned = load(tmp_path / "runs" / "pretrained-seed-0" / "encoder").state_dict()
    before = load(tones / "pairwise").state_dict()
    assert all(not torch.equal(tuned[name], before[name]) for name in before)


@pytest.mark.slow
def test_an_interrupted_command_ends_as_if_it_had_not_been(tones: Path, tmp_path: Path, stopped_at):
    run(config(tones, tmp_path / "whole", seeds=[0, 1]))
    with stopped_at(7):
        assert run(config(tones, tmp_path / "cut", seeds=[0, 1])) == 75
    assert run(config(tones, tmp_path / "cut", seeds=[0, 1])) == 0
    for seed in (0, 1):
        whole, cut = (tmp_path / name / "runs" / f"pretrained-seed-{seed}" for name in ("whole", "cut"))
        assert metrics(whole) == metrics(cut)
        weights = [load_file(folder / "encoder" / "model.safetensors") for folder in (whole, cut)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (tmp_path / "whole" / "predictions.csv").read_text() == (tmp_path / "cut" / "predictions.csv").read_text()


def test_seeds_change_the_head_and_random_weights_but_not_pretrained_ones(tones: Path, tmp_path: Path):
    plan = make_plan(config(tones, tmp_path))
    (part,) = plan.parts[1.0]
    weights = {
        (init, seed): plan.task(part, init, seed).state_dict() for init in ("pretrained", "random") for seed in (0, 1)
    }
    name = next(name for name in weights["random", 0] if name.startswith("encoder.towers") and name.endswith("weight"))
    assert torch.equal(weights["pretrained", 0][name], weights["pretrained", 1][name])
    names = [name for name in weights["random", 0] if name.startswith("encoder.")]
    assert any(not torch.equal(weights["random", 0][name], weights["random", 1][name]) for name in names)
    head = "head.linear.weight"
    assert not torch.equal(weights["pretrained", 0][head], weights["pretrained", 1][head])


def test_mistakes_are_told_in_one_sentence(tones: Path, tmp_path: Path):
    for settings, message in (
        ({"inputs": "audo"}, "Did you mean audio"),
        ({"head": HeadConfig(linear=LinearConfig(pooled=["video"]))}, "no 'video'"),
        ({"encoder": "nowhere"}, "no encoder"),
    ):
        with pytest.raises(UserError, match=message):
            run(config(tones, tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.md").write_text("done")
    with pytest.raises(UserError, match="finished report"):
        run(config(tones, tmp_path / "out"))
    with pytest.raises(ValueError, match="leave it out"):
        config(tones, tmp_path, trainer=replace(trainer(5), best_metric="valid/WA"))
