"""How many numbers a system gives for a protocol, and what they mean.

Legend: R clips, or steps of a series; C outputs: classes of a choice, else E targets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from triptych.labels import Series
from triptych.protocols.protocol import Protocol


def num_outputs(protocol: Protocol) -> int:
    """C: classes of a choice, else targets."""
    return len(protocol.classes) if protocol.kind == "classes" else len(protocol.targets)


def rate_of(protocol: Protocol) -> float | None:
    """Steps a second of a protocol of series; None of clips."""
    form = protocol.targets[0].form
    return form.rate_hz if isinstance(form, Series) else None


def said(protocol: Protocol, outputs: Tensor) -> NDArray[Any]:
    """What a head's outputs mean.

    Args:
        protocol: of the labels.
        outputs: [..., R, C] logits or numbers.

    Returns:
        [..., R] class indices; [..., R, E] 0 or 1 (probability above 0.5); [..., R] sentiment; [..., R, E] series.
    """
    if protocol.kind == "classes":
        return outputs.argmax(dim=-1).numpy()
    if protocol.kind == "emotions":
        return (outputs > 0).long().numpy()
    numbers = outputs.double().numpy()
    return numbers[..., 0] if protocol.kind == "sentiment" else numbers


def probabilities(protocol: Protocol, outputs: Tensor) -> NDArray[np.float64] | None:
    """[..., R, C] of classes, else None."""
    return outputs.double().softmax(dim=-1).numpy() if protocol.kind == "classes" else None
