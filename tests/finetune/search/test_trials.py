"""Who does which trial, what is left after a kill, and that the same seed suggests the same."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from finetune.search import report
from finetune.search.config import Range, SearchConfig
from finetune.search.trials import JOURNAL, Claim, Trials
from finetune.search.work import work
from triptych.config import UserError

METRIC = report.Metric("UA", True)
STEPS = (1, 3, 9)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest(trial: optuna.Trial) -> dict[str, float]:
    return {"x": trial.suggest_float("x", 0, 1), "y": trial.suggest_float("y", 1e-4, 1, log=True)}


def trials(folder: Path, number: int = 12, seed: int = 0) -> Trials:
    space = {"x": Range(low=0, high=1), "y": Range(low=1e-4, high=1, log=True)}
    config = SearchConfig(finetune="none", out=str(folder), space=space, trials=number, seed=seed, min_steps=1)
    return Trials(folder, config, STEPS[-1], False, suggest)


def objective(claim: Claim) -> tuple[int, float] | None:
    """Better the larger x, and the longer it trains."""
    for step in STEPS:
        value = claim.values["x"] * (1 - 1 / (1 + step))
        if claim.report(step, value):
            return None
    return step, value


def found(folder: Path) -> list[optuna.trial.FrozenTrial]:
    one = trials(folder)
    with one.alone():
        return one.study().trials


def suggested(folder: Path) -> list[dict[str, float]]:
    return [one.params for one in found(folder)]


def killed_at(step: int, number: int):
    """An objective that kills its process after a report, and trains as `objective` before."""

    def train(claim: Claim) -> tuple[int, float] | None:
        if claim.number == number:
            claim.report(step, claim.values["x"] * (1 - 1 / (1 + step)))
            os.kill(os.getpid(), signal.SIGKILL)
        return objective(claim)

    return train


def in_process(function, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def killed(folder: Path, number: int) -> None:
    process = in_process(lambda: work(trials(folder), killed_at(1, number), METRIC))
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL


def test_what_falls_behind_is_pruned_and_the_best_is_the_largest(tmp_path: Path) -> None:
    assert work(trials(tmp_path), objective, METRIC) == 0
    states = [one.state for one in found(tmp_path)]
    assert len(states) == 12
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    shorter = [one.last_step for one in found(tmp_path) if one.state == TrialState.PRUNED]
    assert max(shorter) < STEPS[-1]


def test_one_seed_gives_one_sequence_also_after_a_kill_in_the_middle_of_a_trial(tmp_path: Path) -> None:
    work(trials(tmp_path / "whole"), objective, METRIC)
    work(trials(tmp_path / "other", seed=1), objective, METRIC)
    killed(tmp_path / "cut", number=4)
    assert found(tmp_path / "cut")[4].state == TrialState.RUNNING
    work(trials(tmp_path / "cut"), objective, METRIC)
    assert suggested(tmp_path / "cut") == suggested(tmp_path / "whole")
    assert [one.state for one in found(tmp_path / "cut")] == [one.state for one in found(tmp_path / "whole")]
    assert suggested(tmp_path / "other") != suggested(tmp_path / "whole")


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    work(trials(tmp_path / "whole"), objective, METRIC)
    work(trials(tmp_path / "longer", number=5), objective, METRIC)
    assert len(found(tmp_path / "longer")) == 5
    work(trials(tmp_path / "longer"), objective, METRIC)
    assert suggested(tmp_path / "longer") == suggested(tmp_path / "whole")


def logged(folder: Path, name: str) -> None:
    """A worker that writes down which trials it does."""

    def train(claim: Claim) -> tuple[int, float] | None:
        with (folder / f"{name}.txt").open("a") as file:
            file.write(f"{claim.number}\n")
        return objective(claim)

    work(trials(folder, number=20), train, METRIC)


@pytest.mark.dist
def test_two_workers_share_the_trials_and_none_is_done_twice(tmp_path: Path) -> None:
    workers = [in_process(logged, tmp_path, name) for name in ("a", "b")]
    for worker in workers:
        worker.join(timeout=100)
        assert worker.exitcode == 0
    done = [[int(line) for line in (tmp_path / f"{name}.txt").read_text().split()] for name in ("a", "b")]
    assert sorted(done[0] + done[1]) == list(range(20))
    assert all(done)
    assert len({one["x"] for one in suggested(tmp_path)}) == 20


def test_a_trial_at_work_is_left_alone_and_a_lost_one_is_taken_up(tmp_path: Path) -> None:
    ours = trials(tmp_path, number=1)
    started, go_on = (multiprocessing.get_context("fork").Event() for _ in range(2))

    def hold() -> None:
        with ours.claim():
            started.set()
            go_on.wait(60)
            os.kill(os.getpid(), signal.SIGKILL)

    holder = in_process(hold)
    assert started.wait(60)
    with ours.claim() as claim:
        assert claim is None
    go_on.set()
    holder.join(timeout=60)
    with ours.claim() as claim:
        assert claim is not None
        assert claim.number == 0


def test_a_trial_that_was_to_stop_when_its_worker_was_lost_is_stopped(tmp_path: Path) -> None:
    work(trials(tmp_path, number=6), objective, METRIC)

    def decided(claim: Claim) -> None:
        assert any(claim.report(step, -1.0) for step in STEPS[:-1])
        os.kill(os.getpid(), signal.SIGKILL)

    process = in_process(lambda: work(trials(tmp_path, number=7), decided, METRIC))
    process.join(timeout=60)
    assert found(tmp_path)[6].state == TrialState.RUNNING
    work(trials(tmp_path, number=7), lambda claim: pytest.fail("it was trained again"), METRIC)
    assert found(tmp_path)[6].state == TrialState.PRUNED


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    def fails_at_two(claim: Claim) -> tuple[int, float] | None:
        if claim.number == 2:
            raise UserError("the loss is not finite")
        return objective(claim)

    work(trials(tmp_path, number=4), fails_at_two, METRIC)
    assert [one.state == TrialState.FAIL for one in found(tmp_path)] == [False, False, True, False]
    assert found(tmp_path)[2].user_attrs["error"] == "the loss is not finite"


def test_a_search_in_which_all_fails_ends(tmp_path: Path) -> None:
    def fails(claim: Claim) -> None:
        raise UserError("no GPU")

    with pytest.raises(UserError, match="every trial fails; the last: no GPU"):
        work(trials(tmp_path), fails, METRIC)
    assert len(found(tmp_path)) == 3


def test_a_stopped_trial_is_gone_on_with(tmp_path: Path) -> None:
    assert work(trials(tmp_path), lambda claim: None, METRIC) == 75
    assert [one.state for one in found(tmp_path)] == [TrialState.RUNNING]
    assert work(trials(tmp_path, number=1), objective, METRIC) == 0
    assert [one.state for one in found(tmp_path)] == [TrialState.COMPLETE]


def test_a_torn_last_line_of_the_journal_is_cut(tmp_path: Path) -> None:
    work(trials(tmp_path, number=2), objective, METRIC)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code": 6, "work')
    work(trials(tmp_path, number=4), objective, METRIC)
    assert len(found(tmp_path)) == 4
    assert all(json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines())
