"""The command in fp16 and under DeepSpeed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import FinetuneConfig
from finetune.engine import EngineConfig
from finetune.train import run
from triptych import config as configs
from triptych.config import UserError
from triptych.training.engine_deepspeed import ZeroConfig
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

RUN = Path("runs") / "random-seed-0"


def config(moods: Path, out: Path, **settings) -> FinetuneConfig:
    trainer = TrainerConfig(max_steps=8, log_every=1, evaluate_every=4, checkpoint_every=2, keep_checkpoints=9)
    return FinetuneConfig(
        encoder=str(moods / "encoder"),
        shards=str(moods / "shards"),
        out=str(out),
        protocol="mosei_sentiment",
        num_resamples=20,
        init=["random"],
        seeds=[0],
        global_batch=8,
        micro_batch=4,
        missing=False,
        **{"trainer": trainer, "optimizer": OptimizerConfig(lr=0.03), **settings},
    )


def rows(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / RUN / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if not key.startswith(("time", "samples_per", "data"))} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    for file in ("encoder/model", "checkpoints/step-00000008/optimizer", "checkpoints/step-00000008/loss_scale"):
        tensors = [load_file(folder / RUN / f"{file}.safetensors") for folder in (one, other)]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


def test_fp16_learns_and_goes_on_where_it_was_interrupted(moods: Path, tmp_path: Path, stopped_at):
    half = EngineConfig(precision="fp16")
    assert run(config(moods, tmp_path / "whole", engine=half)) == 0
    with stopped_at(3):
        assert run(config(moods, tmp_path / "cut", engine=half)) == 75
    assert run(config(moods, tmp_path / "cut", engine=half)) == 0
    assert_same(tmp_path / "whole", tmp_path / "cut")
    steps = [row for row in rows(tmp_path / "whole") if "loss" in row]
    left_out = [row for row in steps if "grad_norm" not in row]
    assert 1 <= len(left_out) == steps[-1]["skipped_steps"] < 4  # a loss scale of 65536 is too much of these gradients
    assert left_out[0]["loss_scale"] == 2.0**16
    assert steps[-1]["loss_scale"] == 2.0 ** (16 - len(left_out))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]


@pytest.mark.dist
@pytest.mark.slow
def test_two_ranks_of_stage_2_learn_in_fp16_and_go_on_after_a_crash(moods: Path, tmp_path: Path, warm):
    def ranks(out: Path) -> None:
        half = EngineConfig(precision="fp16", deepspeed=ZeroConfig(zero_stage=2))
        configs.save(config(moods, out, engine=half, layer_decay=0.8), tmp_path / "config.yaml")
        programs = warm.ranks(["-m", "finetune", str(tmp_path / "config.yaml")], tmp_path, 2)
        codes = [program.wait(200) for program in programs]
        assert codes == [0, 0], "\n".join(file.read_text() for file in sorted(tmp_path.glob("*.err")))

    ranks(tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    for file in ("report.md", "results.json", "predictions.csv", RUN / "best.json"):
        (cut / file).unlink()
    for folder in ("encoder", "predictions", "checkpoints/step-00000006", "checkpoints/step-00000008"):
        shutil.rmtree(cut / RUN / folder)
    ranks(cut)
    assert_same(tmp_path / "whole", cut)
    losses = [row["loss"] for row in rows(cut) if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_settings_that_do_not_fit_are_refused_before_work_starts(moods: Path, tmp_path: Path):
    configs.save(config(moods, tmp_path / "out"), tmp_path / "config.yaml")

    def load(*overrides: str) -> FinetuneConfig:
        return configs.load(FinetuneConfig, tmp_path / "config.yaml", overrides)

    loaded = load("engine.deepspeed={zero_stage: 2}", "engine.precision=bf16", "engine.clip_norm=0.5")
    assert loaded.engine == EngineConfig(precision="bf16", clip_norm=0.5, deepspeed=ZeroConfig(zero_stage=2))
    late = ("freeze=all", "unfreeze_every=2")
    with pytest.raises(UserError, match=r"unfreeze_every: .* set engine.deepspeed.zero_stage=0, or leave"):
        load("engine.deepspeed={zero_stage: 2}", *late)
    assert load("engine.deepspeed={zero_stage: 0}", *late).unfreeze_every == 2
    assert load(*late).engine.deepspeed is None
    with pytest.raises(UserError, match=r"engine.precision"):
        load("engine.precision=fp8")
    with pytest.raises(UserError, match=r"engine.deepspeed.*zero_stag"):
        load("engine.deepspeed={zero_stag: 2}")
