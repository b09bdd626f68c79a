"""Linear maps, on a CPU at the speed that it has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices, in float32 on a CPU by oneDNN: torch's own product is MKL's, which on AMD is half
    as fast (measured on a Zen 5: 200 and 90 GFLOP/s a core). `_linear_pointwise` is what torch.compile calls for the
    same reason."""
    if _by_onednn(left):
        return torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return left @ right


def flop_formulas() -> dict[Any, Any]:
    """What torch.utils.flop_counter does not know of the products here, for its `custom_mapping`."""

    def count(left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * left[0] * left[1] * right[0]

    return {torch.ops.mkldnn._linear_pointwise: count} if torch.backends.mkldnn.is_available() else {}


class Linear(nn.Linear):
    """`torch.nn.Linear`, with the same weights and names, by `product` in both directions.

    A caller that needs the weights for another sum than x W^T + b gives it as `through`: inside of forward, so that the
    hooks of ZeRO stage 3 have the weights there.
    """

    def forward(self, x: Tensor, through: Callable[[Tensor, Tensor, Tensor], Any] | None = None) -> Any:
        """[..., in] -> [..., out]; or `through(x, weight, bias)`."""
        if through is not None:
            return through(x, self.weight, self.bias)
        if x.numel() and _by_onednn(x) and not torch.is_autocast_enabled("cpu"):
            return _Map.apply(x.flatten(0, -2), self.weight, self.bias).unflatten(0, x.shape[:-1])
        return super().forward(x)


class _Map(torch.autograd.Function):
    """[N, in] -> [N, out] = x W^T + b."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()  # of a slice, oneDNN takes a thousand times as long
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        d_out = d_out.contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        return (
            product(d_out, weight) if wants_x else None,
            product(d_out.T, x) if wants_weight else None,
            d_out.sum(dim=0) if wants_bias else None,
        )


def _by_onednn(x: Tensor) -> bool:
    there = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return there and x.dtype == torch.float32 and x.device.type == "cpu"
