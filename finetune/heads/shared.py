"""What heads that read the towers one by one have in common.

Legend: B clips, T steps, D width of a tower's sequence.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from triptych.batch import Batch
from triptych.config import UserError
from triptych.models.blocks import Source
from triptych.models.encoder import Encoded
from triptych.models.linear import Linear


def refuse_series(head: str, rate_hz: float | None) -> None:
    """Raise a UserError where steps of a series are asked of a head that speaks once a clip."""
    if rate_hz is not None:
        raise UserError(
            f"head.{head}: says one thing of a clip, and the protocol asks for {rate_hz:g} numbers a second; take "
            "head.linear, which reads the sequences"
        )


def sequences(encoded: Encoded, batch: Batch, widths: Mapping[str, int]) -> dict[str, Source]:
    """The towers' sequences [B, T, D] by modality; one step of padding for what the batch does not carry.

    Args:
        encoded: of the batch.
        batch: what was encoded.
        widths: modality -> D, of those that are wanted.
    """
    found = {}
    for name, width in widths.items():
        if name in encoded.towers:
            found[name] = Source(encoded.towers[name].sequence, encoded.towers[name].mask)
        else:
            like = next(iter(encoded.pooled.values()))
            nothing = torch.zeros(len(batch), 1, dtype=torch.bool, device=like.device)
            found[name] = Source(like.new_zeros(len(batch), 1, width), nothing)
    return found


def vectors(encoded: Encoded, batch: Batch, widths: Mapping[str, int]) -> tuple[dict[str, Tensor], Tensor]:
    """The towers' pooled vectors.

    Args:
        encoded: of the batch.
        batch: what was encoded.
        widths: modality -> D, of those that are wanted.

    Returns:
        Modality -> [B, D], zeros where a clip lacks it; and which are there, [B, M] bool.
    """
    like = next(iter(encoded.pooled.values()))
    found, present = {}, []
    for name, width in widths.items():
        has = encoded.present.get(name, torch.zeros(len(batch), dtype=torch.bool, device=like.device))
        vector = encoded.pooled.get(name, like.new_zeros(len(batch), width))
        found[name] = vector.masked_fill(~has[:, None], 0)
        present.append(has)
    return found, torch.stack(present, dim=1)


def classifier(width: int, hidden: int, num_outputs: int, dropout: float) -> nn.Sequential:
    """Dropout and fc, ReLU, fc; one linear layer where `hidden` is 0."""
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), Linear(width, num_outputs))
    return nn.Sequential(nn.Dropout(dropout), Linear(width, hidden), nn.ReLU(), Linear(hidden, num_outputs))


def check_dropout(head: str, **rates: float) -> None:
    """Raise a ValueError for a rate outside [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"head.{head}.{name}: {rate} must lie in [0, 1)")
