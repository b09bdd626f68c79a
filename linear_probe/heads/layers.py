"""The layers of many heads of one shape, side by side in a few tensors.

Legend: P problems, K settings of each, B rows, L layers of a stack, D features, H hidden units, O outputs of a layer, C
outputs of a head.
"""

import torch
from torch import Tensor

from linear_probe.heads.base import Standard, chunk_size

Parameters = dict[str, Tensor]
"""`weight` and `bias` of the last layer, `hidden.weight` and `hidden.bias` of one before it, `layers` of a stack."""
DECAYED = ("weight", "hidden.weight")
"""What weight decay is for."""


def initial(seed: int, features: tuple[int, ...], hidden: int | None, num_outputs: int) -> Parameters:
    """One head's parameters as `torch.manual_seed(seed)` and torch.nn.Linear make them; layers have equal weights.

    Args:
        seed: drawn from on the CPU, so that every device starts alike.
        features: (D,), or (L, D) of a stack.
        hidden: H; None for a linear head.
        num_outputs: C.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters: Parameters = {}
    width = features[-1]
    for prefix, size in (("hidden.", hidden), ("", num_outputs)):
        if size is not None:
            bound = width**-0.5
            parameters[f"{prefix}weight"] = torch.empty(size, width).uniform_(-bound, bound, generator=generator)
            parameters[f"{prefix}bias"] = torch.empty(size).uniform_(-bound, bound, generator=generator)
            width = size
    if len(features) == 2:
        parameters["layers"] = torch.zeros(features[0])
    return parameters


def forward(parameters: Parameters, x: Tensor) -> Tensor:
    """Outputs [P, B, K, C] of standardised features [P, B, D] or [P, B, L, D].

    Args:
        parameters: [P, K, ...] each.
        x: of each problem.
    """
    names = ["weight", "bias"] if "hidden.weight" not in parameters else ["hidden.weight", "hidden.bias"]
    weight, bias = (parameters[name] for name in names)  # [P, K, O, D], [P, K, O]
    if "layers" in parameters:
        shares = parameters["layers"].softmax(dim=-1)  # [P, K, L]
        mixed = (shares @ x.transpose(1, 2).flatten(2)).unflatten(2, (x.shape[1], x.shape[3]))  # [P, K, B, D]
        outputs = (mixed @ weight.mT).transpose(1, 2)
    else:  # every setting sees the same rows: one matrix product for all of them
        outputs = (x @ weight.flatten(1, 2).mT).unflatten(2, weight.shape[1:3])
    outputs = outputs + bias[:, None]
    if "hidden.weight" in parameters:
        hidden = outputs.relu().transpose(1, 2)  # [P, K, B, H]
        outputs = (hidden @ parameters["weight"].mT).transpose(1, 2) + parameters["bias"][:, None]
    return outputs


class TrainedHeads:
    """The heads of one problem. One that diverged outputs zeros, and says that it has not converged."""

    def __init__(self, standard: Standard, parameters: Parameters) -> None:
        """Hold the heads.

        Args:
            standard: of the problem's training rows.
            parameters: [K, ...] each.
        """
        self._standard, self._parameters = standard, parameters
        finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parameters.values()])
        self._finite = finite.all(dim=0)
        self.converged: tuple[bool, ...] = tuple(self._finite.tolist())

    @property
    def layer_weights(self) -> Tensor | None:
        """[K, L]; None without a stack."""
        return self._parameters["layers"].softmax(dim=1) if "layers" in self._parameters else None

    def outputs(self, x: Tensor) -> Tensor:
        """[K, R, C] float32 of features [R, ...]."""
        widest = max(part.shape[1] for name, part in self._parameters.items() if name.endswith("bias"))
        per_head = widest + (x.shape[2] if x.ndim == 3 else 0)
        at_once = chunk_size(max(1, len(x)), 4 * 4 * (len(self._finite) * per_head + x[0:1].numel()), x.device)
        heads = {name: part[None] for name, part in self._parameters.items()}
        parts = [forward(heads, self._standard(part)[None])[0] for part in x.split(at_once)]
        return torch.where(self._finite[:, None, None], torch.cat(parts).transpose(0, 1), 0)
