"""The module that DeepSpeed or DistributedDataParallel wraps around a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from triptych.batch import Batch
from triptych.config import UserError
from triptych.training import compare
from triptych.training.tally import Record
from triptych.training.task import Output, Task, Total

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How the arithmetic of a training is done."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are autocast; weights, gradients and optimizer state stay fp32. fp16 scales the loss, and leaves
    out steps whose gradient overflows all the same."""
    clip_norm: float = 1.0
    """Largest L2 norm of the gradient; 0 is no clipping."""


class StepLoss(nn.Module):
    """The module that DeepSpeed or DDP wraps: task in, one loss out, because they hook onto the tensors of its output.

    bf16 and fp16 are autocast over fp32 weights: what a model computes in float32 on purpose (times in seconds, losses,
    norms) stays exact, whichever model it is, and a checkpoint is the same in every precision.
    """

    def __init__(self, task: Task, precision: str, *, refuse_unused: bool = False) -> None:
        """Wrap a task.

        Args:
            task: on any device.
            precision: "fp32", "bf16" or "fp16".
            refuse_unused: whether a parameter that a micro-batch did not use is an error.
        """
        super().__init__()
        self.task = task
        self.precision = precision
        self.refuse_unused = refuse_unused

    def forward(
        self, batch: Batch, scale: Mapping[str, float], *, embed: bool = True, losses: bool = True
    ) -> tuple[Tensor, Record, compare.Embedded]:
        """Loss of a micro-batch as its part of the step's loss, the detached totals, and the embeddings.

        Args:
            batch: on the device.
            scale: objective -> factor of its summed loss.
            embed: whether the embeddings are wanted, else there are none.
            losses: whether the losses are wanted, else they are none.
        """
        half = AUTOCAST.get(self.precision)
        with torch.autocast(self._device_type(), dtype=half, enabled=half is not None):
            embedded = self.task.embed(batch) if embed else {}
            output = self.task(batch) if losses else Output({}, {})
        loss = sum((scale.get(name, 0.0) * total.sum.float() for name, total in output.losses.items()), torch.zeros(()))
        if torch.is_grad_enabled():
            loss = loss + self._untouched([loss, *compare.tensors(embedded)])
        totals = {name: Total(total.sum.detach(), total.count) for name, total in output.losses.items()}
        return loss, (totals, dict(output.report)), embedded

    def _device_type(self) -> str:
        return next(self.parameters()).device.type

    def _untouched(self, roots: list[Tensor]) -> Tensor:
        """Zero, with a gradient of zero for every parameter that this micro-batch did not use.

        Ranks reduce the gradients of all parameters together, and their clips may lack different modalities.
        """
        used: set[int] = set()
        seen: set[Any] = set()
        waiting = [root.grad_fn for root in roots]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                used.add(id(node.variable))
            waiting.extend(following for following, _ in node.next_functions)
        rest = {name: p for name, p in self.task.named_parameters() if p.requires_grad and id(p) not in used}
        if rest and self.refuse_unused:
            raise UserError(
                f"{next(iter(rest))} and {len(rest) - 1} more weights took no part in a micro-batch: its clips lack a "
                f"modality, or no head reads what they compute. With ZeRO stage 2 or 3 every rank must use all weights "
                f"in the same order: set engine.zero_stage=1, in fine-tuning engine.deepspeed.zero_stage=1"
            )
        touched = (0.0 * weight.reshape(-1)[0] for weight in rest.values() if weight.numel())
        return sum(touched, torch.zeros((), device=roots[0].device))
