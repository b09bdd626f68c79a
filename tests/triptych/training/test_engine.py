import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from triptych.config import UserError
from triptych.training.held_out_loss import LossEvaluator
from triptych.training.optim import Rate, lr_at, parameter_groups
from triptych.training.step_loss import StepLoss


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.dist
@pytest.mark.slow
def test_three_steps_and_three_in_a_new_process_are_six_bit_for_bit(tmp_path, run_ranks, tiny):
    run_ranks("resume_before", tmp_path)
    run_ranks("resume_after", tmp_path)
    for kind, precision, optimizer in tiny.KINDS:
        name = f"{kind}-{precision}-{optimizer}-2"
        straight = json.loads((tmp_path / f"{name}.json").read_text())
        resumed = json.loads((tmp_path / f"{name}-again.json").read_text())
        assert straight["losses"][3:] == resumed["losses"], name
        assert resumed["state_is_same"], name
        for file in ("model", "optimizer", *(["loss_scale"] if precision == "fp16" else [])):
            end, again = (load_file(tmp_path / f"{name}{part}-6-{file}.safetensors") for part in ("", "-again"))
            assert equal(end, again), (name, file)
        encoder = load_file(tmp_path / f"{name}-6-encoder.safetensors")
        model = load_file(tmp_path / f"{name}-6-model.safetensors")
        assert equal(encoder, {k.removeprefix("encoder."): v for k, v in model.items() if k.startswith("encoder.")})
        assert encoder["seen"][0] == 12  # a buffer: two micro-batches of six steps, none of the evaluation
        assert set(straight["figures"]) == {"loss/even", "loss/odd", "accuracy"}
        if precision == "fp16":
            assert 1 <= load_file(tmp_path / f"{name}-3-loss_scale.safetensors")["skipped_steps"] < 3, name
            same = json.loads((tmp_path / "accelerate-fp16-adamw-2.json").read_text())
            for one, other in zip(straight["losses"], same["losses"], strict=True):
                assert one == pytest.approx(other, abs=2e-3), name


@pytest.mark.dist
@pytest.mark.slow
def test_neither_world_size_nor_accumulation_nor_stage_changes_what_is_learnt(tmp_path, run_ranks):
    run_ranks("gradients", tmp_path, world=2)
    run_ranks("gradients", tmp_path, world=1)
    expected = load_file(tmp_path / "accelerate-1-1-model.safetensors")
    del expected["encoder.seen"]  # counts micro-batches
    found = sorted(tmp_path.glob("[!e]*-model.safetensors"))
    assert len(found) == 17
    for path in found:
        weights = load_file(path)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6, msg=f"{path.name}: {name}")
    for kind in (0, 3, "accelerate"):  # saved by two ranks at stage 1
        for file in ("model", "optimizer"):
            saved = load_file(tmp_path / f"1-2-4-{file}.safetensors")
            assert equal(saved, load_file(tmp_path / f"elastic-{kind}-{file}.safetensors")), kind


def plain_sgd(tiny, num_steps):
    """The state after torch's own SGD, on whole global batches."""
    config = tiny.OPTIMIZERS["sgd"]
    task = tiny.TinyTask()
    groups = parameter_groups(task, config.weight_decay)
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    for step, (batch,) in zip(range(num_steps), tiny.TinyLoader(0, 1).steps(0), strict=False):
        even, odd = (total.sum / total.count for total in task(batch).losses.values())
        optimizer.zero_grad()
        (even + 0.5 * odd).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, config, 6)
        optimizer.step()
    model = dict(task.named_parameters())
    momenta = {f"momentum_buffer/{name}": optimizer.state[value]["momentum_buffer"] for name, value in model.items()}
    return {"model": model, "optimizer": momenta}


def assert_close(found, expected, what):
    assert found.keys() - expected.keys() <= {"encoder.seen"}, what  # counts micro-batches
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=f"{what}: {name}")


@pytest.mark.dist
@pytest.mark.slow
def test_sgd_over_ranks_micro_batches_and_stages_is_torchs_own(tmp_path, run_ranks, tiny):
    run_ranks("sgd", tmp_path)
    expected = plain_sgd(tiny, num_steps=4)
    for kind in tiny.ENGINES:
        for file, tensors in expected.items():
            assert_close(load_file(tmp_path / f"{kind}-{file}.safetensors"), tensors, f"{kind} {file}")


