"""Folds, shares of the labels, several initialisations and frozen encoders, from shards to the report."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import FinetuneConfig
from finetune.outcome import ALL, Best, Outcome, Run
from finetune.plan import make_plan
from finetune.report import Author
from finetune.train import run
from shards.divisions.truth import Truth
from triptych.config import UserError
from triptych.evaluation import predictions
from triptych.training import distributed
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

TRAINER = TrainerConfig(max_steps=2, log_every=2, evaluate_every=1, checkpoint_every=2, keep_checkpoints=1)


def config(tones: Path, out: Path, **settings) -> FinetuneConfig:
    return FinetuneConfig(
        encoder=str(tones / "encoder"),
        shards=str(tones / "shards"),
        out=str(out),
        classes=["happy", "sad"],
        num_resamples=20,
        **{
            "seeds": [0],
            "global_batch": 4,
            "trainer": TRAINER,
            "optimizer": OptimizerConfig(lr=0.01),
            **settings,
        },
    )


def test_every_fold_is_trained_and_no_label_of_a_held_out_clip_is_read_before_its_choice(
    tones: Path, tmp_path: Path, monkeypatch
):
    asked: list[tuple[str, ...]] = []
    scored = Truth.scored

    def noted(self, keys):
        asked.append(tuple(keys))
        return scored(self, keys)

    monkeypatch.setattr(Truth, "scored", noted)
    run(config(tones, tmp_path, split="leave_one_actor_out"))
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert numbers["protocol"]["rule"] == "ravdess/leave_one_actor_out"
    assert list(numbers["protocol"]["folds"].values()) == [4] * 6
    assert "cross-validation SHA-256" in numbers["protocol"]["facts"]
    rows = csv.DictReader((tmp_path / "predictions.csv").open())
    keys = [row["key"] for row in rows if row["system"] == "fine-tuned"]
    assert len(keys) == len(set(keys)) == 24
    plan = make_plan(config(tones, tmp_path / "other", split="leave_one_actor_out"))
    before = asked[: len(plan.data.divisions)]
    assert before == [
        division.keys["valid"] for division in plan.data.divisions
    ]  # whose labels choose, one fold at a time
    for division in plan.data.divisions:
        weights = tmp_path / "runs" / division.name.replace("/", "-") / "pretrained-seed-0" / "encoder"
        assert weights.is_dir()


def test_a_frozen_row_keeps_its_encoder_and_one_from_scratch_stands_beside_it(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path, init=["random", "frozen"]))
    before = load_file(tones / "encoder" / "model.safetensors")
    kept = load_file(tmp_path / "runs" / "frozen-seed-0" / "encoder" / "model.safetensors")
    assert all(torch.equal(before[name], kept[name]) for name in before)
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert [row["system"] for row in numbers["systems"]] == ["majority class", "from scratch", "frozen"]
    assert [(row["first"], row["second"]) for row in numbers["differences"]] == [
        ("frozen (audio)", "from scratch (audio)")
    ]


def test_a_learning_curve_has_every_row_at_every_share(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path, label_shares=[0.5, 1.0], global_batch=2))
    numbers = json.loads((tmp_path / "results.json").read_text())
    shares = [row["system"] for row in numbers["curve"]["systems"]]
    assert shares == ["fine-tuned, 50 % of the labels", "fine-tuned, 100 % of the labels"]
    assert numbers["curve"]["systems"][1]["metrics"] == numbers["systems"][-1]["metrics"]
    assert (tmp_path / "figures" / "curve.png").is_file()
    given = predictions.read(tmp_path / "predictions_curve.csv", kind="classes", classes=("happy", "sad"))
    assert list(given.systems) == [f"{name} (audio)" for name in shares]
    plan = make_plan(config(tones, tmp_path / "other", label_shares=[0.5]))
    (whole,), (half,) = plan.parts[1.0], plan.parts[0.5]
    assert set(half.keys["train"]) < set(whole.keys["train"])
    assert len(half.shards.split("train")) * 2 == len(whole.keys["train"])
    assert half.keys["test"] == whole.keys["test"]


def test_the_best_of_several_seeds_is_chosen_on_valid_and_stands_beside_their_mean(tones: Path, tmp_path: Path):
    plan = make_plan(config(tones, tmp_path, seeds=[0, 1, 2, 3], best_of=2))
    test = plan.data.divisions[0].keys["test"]
    truth = dict(zip(test, plan.data.truth.of(test).tolist(), strict=True))

    def outcome(score: float, right: bool) -> Outcome:
        said = {key: torch.eye(2)[truth[key] if right else 1 - truth[key]].double().numpy() for key in test}
        return Outcome(best=Best(1, score), said={ALL: said})

    valid_then_right = [(0.9, True), (0.5, False), (0.4, True), (0.8, False)]
    outcomes = {Run("pretrained", 1.0, seed): [outcome(*told)] for seed, told in enumerate(valid_then_right)}
    _, row, best = Author(plan, outcomes).table().systems
    assert (row.title, best.title) == ("fine-tuned (audio)", "fine-tuned, best of 2 (audio)")
    known = torch.tensor(list(truth.values())).numpy()
    assert [(run == known).mean() for run in row.predictions] == [1, 0, 1, 0]
    assert [(run == known).mean() for run in best.predictions] == [1, 0]


def test_a_step_of_a_share_below_a_global_batch_holds_the_whole_share(tones: Path, tmp_path: Path):
    run(config(tones, tmp_path, label_shares=[0.2, 1]))
    assert "A step is 4 clips, or all there are: 2 at 20 %." in (tmp_path / "report.md").read_text()
    plan = make_plan(config(tones, tmp_path / "other", label_shares=[0.2]))
    (few,) = plan.parts[0.2]
    steps = plan.train_loader(few, 0, distributed.init("cpu")).steps(0)
    for _ in range(2):
        assert sorted(key for batch in next(steps) for key in batch.keys) == sorted(few.keys["train"])


def test_a_share_with_fewer_clips_than_ranks_is_refused_before_anything_is_trained(tones, tmp_path, monkeypatch):
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"by speaker, 20 % of its labels: .* is less than the number of ranks \(3\)"):
        run(config(tones, tmp_path / "out", label_shares=[0.2]))
    with pytest.raises(UserError, match=r"train of by speaker' has .* and global_batch is 400"):
        run(config(tones, tmp_path / "out", global_batch=400))
    assert not (tmp_path / "out").exists()


def test_seeds_that_do_not_divide_into_groups_are_refused(tones: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="best_of: 3 seeds are no multiple of 2"):
        config(tones, tmp_path, seeds=[0, 1, 2], best_of=2)
    with pytest.raises(ValueError, match="the same row"):
        config(tones, tmp_path, init=["pretrained", "frozen"], freeze="all")


def test_a_run_ends_when_valid_gets_no_better(tones: Path, tmp_path: Path):
    patient = replace(TRAINER, max_steps=50, evaluate_every=1, patience=2)
    still = OptimizerConfig(lr=1e-12)  # nothing ever changes, so the first evaluation stays the best
    run(config(tones, tmp_path, trainer=patient, optimizer=still))
    rows = [json.loads(line) for line in (tmp_path / "runs/pretrained-seed-0/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "valid/UA" in row] == [1, 2, 3]
    assert json.loads((tmp_path / "runs/pretrained-seed-0/best.json").read_text())["step"] == 1
    (tmp_path / "report.md").unlink()
    run(config(tones, tmp_path, trainer=patient, optimizer=still))  # as after an interruption: nothing is trained again
    again = (tmp_path / "runs/pretrained-seed-0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in again] == rows
