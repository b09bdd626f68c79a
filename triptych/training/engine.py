"""One optimizer step over micro-batches and ranks, whoever does the arithmetic (engine_deepspeed, engine_accelerate).

What is common lives here: losses are divided by the counts of the whole optimizer step, so that neither the world size
nor the number of micro-batches changes a gradient; a loss that is not finite stops every rank before the optimizer.
"""

import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triptych.batch import Batch
from triptych.config import UserError
from triptych.training import compare
from triptych.training.account import Reading
from triptych.training.distributed import Distributed
from triptych.training.loss_scale import LossScale
from triptych.training.optim import MOMENTS, OptimizerConfig, lr_at
from triptych.training.tally import Key, Record, Tally, means, refuse_broken
from triptych.training.task import Embeddings, Task, Total

logger = logging.getLogger(__name__)

Files = dict[str, dict[str, Tensor]]
"""File name (no ending) -> tensor name -> tensor: what a checkpoint stores."""


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did, equal on all ranks."""

    loss: float
    """Weighted sum of `losses`."""
    losses: dict[str, float]
    """Objective -> mean over the items of the whole optimizer step; one without items is missing."""
    weights: dict[str, float]
    """Objective -> its weight in this step."""
    report: dict[str, float]
    grad_norm: float
    """L2 norm of the whole gradient before clipping; not finite where fp16 left the step out."""
    lr: float
    reading: Reading
    """Of the global batch."""
    stop: bool
    """Whether any rank was asked to stop."""


class Engine(ABC):
    """A task and its optimizer on this rank; every method but the properties is a collective."""

    def __init__(
        self,
        task: Task,
        distributed: Distributed,
        *,
        seed: int,
        optimizer: OptimizerConfig,
        max_steps: int,
        precision: str,
    ) -> None:
        self.task = task
        self.distributed = distributed
        self._seed = seed
        self._optimizer_config = optimizer
        self._moments = MOMENTS[optimizer.name]
        self._max_steps = max_steps
        self._loss_scale = LossScale() if precision == "fp16" else None
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._named: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.distributed.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.distributed.is_main

    def train_step(self, micro_batches: list[Batch], step: int, stop: Callable[[], bool] = lambda: False) -> StepResult:
        """One optimizer step.

        Args:
            micro_batches: this rank's; the same number on all ranks.
            step: from 0; decides learning rate, weights of objectives and dropout.
            stop: asked after the backward passes whether this rank should stop; all ranks hear of it in the result.

        Raises:
            UserError: no target in the global batch, or a loss or gradient that is not finite; in fp16 a gradient that
                is not finite leaves the step out and lowers the loss scale, until there is nothing to lower. Weights
                are then as they were.
        """
        self._module().train()  # first, as an objective may count otherwise in evaluation
        counts = self._counts(micro_batches, step)
        weights = {name: dict(self.task.weights(step)).get(name, 1.0) for name in counts}
        # Times the world size because DeepSpeed and DDP average gradients over ranks.
        scale = {name: weights[name] * self.distributed.world / count for name, count in counts.items() if count}
        lr = lr_at(step, self._optimizer_config, self._max_steps)
        records = self._accumulate(micro_batches, step, scale)
        own = Reading.of(micro_batches)
        tally, sums, (stops, *numbers) = self._over_ranks("train_step", records, stop(), *own.numbers)
        if not all(math.isfinite(value) for (kind, _), (value, _) in sums.items() if kind == "loss"):
            refuse_broken(self.distributed.gather(tally.find_broken(micro_batches)), step, self._loss_scale is not None)
        grad_norm = self._step(lr, step)
        scaling = self._look_at(grad_norm, step)
        losses = means(sums, "loss")
        return StepResult(
            loss=sum(weights[name] * value for name, value in losses.items()),
            losses=losses,
            weights=weights,
            report=means(sums, "report") | scaling,
            grad_norm=grad_norm,
            lr=lr,
            reading=self._read_by_all(own, numbers),
            stop=stops > 0,
        )

    def _look_at(self, grad_norm: float, step: int) -> dict[str, float]:
        """Move fp16's loss scale; returns its figures: that of this step, and how many steps were left out so far."""
        scale = self._loss_scale
        if scale is None:
            if not math.isfinite(grad_norm):
                raise UserError(
                    f"step {step}: the gradient is not finite ({grad_norm}) though every loss is; continue from the "
                    f"last checkpoint with a lower learning rate, or try precision fp32"
                )
            return {}
        used = scale.value
        scale.update(grad_norm, step)
        if scale.value < used and self.is_main:
            logger.warning("warning: step %d left out: its gradient overflows fp16 at a loss scale of %g", step, used)
        return {"loss_scale": used, "skipped_steps": float(scale.skipped_steps)}

    def _accumulate(self, micro_batches: list[Batch], step: int, scale: Mapping[str, float]) -> list[Record]:
        """The gradients of an optimizer step, and the totals of each micro-batch.

        Where clips are compared over the step, all micro-batches but the first are embedded ahead without a graph, and
        a second time with it (triptych.training.compare).
        """
        ahead: list[compare.Embedded] = []
        if len(micro_batches) > 1 and self.task.compares:
            with torch.no_grad():
                for index, batch in enumerate(micro_batches[1:], start=1):
                    self._seed_dropout(step, index)
                    ahead.append(self._module()(batch.to(self.device), {}, losses=False)[2])
        compared = compare.Compared([], ({}, {}))
        records: list[Record] = []
        for index, batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            self._seed_dropout(step, index)
            with self._accumulating(last):
                loss, (losses, report), embedded = self._module()(batch.to(self.device), scale)
                if embedded:
                    if index == 0:
                        compared = compare.compare(self.task, [embedded, *ahead], scale, self.distributed)
                    loss = loss + compare.pull_back(embedded, compared.gradients[index])
                self._backward(loss, last)
            more = compared.record if index == 0 else _nothing(compared.record)
            records.append(({**losses, **more[0]}, {**report, **more[1]}))
        return records

    def _seed_dropout(self, step: int, micro_batch: int) -> None:
        """Dropout is a function of (seed, step, rank, micro-batch): resuming needs no generator state, and what is run
        twice draws the same."""
        first = (self._seed * 1_000_003 + step) * 65_537 + self.distributed.rank
        torch.manual_seed((first + micro_batch * 0x9E3779B97F4A7C15) % 2**63)

    def embed(self, batches: Iterable[Batch]) -> tuple[list[str], dict[str, Embeddings]]:
        """Keys of all clips of all ranks, and objective -> their embeddings in that order, in evaluation mode.

        Ranks give equal numbers of batches.
        """
        self._module().eval()
        keys: list[str] = []
        embedded: list[compare.Embedded] = []
        with torch.no_grad():
            for batch in batches:
                embedded.append(self._module()(batch.to(self.device), {}, losses=False)[2])
                keys += batch.keys
        joined = {name: compare.join([part[name] for part in embedded]) for name in embedded[0]}
        gathered = {name: compare.gather(own, self.distributed)[0] for name, own in joined.items()}
        return [key for own in self.distributed.gather(keys) for key in own], gathered

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Means over all batches of all ranks, without gradients: "loss/<objective>" and the report's figures, and
        "damaged_clips" where clips could not be read.

        A figure without a single item is missing, and so are losses that compare clips. Ranks give equal numbers of
        batches.
        """
        self._module().eval()
        records: list[Record] = []
        own = Reading()
        with torch.no_grad():
            for batch in batches:
                records.append(self._module()(batch.to(self.device), {}, embed=False)[1])
                own += Reading.of([batch])
        if not records:
            return {}
        _, sums, numbers = self._over_ranks("evaluate", records, *own.numbers)
        damaged = self._read_by_all(own, numbers).damaged
        figures = {f"loss/{name}": value for name, value in means(sums, "loss").items()} | means(sums, "report")
        return figures | ({"damaged_clips": len(damaged)} if damaged else {})

    def state(self) -> Files:
        """Whole, unsharded state on rank 0, in fp32 on the CPU; elsewhere empty.

        It depends neither on the world size nor on the ZeRO stage: "model" holds parameters and buffers, "optimizer"
        the moments (triptych.training.optim.MOMENTS) of each parameter that was ever updated, and with AdamW its
        step count. In fp16 there is a "loss_scale".
        """
        model: dict[str, Tensor] = {}
        optimizer: dict[str, Tensor] = {}
        for name, parameter in self.task.named_parameters():
            self._keep(model, name, self._read_weight(parameter))
            if not parameter.requires_grad:
                continue
            for moment in self._moments:
                self._keep(optimizer, f"{moment}/{name}", self._read_moment(parameter, moment))
            steps = self._read_steps(parameter)
            self._keep(optimizer, f"step/{name}", None if steps is None else torch.tensor(float(steps)))
        for name, buffer in _buffers(self.task).items():
            self._keep(model, name, buffer)
        scaling = {} if self._loss_scale is None else {"loss_scale": self._loss_scale.state()}
        return {"model": model, "optimizer": optimizer, **scaling} if self.is_main else {}

    def encoder_state(self) -> dict[str, Tensor]:
        """`task.encoder.state_dict()` with whole weights on rank 0; elsewhere empty."""
        kept: dict[str, Tensor] = {}
        for name, value in self.task.encoder.state_dict(keep_vars=True).items():
            self._keep(kept, name, self._read_weight(value) if isinstance(value, nn.Parameter) else value)
        return kept

    def load_state(self, files: Files) -> None:
        """Continue from what `state` gave, at any world size, stage and precision; every rank gives all of it.

        Raises:
            UserError: names or shapes that are not this model's, or moments that are not this optimizer's.
        """
        model, optimizer = files["model"], files["optimizer"]
        parameters = dict(self.task.named_parameters())
        buffers = _buffers(self.task)
        _check_fit({name: self._shape(p) for name, p in parameters.items()} | _shapes(buffers), _shapes(model))
        stored = {name.partition("/")[0] for name in optimizer} - {"step"}
        if not stored <= set(self._moments):
            raise UserError(
                f"the checkpoint is of another optimizer: it has {', '.join(sorted(stored))}, and "
                f"{self._optimizer_config.name} keeps {', '.join(self._moments)}; start under another name"
            )
        with torch.no_grad():
            self._before_load()
            for name, buffer in buffers.items():
                buffer.copy_(model[name])
            for name, parameter in parameters.items():
                self._write_weight(parameter, model[name].to(self.device))
                if parameter.requires_grad and f"{self._moments[0]}/{name}" in optimizer:
                    whole = {moment: optimizer[f"{moment}/{name}"] for moment in self._moments}
                    moments = {moment: value.to(self.device, copy=True) for moment, value in whole.items()}
                    steps = optimizer.get(f"step/{name}")
                    self._write_moments(parameter, moments, None if steps is None else int(steps))
            self._after_load()
        if self._loss_scale is not None:
            self._loss_scale = LossScale.of(files["loss_scale"]) if "loss_scale" in files else LossScale()

    @property
    def _loss_factor(self) -> float:
        """Of the loss in `_backward`; `_step` takes it out of the gradient before it looks at it."""
        return 1.0 if self._loss_scale is None else self._loss_scale.value

    def _keep(self, kept: dict[str, Tensor], name: str, value: Tensor | None) -> None:
        if self.is_main and value is not None:  # a copy, as tied and flattened weights share memory
            kept[name] = value.detach().to("cpu", copy=True).contiguous()

    def _shape(self, parameter: nn.Parameter) -> tuple[int, ...]:
        return tuple(parameter.shape)

    @abstractmethod
    def _module(self) -> nn.Module:
        """The wrapped StepLoss."""

    def _accumulating(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; DDP wants to know early that it is not the last."""
        return contextlib.nullcontext()

    @abstractmethod
    def _backward(self, loss: Tensor, last: bool) -> None:
        """Add a micro-batch's gradient; after the last one gradients are averaged over ranks."""

    @abstractmethod
    def _step(self, lr: float, step: int) -> float:
        """Unscale, clip and step; returns the gradient's norm before clipping, and leaves out a step of a norm that is
        not finite."""

    def _clip(self, clip_norm: float) -> float:
        """Unscale and clip the gradients that the parameters have; returns their norm before clipping."""
        gradients = [weight.grad for weight in self.task.parameters() if weight.grad is not None]
        if self._loss_scale is not None:
            torch._foreach_mul_(gradients, 1 / self._loss_factor)
        return float(nn.utils.clip_grad_norm_(self.task.parameters(), clip_norm or math.inf))

    @abstractmethod
    def _read_weight(self, parameter: nn.Parameter) -> Tensor: ...

    @abstractmethod
    def _read_moment(self, parameter: nn.Parameter, moment: str) -> Tensor | None: ...

    @abstractmethod
    def _read_steps(self, parameter: nn.Parameter) -> int | None:
        """Updates that AdamW counted; SGD does not count."""

    @abstractmethod
    def _write_weight(self, parameter: nn.Parameter, value: Tensor) -> None: ...

    @abstractmethod
    def _write_moments(self, parameter: nn.Parameter, moments: dict[str, Tensor], steps: int | None) -> None: ...

    @abstractmethod
    def _before_load(self) -> None: ...

    @abstractmethod
    def _after_load(self) -> None: ...

    def _counts(self, micro_batches: list[Batch], step: int) -> dict[str, int]:
        """Objective -> items in the whole optimizer step."""
        own: dict[str, int] = {}
        for batch in micro_batches:
            for name, count in self.task.counts(batch).items():
                own[name] = own.get(name, 0) + int(count)
        names = sorted(own)
        numbers = torch.tensor([own[name] for name in names], device=self.device)
        total = dict(zip(names, self.distributed.sum(numbers).tolist(), strict=True))
        if not any(total.values()):
            raise UserError(
                f"step {step}: no clip of the global batch has a target for {' or '.join(total) or 'any objective'}; "
                f"use a larger batch, mask more, or check the shards with: python -m shards check"
            )
        return total

    def _read_by_all(self, own: Reading, numbers: list[float]) -> Reading:
        """What all ranks read; rank 0 names each damaged clip once."""
        reading = own.over_ranks(numbers, self.distributed)
        for _, reason in reading.damaged:
            if self.is_main and reason not in self._named:
                logger.warning("warning: left out: %s", reason)
            self._named.add(reason)
        return reading

    def _over_ranks(
        self, caller: str, records: list[Record], *numbers: float
    ) -> tuple[Tally, dict[Key, tuple[float, int]], list[float]]:
        """The tally of this rank, and its sums and those of `numbers` over all ranks."""
        tally = Tally.of(records)
        if caller not in self._keys:  # adding up by position would not notice a difference
            reported = set(self.distributed.gather(tally.keys))
            assert len(reported) == 1, f"ranks report different figures: {reported}"
            self._keys[caller] = tally.keys
        assert tally.keys == self._keys[caller], f"figures changed: {self._keys[caller]} -> {tally.keys}"
        return tally, *tally.over_ranks(self.distributed, *numbers)


def _nothing(record: Record) -> Record:
    """The same names without an item."""
    losses, report = ({name: Total(total.sum * 0, 0) for name, total in totals.items()} for totals in record)
    return losses, report


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """The persistent buffers."""
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if not isinstance(value, nn.Parameter)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _check_fit(model: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{name} is {stored.get(name, 'missing')} in the checkpoint and {model.get(name, 'missing')} in the model"
        for name in sorted({*model, *stored})
        if model.get(name) != stored.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"the checkpoint is not of this model: {'; '.join(wrong[:3])}{more}; start under another name")