def test_sgd_of_one_process_is_torchs_own(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate", optimizer="sgd")
    tiny.run_steps(engine, tiny.TinyLoader(0, 1), 0, 4)
    found = engine.state()
    for file, tensors in plain_sgd(tiny, num_steps=4).items():
        assert_close(found[file], tensors, file)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_moments_are_restored_and_those_of_another_optimizer_refused(alone, tiny, optimizer):
    engine = tiny.build_engine(alone, "accelerate", optimizer=optimizer)
    tiny.run_steps(engine, tiny.TinyLoader(0, 1), 0, 2)
    kept = engine.state()
    tiny.run_steps(engine, tiny.TinyLoader(0, 1), 2, 4)
    again = tiny.build_engine(alone, "accelerate", optimizer=optimizer)
    again.load_state(kept)
    assert equal(again.state()["optimizer"], kept["optimizer"])
    tiny.run_steps(again, tiny.TinyLoader(0, 1), 2, 4)
    assert all(equal(again.state()[file], engine.state()[file]) for file in kept)
    other = tiny.build_engine(alone, "accelerate", optimizer="sgd" if optimizer == "adamw" else "adamw")
    with pytest.raises(UserError, match=r"of another optimizer: it has .*; start under another name"):
        other.load_state(kept)


@pytest.mark.dist
@pytest.mark.slow
def test_clips_are_compared_over_the_whole_step_however_it_is_cut(tmp_path, run_ranks):
    for world in (1, 2):
        run_ranks("pairs", tmp_path, world=world)
    expected = load_file(tmp_path / "accelerate-1-1-model.safetensors")
    del expected["encoder.seen"]
    losses = json.loads((tmp_path / "accelerate-1-1.json").read_text())
    found = sorted(tmp_path.glob("*-model.safetensors"))
    assert len(found) == 12
    for path in found:
        weights = load_file(path)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-6, msg=f"{path.name}: {name}")
        for one, other in zip(losses, json.loads((tmp_path / f"{path.name[:-18]}.json").read_text()), strict=True):
            assert one == pytest.approx(other, abs=1e-5), path.name
    assert abs(float(expected["scale"]) - 1.5) > 0.01


@pytest.mark.parametrize("kind", [pytest.param(1, marks=pytest.mark.slow), "accelerate"])
def test_a_micro_batch_that_is_embedded_twice_drops_the_same_units(alone, tiny, kind):
    engine = tiny.build_engine(alone, kind, num_micro_batches=3, dropout=0.5, task=tiny.TinyPairs)
    tiny.run_steps(engine, tiny.TinyLoader(0, 1, 3), 0, 1)
    second, third, _, second_again, third_again = engine.task.embedded
    assert torch.equal(second, second_again)
    assert torch.equal(third, third_again)


@pytest.mark.dist
@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(tmp_path, launch):
    codes, outputs = launch("broken", tmp_path).wait()
    assert codes == [0, 0], "\n".join(outputs)
    for output in outputs:
        assert "told: step 0: the loss is not finite, so no rank updated its weights. rank 1: odd, in the" in output
        assert "clip-0004, clip-0005, clip-0006, clip-0007, clip-0008" in output
        assert "changed: []" in output


def test_a_global_batch_without_any_target_stops_with_the_step(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate")
    batch = tiny.make_batch([0, 2])
    engine.train_step([batch], 0)  # one objective without targets is no reason to stop
    engine.task.counts = lambda batch: {"even": 0, "odd": 0}
    with pytest.raises(UserError, match="step 5: no clip of the global batch has a target for even or odd"):
        engine.train_step([batch], 5)


@pytest.mark.parametrize("kind", [pytest.param(0, marks=pytest.mark.slow), "accelerate"])
def test_a_gradient_that_is_not_finite_changes_no_weight_though_every_loss_is_finite(alone, tiny, kind):
    engine = tiny.build_engine(alone, kind)
    before = tiny.weights_of(engine)
    engine.task.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match="step 2: the gradient is not finite"):
        engine.train_step([tiny.make_batch([0, 1])], 2)
    assert equal(before, tiny.weights_of(engine))


def overflow_at(engine, step):
    """Let the gradient overflow in the last micro-batch of a step."""
    seen = []

    def spoil(gradient):
        seen.append(step)
        return gradient * float("inf") if len(seen) == 2 else gradient

    return engine.task.head.weight.register_hook(spoil)


@pytest.mark.parametrize("kind", [*(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 2)), "accelerate"])
def test_a_step_that_overflows_fp16_is_left_out_and_the_next_ones_are_what_they_would_be(alone, tiny, kind, caplog):
    engine, other = (tiny.build_engine(alone, kind, "fp16", num_micro_batches=2) for _ in range(2))
    steps = dict(enumerate(itertools.islice(tiny.TinyLoader(0, 1, 2).steps(0), 5)))
    for one in (engine, other):
        one._loss_scale.value = 64.0  # no overflow of its own
        one.train_step(steps[0], 0)
    before = engine.state()
    hook = overflow_at(engine, 1)
    result = engine.train_step(steps[1], 1)
    hook.remove()
    assert not math.isfinite(result.grad_norm)
    assert (result.report["loss_scale"], result.report["skipped_steps"]) == (64.0, 1.0)
    assert ["step 1 left out" in message for message in caplog.messages if "warning: step" in message] == [True]
    after = engine.state()
    for state in (before, after):
        del state["model"]["encoder.seen"]  # counts micro-batches
    assert all(equal(before[file], after[file]) for file in ("model", "optimizer"))
    other._loss_scale.value = 32.0
    for step in (2, 3):
        found, expected = (one.train_step(steps[step], step) for one in (engine, other))
        assert found.losses == expected.losses
        assert found.grad_norm == expected.grad_norm
    assert found.report["loss_scale"] == 32.0
    assert found.report["skipped_steps"] == 1.0


