"""An objective that compares clips is measured by what it brings, whatever others compare beside it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted_objective import NAME, SpreadConfig, spread

from pretrain.config import EvaluationConfig
from pretrain.objectives.contrastive import ContrastiveConfig, HeadConfig
from pretrain.objectives.objective import HeldOut, PretrainTask
from triptych.batch import Batch, fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build
from triptych.training.compare import join
from triptych.training.distributed import alone

SPECS = {
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
    "video": FeatureSpec(name="crops", modality="video", version=1, rate_hz=25.0, shape=(4, 4), dtype="uint8"),
}
CONFIGS = {
    NAME: SpreadConfig(),
    "contrastive": ContrastiveConfig(variant="infonce", head=HeadConfig(hidden=8, width=4)),
}


def make(*names: str) -> PretrainTask:
    tiny = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    torch.manual_seed(0)
    system = CrossModalConfig(modalities=tuple(SPECS), anchor="audio", transformer=tiny)
    encoder = build(SystemConfig(cross_modal=system), SPECS, ())
    objectives = {}
    for name in names:
        torch.manual_seed(1)
        objectives[name] = CONFIGS[name].build(encoder, seed=0)
    return PretrainTask(encoder, objectives).eval()


def held_out(task: PretrainTask, batches: list[Batch], gallery: int) -> HeldOut:
    """Batches of a split in place of shards, and an engine that has no ranks and no precision."""

    def embed(given: Any) -> tuple[list[str], dict[str, Any]]:
        seen = list(given)
        with torch.no_grad():
            parts = [task.embed(batch) for batch in seen]
        return [key for batch in seen for key in batch.keys], {
            name: join([p[name] for p in parts]) for name in parts[0]
        }

    device = torch.device("cpu")
    engine: Any = SimpleNamespace(embed=embed, task=task, device=device, distributed=alone(device))
    loader: Any = SimpleNamespace(batches=lambda: iter(batches), max_damaged=0)
    return HeldOut("valid", engine, loader, EvaluationConfig(gallery=gallery))


def measured(*names: str, gallery: int = 50) -> dict[str, float]:
    task = make(*names)
    figures: dict[str, float] = {}
    batches = [fake_batch(SPECS, num_clips=6, seed=3), fake_batch(SPECS, num_clips=3, seed=4)]
    for evaluator in task.evaluators(held_out(task, batches, gallery)):
        assert evaluator.name == "valid"
        found = evaluator.evaluate(0)
        assert not figures.keys() & found.keys()
        figures |= found
    return figures


def test_a_comparison_with_rows_of_its_own_names_has_its_loss_and_no_retrieval() -> None:
    task = make(NAME)
    batches = [fake_batch(SPECS, num_clips=6, seed=3), fake_batch(SPECS, num_clips=3, seed=4)]
    with torch.no_grad():
        rows = torch.cat([task.embed(batch)[NAME].rows["ball"] for batch in batches])
    assert measured(NAME) == {f"loss/{NAME}": pytest.approx(float(spread(rows).mean()), rel=1e-4)}
    assert (
        measured(NAME, gallery=3)[f"loss/{NAME}"] > measured(NAME)[f"loss/{NAME}"]
    )  # a third of it is the clip itself


def test_two_comparisons_measure_what_each_does_alone() -> None:
    both, single = measured(NAME, "contrastive"), measured("contrastive")
    assert "recall_at_1/audio_to_video" in single
    assert both == pytest.approx(single | measured(NAME), rel=1e-4)


@pytest.mark.slow
def test_a_run_with_it_trains_evaluates_and_is_tested(demo, tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "plugins" / "planted_objective.py"
    arguments = demo.arguments(tmp_path, f"objectives.{NAME}.weight=0.5", "objectives.masked_lm=null")
    settings = ["trainer.max_steps=4", "trainer.evaluate_every=2", "trainer.best_metric=null", "evaluation.test=true"]
    (started,) = demo.warm.ranks([str(program), *arguments, *settings], tmp_path, 1)
    assert started.wait(200) == 0, (tmp_path / "0.err").read_text()
    figures = {f"loss/{NAME}", "loss/contrastive", "recall_at_5/contrastive"}
    logged = demo.logged(tmp_path)
    assert [line[f"weight/{NAME}"] for line in logged if "loss" in line] == [0.5] * 4
    evaluated = [line for line in logged if f"valid/loss/{NAME}" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert {f"valid/{figure}" for figure in figures} <= evaluated[0].keys()
    assert figures <= json.loads((tmp_path / "run" / "test.json").read_text()).keys()
    assert (tmp_path / "run" / "labels_used.json").read_text() == "[]\n"
