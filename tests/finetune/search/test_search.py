"""The command from the base to best.yaml, with a tiny encoder."""

import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from finetune.config import FinetuneConfig
from finetune.plan import make_plan
from finetune.search.config import Range, SearchConfig
from finetune.search.space import open_base
from finetune.search.work import Watched, run
from finetune.train import run as finetune
from finetune.train import train_one
from shards.divisions.truth import Truth
from shards.reading.storage import DamagedShard
from triptych import config as configs
from triptych.config import UserError
from triptych.evaluation.significance import Units

SPACE = {"optimizer.lr": Range(low=1e-3, high=1e-1, log=True), "global_batch": Range(choices=[2, 4])}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def base(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a SearchConfig, over shards whose test clips cannot be read."""
    shards = tmp_path_factory.mktemp("blind") / "shards"
    shutil.copytree(tones / "shards", shards)
    (tests,) = shards.glob("test-*.tar")
    with tarfile.open(tests) as tar, tests.open("r+b") as file:
        for member in tar:
            if not member.name.endswith(".json"):  # records are read by what looks for leaks between the splits
                file.seek(member.offset_data)
                file.write(b"\xff" * member.size)
    trainer = {"max_steps": 4, "evaluate_every": 2, "checkpoint_every": 4, "log_every": 1}
    given = {"encoder": str(tones / "encoder"), "shards": str(shards), "classes": ["happy", "sad"], "trainer": trainer}
    return {
        "finetune": "ravdess",
        "overrides": {**given, "seeds": [3, 4], "global_batch": 4},
        "min_steps": 2,
        "reduction": 2,
    }


def config(base: dict[str, Any], out: Path, **settings: Any) -> SearchConfig:
    return SearchConfig(**{**base, "out": str(out), "space": SPACE, "trials": 2, **settings})


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "valid/UA" in row]


@pytest.fixture(scope="module")
def asked() -> set[str]:
    """Clips whose labels the search asked for."""
    return set()


@pytest.fixture(scope="module")
def searched(base: dict[str, Any], asked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = tmp_path_factory.mktemp("search")
    of = Truth.of

    def noted(truth: Truth, keys: Sequence[str]) -> Units:
        asked.update(keys)
        return of(truth, keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Truth, "of", noted)
        assert run(config(base, out)) == 0
    return out


def test_neither_a_test_clip_nor_its_label_is_read(searched: Path, asked: set[str]) -> None:
    best = configs.load(FinetuneConfig, searched / "best.yaml")
    there = make_plan(best).data.divisions[0].keys
    assert asked
    assert asked.isdisjoint(there["test"])
    with pytest.raises(DamagedShard, match=r"test-0+\.tar"):  # the fine-tuning after it wants them
        finetune(replace(best, out=str(searched / "again"), seeds=[3]))


def test_the_best_config_is_the_best_trial_s_with_the_seeds_of_the_base(searched: Path) -> None:
    best = configs.load(FinetuneConfig, searched / "best.yaml")
    assert best.seeds == [3, 4]
    scores = {}
    for number in (0, 1):
        (folder,) = (searched / "trials" / str(number) / "runs").iterdir()
        assert folder.name == "pretrained-seed-3"
        tried = configs.load(FinetuneConfig, folder / "config.yaml")
        score = max(row["valid/UA"] for row in metrics(folder))
        finished = metrics(folder)[-1]["step"] == 4
        scores[tried.optimizer.lr, tried.global_batch] = score if finished else -1
    assert len(scores) == 2
    assert scores[best.optimizer.lr, best.global_batch] == max(scores.values())


def test_the_report_tells_the_trials_and_what_to_do_next(searched: Path) -> None:
    told = (searched / "report.md").read_text()
    assert f"python -m finetune {searched}/best.yaml" in told
    assert "**trials** 2 of 2" in told
    assert "| `optimizer.lr` | 0.0001 |" in told
    assert "No picture of the fields' importance" in told
    assert (searched / "figures" / "history.png").stat().st_size > 1000


def test_a_finished_search_is_not_done_again_and_keeps_its_settings(base: dict[str, Any], searched: Path) -> None:
    journal = (searched / "study.jsonl").read_text()
    assert run(config(base, searched)) == 0
    assert (searched / "study.jsonl").read_text() == journal
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        run(config(base, searched, seed=1))


def test_a_pruned_trial_is_stopped_through_the_trainer_and_leaves_a_checkpoint(
    base: dict[str, Any], tmp_path: Path
) -> None:
    class Hopeless:
        def report(self, step: int, value: float) -> bool:
            return True

    searched_around = replace(open_base(config(base, tmp_path)), global_batch=4)
    code = train_one(make_plan(searched_around), lambda evaluator: Watched(evaluator, "UA", Hopeless()))  # type: ignore[arg-type]
    assert code == 75
    folder = tmp_path / "best" / "runs" / "pretrained-seed-3"
    assert [row["step"] for row in metrics(folder)] == [2]
    assert [path.name for path in (folder / "checkpoints").iterdir() if "3" in path.name] == ["step-00000003"]


def mistakes() -> list[tuple[dict[str, Any], str]]:
    low_high = Range(low=0.1, high=0.2)
    return [
        ({"space": {"optimiser.lr": low_high}}, r"no 'optimiser\.lr'.*Did you mean optimizer\.lr"),
        ({"space": {"global_batch": Range(low=2.5, high=8)}}, r"global_batch: takes whole numbers"),
        ({"space": {"inputs": low_high}}, "no number: give choices"),
        ({"space": {"engine.precision": Range(choices=["bf16", "fp8"])}}, r"engine\.precision: 'fp8' is nothing"),
        ({"space": {"optimizer.lr": Range(low=-1, high=1)}}, r"optimizer\.lr: -1 is nothing .* above 0"),
        ({"space": {"trainer.max_steps": Range(low=1, high=9)}}, "must be the same for all trials"),
        ({"space": {"trainer": Range(choices=[{}])}}, "must be the same for all trials"),
        ({"min_steps": 1}, "judged where they are evaluated"),
        ({"overrides": {"encoder": "x", "shards": "gone", "trainer": {"evaluate_every": 2}}}, "gone: is not there"),
    ]


@pytest.mark.parametrize(("settings", "message"), mistakes())
def test_mistakes_are_told_before_any_trial(
    base: dict[str, Any], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(config(base, tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_a_search_chooses_on_one_division(base: dict[str, Any], tmp_path: Path) -> None:
    folds = {**base["overrides"], "split": "leave_one_actor_out"}
    with pytest.raises(UserError, match=r"split: leave_one_actor_out has \d+ divisions.*overrides\.split="):
        run(config(base, tmp_path / "out", overrides=folds))
    assert not (tmp_path / "out").exists()


def test_a_search_is_told_in_yaml_and_overrides(tmp_path: Path) -> None:
    text = {"finetune": "ravdess", "space": {"optimizer.lr": {"low": 1e-5, "high": 1e-3}}, "min_steps": 9}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(text))
    given = configs.load(SearchConfig, tmp_path / "search.yaml", ["overrides.trainer.max_steps=7", "out=there"])
    assert given.overrides == {"trainer": {"max_steps": 7}}
    assert given.space["optimizer.lr"].high == 1e-3
    for wrong in ({"low": 1}, {"low": 2, "high": 1}, {"choices": [1], "low": 0}, {"low": 0, "high": 1, "log": True}):
        with pytest.raises(UserError, match="space"):
            configs.load(SearchConfig, {**text, "space": {"optimizer.lr": wrong}, "out": "there"})