def test_fp16_learns_what_fp32_learns_and_clips_what_is_not_scaled(alone, tiny):
    engines = [tiny.build_engine(alone, "accelerate", precision) for precision in ("fp32", "fp16")]
    engines[1]._loss_scale.value = 256.0
    for step, batches in zip(range(4), tiny.TinyLoader(0, 1).steps(0), strict=False):
        whole, half = (engine.train_step(batches, step) for engine in engines)
        assert half.losses == pytest.approx(whole.losses, rel=0.02)
        assert half.grad_norm == pytest.approx(whole.grad_norm, rel=0.02)
        assert half.grad_norm != whole.grad_norm
    assert half.report["skipped_steps"] == 0


def test_a_checkpoint_of_another_precision_begins_with_a_scale_of_its_own(alone, tiny):
    kept = tiny.build_engine(alone, "accelerate").state()
    engine = tiny.build_engine(alone, "accelerate", "fp16")
    engine._loss_scale.value = 2.0
    engine.load_state(kept)
    assert engine.state()["loss_scale"]["value"] == 2.0**16


@pytest.mark.slow
def test_zero_refuses_rates_that_begin_late(alone, tiny):
    with pytest.raises(UserError, match=r"zero_stage 2: .* set zero_stage=0"):
        tiny.build_engine(alone, 2, rates={"head.weight": Rate(1.0, from_step=3)})


@pytest.mark.dist
@pytest.mark.slow
def test_deepspeed_runs_again_in_a_process_that_left_its_group(tmp_path, run_ranks):
    one, other = [line for line in run_ranks("again", tmp_path, world=1).splitlines() if line.startswith("[{")]
    assert one == other


def test_figures_are_weighed_by_their_items_over_all_micro_batches(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate")
    whole = engine.evaluate([tiny.make_batch([0, 1, 2, 3, 5])])
    parts = engine.evaluate([tiny.make_batch([0, 2]), tiny.make_batch([1, 3, 5])])
    assert parts == pytest.approx(whole, rel=1e-6)
    assert engine.evaluate([]) == {}


def test_an_evaluation_counts_damaged_clips_and_stops_at_more_than_allowed(alone, tiny, caplog):
    engine = tiny.build_engine(alone, "accelerate")
    loader = tiny.TinyLoader(rank=0, world=1, max_damaged=1)
    loader.batches = lambda: iter(
        [replace(tiny.make_batch([number]), damaged=((number, f"clip {number}"),)) for number in (0, 1)]
    )
    with pytest.raises(UserError, match=r"valid: 2 clips are damaged, .* allows 1 of this split"):
        LossEvaluator("valid", engine, loader).evaluate(0)
    loader.max_damaged = 2
    assert LossEvaluator("valid", engine, loader).evaluate(0)["damaged_clips"] == 2
    assert caplog.messages == ["warning: left out: clip 0", "warning: left out: clip 1"]


def test_an_objective_without_items_is_left_out_of_the_figures(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate")
    result = engine.train_step([tiny.make_batch([0, 2])], 0)
    assert set(result.losses) == {"even"}
    assert result.loss == result.losses["even"]
    assert "loss/odd" not in engine.evaluate([tiny.make_batch([0, 2])])


def test_a_weight_that_a_micro_batch_did_not_use_has_a_zero_gradient_or_is_refused(tiny):
    batch = tiny.make_batch([0, 1])  # no video, so `rare` is not used
    task = tiny.TinyTask()
    loss, *_ = StepLoss(task, "fp32")(batch, {"even": 1.0, "odd": 1.0})
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    assert not task.encoder.rare.weight.grad.any()
    with pytest.raises(UserError, match=r"encoder.rare.weight and 1 more weights took no part .*zero_stage=1"):
        StepLoss(task, "fp32", refuse_unused=True)(batch, {"even": 1.0, "odd": 1.0})


def test_a_state_of_another_model_is_refused_by_name(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate")
    state = engine.state()
    state["model"]["head.bias"] = torch.zeros(3)
    state["model"]["old"] = state["model"].pop("head.weight")
    with pytest.raises(UserError, match=r"head.bias is \(3,\) in the checkpoint and \(2,\) in the model; head.weight"):
        engine.load_state(state)


def test_loading_does_not_touch_what_was_given(alone, tiny):
    engine = tiny.build_engine(alone, "accelerate")
    tiny.run_steps(engine, tiny.TinyLoader(0, 1), 0, 2)
    given = engine.state()
    copy = {file: {name: value.clone() for name, value in tensors.items()} for file, tensors in given.items()}
    engine.load_state(given)
    tiny.run_steps(engine, tiny.TinyLoader(0, 1), 2, 4)
    assert all(equal(given[file], copy[file]) for file in given)
