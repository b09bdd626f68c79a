"""DeepSpeed behind the Engine's face, for pretraining and fine-tuning. Importing deepspeed takes 5 s, so only building
this engine does it.

Accelerate has a DeepSpeed plugin. It is not used: its checkpoints are DeepSpeed's own, of one world size and stage, and
what goes on exactly at another one would have to be written here a second time.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from triptych.config import UserError
from triptych.training.distributed import Distributed
from triptych.training.engine import Engine
from triptych.training.optim import OptimizerConfig, Rate, build, by_id, set_rates
from triptych.training.step_loss import Arithmetic, StepLoss
from triptych.training.task import Task

BUCKET_ELEMENTS = 50_000_000
"""Gradients reduced at once; DeepSpeed's own 5e8 would set aside 2 GB for any model."""


@dataclass(frozen=True, kw_only=True)
class ZeroConfig:
    """How a task shares the memory of the ranks; no field changes what is learnt, but for rounding."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """What ranks share out instead of keeping whole: nothing, optimizer state, + gradients, + weights."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: slower, less memory."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig(ZeroConfig, Arithmetic):
    """How a training under DeepSpeed computes, and where its memory is."""


class DeepSpeedEngine(Engine):
    """A task under DeepSpeed's ZeRO; the private names used below are those of deepspeed 0.19."""

    def __init__(
        self,
        task: Task,
        distributed: Distributed,
        config: EngineConfig,
        *,
        optimizer: OptimizerConfig,
        num_micro_batches: int,
        max_steps: int,
        seed: int,
        rates: Mapping[str, Rate] | None = None,
    ) -> None:
        """Wrap the task.

        Args:
            task: on the CPU, the same weights on every rank.
            distributed: of triptych.training.distributed.init.
            config: stage, precision, clipping.
            optimizer: AdamW or SGD, and its schedule.
            num_micro_batches: of an optimizer step, on every rank.
            max_steps: of the run, for the schedule.
            seed: of dropout.
            rates: name of a parameter of the task -> its learning rate, where some have one of their own.

        Raises:
            UserError: a rate begins late at stage 1 to 3, where all weights of a group take a step or none does.
        """
        super().__init__(
            task, distributed, seed=seed, optimizer=optimizer, max_steps=max_steps, precision=config.precision
        )
        if config.zero_stage and any(rate.from_step for rate in (rates or {}).values()):
            raise UserError(
                f"zero_stage {config.zero_stage}: ZeRO updates all weights at every step, so none can join later; set "
                f"zero_stage=0, or let all learn from the start"
            )
        self._config = config
        if config.activation_checkpointing:
            for module in task.modules():
                if hasattr(module, "activation_checkpointing"):
                    module.activation_checkpointing = True  # type: ignore[assignment]
        deepspeed = _import_deepspeed(distributed)
        # Stages 2 and 3 fill their buckets in the order in which gradients arrive and add up buckets of all ranks: an
        # unused weight on one rank shifts its neighbours into each other's place, without any error (tried).
        refuse_unused = config.zero_stage > 1 and distributed.world > 1
        loss = StepLoss(task, config.precision, refuse_unused=refuse_unused).to(distributed.device)
        self._deepspeed = deepspeed
        self._engine: Any = deepspeed.initialize(
            model=loss,
            optimizer=build(loss, optimizer, by_id(task, rates or {})),
            config=_settings(config, num_micro_batches),
        )[0]
        if config.zero_stage:
            self._make_moments()

    def _module(self) -> nn.Module:
        return self._engine

    def _backward(self, loss: Tensor, last: bool) -> None:
        # A new tensor, as DeepSpeed's hook on the module's own output would divide by the number of micro-batches.
        if self._config.zero_stage:
            self._engine.optimizer.loss_scaler.cur_scale = self._loss_factor  # scales, unscales, and changes nothing
            self._engine.backward(loss.clone(), scale_wrt_gas=False)
        else:
            self._engine.backward(loss * self._loss_factor, scale_wrt_gas=False)
        if not last:
            self._engine.step()  # counts the micro-batch, updates nothing

    def _step(self, lr: float, step: int) -> float:
        set_rates(self._engine.optimizer, lr, step)
        if self._config.zero_stage:
            self._engine.step()
            return float(self._engine.get_global_grad_norm())
        norm = self._clip(self._config.clip_norm)
        if not math.isfinite(norm):
            self._engine.zero_grad()  # then a step updates nothing, and DeepSpeed's count of micro-batches goes on
        self._engine.step()
        return norm

    def _shape(self, parameter: nn.Parameter) -> tuple[int, ...]:
        return tuple(getattr(parameter, "ds_shape", parameter.shape))

    def _read_weight(self, parameter: nn.Parameter) -> Tensor:
        if self._config.zero_stage < 3:
            return parameter.detach()
        with self._deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def _read_moment(self, parameter: nn.Parameter, moment: str) -> Tensor | None:
        if self._config.zero_stage == 0:
            return self._engine.optimizer.state[parameter].get(moment)
        return self._deepspeed.utils.safe_get_full_optimizer_state(parameter, moment)

    def _read_steps(self, parameter: nn.Parameter) -> int | None:
        if self._config.zero_stage == 0:
            return _steps(self._engine.optimizer.state[parameter])
        states = self._engine.optimizer.optimizer.state.values()
        return max((steps for state in states if (steps := _steps(state)) is not None), default=None)

    def _write_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        if self._config.zero_stage < 3:
            parameter.copy_(value)
        elif parameter.requires_grad:
            self._deepspeed.utils.safe_set_local_fp32_param(parameter, self._own_part(parameter, value))
        else:
            with self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(value)

    def _write_moments(self, parameter: nn.Parameter, moments: dict[str, Tensor], steps: int | None) -> None:
        if self._config.zero_stage == 0:
            counted = {} if steps is None else {"step": torch.tensor(float(steps))}
            self._engine.optimizer.state[parameter] = {**counted, **moments}
            return
        if steps is not None:
            for state in self._engine.optimizer.optimizer.state.values():
                state["step"].fill_(max(float(state["step"]), steps))
        for moment, value in moments.items():
            if self._config.zero_stage < 3:
                self._deepspeed.utils.safe_set_full_optimizer_state(parameter, value, moment)
            else:
                part = self._own_part(parameter, value)
                self._deepspeed.utils.safe_set_local_optimizer_state(parameter, part, moment)

    def _make_moments(self) -> None:
        """Make what the optimizer would make at its first step, all zeros.

        DeepSpeed links weights to moments after the first parameter group stepped, when the second has none yet. SGD
        would take its first gradient for the momentum; to zeros it adds the same.
        """
        zero = self._engine.optimizer
        for partition in self._partitions():
            state = {moment: torch.zeros_like(partition) for moment in self._moments}
            counted = {"step": torch.tensor(0.0)} if self._optimizer_config.name == "adamw" else {}
            zero.optimizer.state[partition] = {**counted, **state}
        if self._config.zero_stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def _partitions(self) -> list[Tensor]:
        """This rank's flat fp32 weights, one a parameter group."""
        zero = self._engine.optimizer
        return (
            zero.fp32_partitioned_groups_flat if self._config.zero_stage == 3 else zero.single_partition_of_fp32_groups
        )

    def _before_load(self) -> None:
        zero = self._engine.optimizer
        if self._config.zero_stage == 0:
            zero.state.clear()
            return
        for state in zero.optimizer.state.values():
            for value in state.values():
                value.zero_()
        if self._config.zero_stage == 3 and zero.persistent_parameters:  # small ones, kept whole between steps
            zero.persistent_parameters[0].partition(zero.persistent_parameters)

    def _after_load(self) -> None:
        zero = self._engine.optimizer
        if self._config.zero_stage == 3:
            for group in range(len(self._partitions())):
                zero._reassign_or_swap_out_partitioned_parameters(group)
            if zero.persistent_parameters:
                zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
        elif self._config.zero_stage:
            zero.refresh_fp32_params()

    def _own_part(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """This rank's slice of a whole tensor; the last rank's is padded with zeros, as in stage 3."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        start = size * self.distributed.rank
        part = torch.zeros(size, device=value.device)
        own = value.flatten()[start : start + size]
        part[: own.numel()] = own
        return part


def _settings(config: EngineConfig, num_micro_batches: int) -> dict[str, Any]:
    """DeepSpeed's own config."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # only for DeepSpeed's own bookkeeping
        "gradient_accumulation_steps": num_micro_batches,
        # Stage 0 clips nothing by itself that could be read back, so `_step` does it there.
        "gradient_clipping": config.clip_norm if config.zero_stage else 0.0,
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def _steps(state: dict[str, Any]) -> int | None:
    return int(state["step"]) if "step" in state else None


def _import_deepspeed(distributed: Distributed) -> Any:
    """Import deepspeed quietly and for the device in use, which it otherwise guesses from the machine."""
    os.environ["DS_ACCELERATOR"] = distributed.device.type
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import logging

    import deepspeed
    import deepspeed.utils

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # On a CPU it would compile a shared-memory all-reduce at every first start: that needs a compiler, and a process
    # killed meanwhile leaves a lock in the user's cache at which every later start waits forever (seen).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
