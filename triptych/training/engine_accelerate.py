"""Accelerate behind the Engine's face: plain data parallelism for models that fit on every GPU."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from triptych.training.distributed import Distributed
from triptych.training.engine import Engine
from triptych.training.optim import OptimizerConfig, Rate, build, by_id, set_rates
from triptych.training.step_loss import Arithmetic, StepLoss
from triptych.training.task import Task


class AccelerateEngine(Engine):
    """A task under DistributedDataParallel, or alone in one process."""

    def __init__(
        self,
        task: Task,
        distributed: Distributed,
        config: Arithmetic,
        *,
        optimizer: OptimizerConfig,
        max_steps: int,
        seed: int,
        rates: Mapping[str, Rate] | None = None,
    ) -> None:
        """Wrap the task.

        Args:
            task: on the CPU, the same weights on every rank.
            distributed: of triptych.training.distributed.init.
            config: precision, clipping.
            optimizer: AdamW or SGD, and its schedule.
            max_steps: of the run, for the schedule.
            seed: of dropout.
            rates: name of a parameter of the task -> its learning rate, where some have one of their own.
        """
        super().__init__(
            task, distributed, seed=seed, optimizer=optimizer, max_steps=max_steps, precision=config.precision
        )
        from accelerate import Accelerator, DistributedDataParallelKwargs

        self._config = config
        # Ranks evaluate without talking to each other, so buffers are not broadcast; StepLoss gives every
        # parameter a gradient, so none is looked for. Precision is our matter: Accelerate has no fp16 on a CPU.
        wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
        self._accelerator = Accelerator(cpu=distributed.device.type == "cpu", kwargs_handlers=[wrapping])
        loss = StepLoss(task, config.precision).to(distributed.device)
        self._optimizer = build(loss, optimizer, by_id(task, rates or {}))
        self._wrapped: Any = self._accelerator.prepare(loss)

    def _module(self) -> nn.Module:
        return self._wrapped

    def _accumulating(self, last: bool) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if last else self._accelerator.no_sync(self._wrapped)

    def _backward(self, loss: Tensor, last: bool) -> None:
        self._accelerator.backward(loss * self._loss_factor)

    def _step(self, lr: float, step: int) -> float:
        set_rates(self._optimizer, lr, step)
        norm = self._clip(self._config.clip_norm)
        if math.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def _read_weight(self, parameter: nn.Parameter) -> Tensor:
        return parameter.detach()

    def _read_moment(self, parameter: nn.Parameter, moment: str) -> Tensor | None:
        return self._optimizer.state[parameter].get(moment)

    def _read_steps(self, parameter: nn.Parameter) -> int | None:
        state = self._optimizer.state[parameter]
        return int(state["step"]) if "step" in state else None

    def _write_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        parameter.copy_(value)

    def _write_moments(self, parameter: nn.Parameter, moments: dict[str, Tensor], steps: int | None) -> None:
        counted = {} if steps is None else {"step": torch.tensor(float(steps))}
        self._optimizer.state[parameter] = {**counted, **moments}

    def _before_load(self) -> None:
        self._optimizer.state.clear()

    def _after_load(self) -> None:
        pass
