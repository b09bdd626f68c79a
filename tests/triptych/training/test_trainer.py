import json
import os
import signal

import pytest

from triptych.config import UserError
from triptych.training.trainer import EXIT_REQUEUE, TrainerConfig

TIMES = ("samples_per_s", "data_wait_share", "time_s")


def rows(folder):
    """metrics.jsonl without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def reached(folder, step):
    file = folder / "metrics.jsonl"
    return lambda: file.is_file() and f'"step": {step},' in file.read_text()


@pytest.fixture
def train(tiny, alone, tmp_path):
    """Train in this process; returns exit code and folder."""

    def run(name="run", change=None, **fields):
        trainer = {"max_steps": 8, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 4, **fields}
        config = tiny.TinyConfig(trainer=TrainerConfig(**trainer))
        built = tiny.build_trainer(alone, tmp_path / name, config, kind="accelerate")
        if change:
            change(built)
        return built.train(), tmp_path / name

    return run


def stop_at(step, number=signal.SIGUSR1):
    """The scheduler's signal arrives while this step is computed."""

    def change(trainer):
        original = trainer._engine.train_step

        def train_step(micro_batches, index, stop):
            if index == step:
                os.kill(os.getpid(), number)
            return original(micro_batches, index, stop)

        trainer._engine.train_step = train_step

    return change


def damage(max_damaged, **clips):
    """At step number `s<step>`, these sample ids cannot be read."""

    def change(trainer):
        def at(ids):
            pairs = tuple((sample_id, f"train-000000.tar: clip{sample_id}.mp4 at byte 512") for sample_id in ids)
            return lambda batch: object.__setattr__(batch, "damaged", pairs)

        trainer._loader.max_damaged = max_damaged
        trainer._loader.change = {int(step[1:]): at(ids) for step, ids in clips.items()}

    return change


def test_damaged_clips_are_counted_over_the_run_and_named_once(train, caplog, capsys):
    """The loader cuts a step into two micro-batches, and both of step 2 met clip 7."""
    code, folder = train(change=damage(2, s1=[7], s2=[7], s5=[8]))
    assert code == 0
    steps = [row for row in rows(folder) if "loss" in row]
    assert [row["damaged_clips"] for row in steps] == [0, 1, 1, 1, 1, 2, 2, 2]
    assert [row["damaged_reads"] for row in steps] == [0, 2, 4, 4, 4, 6, 6, 6]
    told = [message for message in caplog.messages if "left out" in message]
    assert told == [f"warning: left out: train-000000.tar: clip{clip}.mp4 at byte 512" for clip in (7, 8)]
    assert "2 damaged clips were left out, in 6 of 72 reads" in capsys.readouterr().err


def test_more_damaged_clips_than_allowed_stop_the_run(train):
    with pytest.raises(UserError, match=r"2 clips are damaged so far, .* allows 1 .*clip8.mp4 at byte 512"):
        train(change=damage(1, s1=[7], s2=[7], s5=[8]))


def test_an_interrupted_run_goes_on_counting(train):
    def interrupted(trainer):
        damage(2, s1=[7], s5=[8])(trainer)
        stop_at(2)(trainer)

    assert train(change=interrupted)[0] == EXIT_REQUEUE
    _, folder = train(change=damage(2, s1=[7], s5=[8]))
    assert [row["damaged_clips"] for row in rows(folder) if "loss" in row] == [0, 1, 1, 1, 1, 2, 2, 2]
    with pytest.raises(UserError, match="2 clips are damaged so far"):
        train("other", change=interrupted) and train("other", change=damage(1, s5=[8]))


def test_padding_is_reported(train):
    """A clip has three steps of sound and, one in four, a step of video; others are padding."""
    _, folder = train(max_steps=4)
    first = rows(folder)[0]
    assert first["useful_share"] == pytest.approx((9 * 3 + 2) / (9 * 4))


@pytest.mark.dist
@pytest.mark.slow
def test_a_run_that_is_killed_and_preempted_is_bit_equal_to_one_that_is_not(tmp_path, launch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert launch("train", straight).wait()[0] == [0, 0]

    ranks = launch("train", broken, "0.3")  # slow enough to hit it in the middle
    ranks.wait_for(reached(broken, 5))
    ranks.kill()
    ranks.wait()

    ranks = launch("train", broken, "0.3")
    ranks.wait_for(reached(broken, 7))
    os.kill(ranks.processes[1].pid, signal.SIGTERM)  # one rank only
    codes, outputs = ranks.wait()
    assert codes == [EXIT_REQUEUE, EXIT_REQUEUE], "\n".join(outputs)
    assert "asked to stop: saved step" in outputs[0]

    codes, outputs = launch("train", broken, "0.3").wait()
    assert codes == [0, 0], "\n".join(outputs)
    assert rows(broken) == rows(straight)
    assert len(rows(broken)) == 12 + 3
    last = "checkpoints/step-00000012/model.safetensors"
    assert (broken / last).read_bytes() == (straight / last).read_bytes()


def test_a_finished_run_is_left_as_it_is(train, capsys):
    code, folder = train()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert (code, train()[0]) == (0, 0)
    assert "this run is finished (8 steps)" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_stop_signal_saves_the_step_and_asks_for_a_requeue(train, number):
    _, straight = train("straight")
    code, folder = train("stopped", change=stop_at(3, number))  # an evaluation is due after this very step
    assert code == EXIT_REQUEUE
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4]
    assert train("stopped")[0] == 0
    assert rows(folder) == rows(straight)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(train, caplog):
    _, straight = train("straight")
    _, folder = train("hurt", change=stop_at(5))
    file = folder / "checkpoints" / "step-00000006" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    assert train("hurt")[0] == 0
    assert "step-00000006 is damaged (model.safetensors has" in caplog.text
    assert rows(folder) == rows(straight)


@pytest.mark.parametrize(("best_is", "choose"), [("lowest", min), ("highest", max)])
def test_the_best_checkpoint_is_kept_and_exported(train, best_is, choose):
    fields = {"best_metric": "valid/loss/odd", "evaluate_every": 2, "keep_checkpoints": 1, "max_steps": 14}
    _, folder = train(best_is=best_is, **fields)
    best = choose((row["valid/loss/odd"], row["step"]) for row in rows(folder) if "valid/loss/odd" in row)
    told = json.loads((folder / "best.json").read_text())
    assert (told["value"], told["step"]) == best
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {f"step-{best[1]:08d}", "step-00000014"}
    chosen = folder / "checkpoints" / f"step-{best[1]:08d}" / "encoder" / "model.safetensors"
    assert (folder / "encoder" / "model.safetensors").read_bytes() == chosen.read_bytes()


def test_a_best_metric_that_nobody_computes_is_refused_with_those_that_exist(train):
    with pytest.raises(UserError, match=r"no figure 'valid/f1'; there are: .*valid/accuracy, valid/loss/even"):
        train(best_metric="valid/f1")
