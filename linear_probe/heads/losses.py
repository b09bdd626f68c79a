"""The losses of trained heads, and what each row weighs in them.

Legend: P problems, n training rows of one, B rows of a batch, K settings, C outputs, E labels of a row (1 for
classes).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.config import UserError


def loss_name(kind: str, wanted: str | None, balanced: bool) -> str:
    """The loss of a kind of label: cross_entropy, binary_cross_entropy, mse, l1 or ccc.

    Raises:
        UserError: what is wanted does not fit the labels.
    """
    fixed = {"classes": "cross_entropy", "emotions": "binary_cross_entropy"}
    if kind in fixed and wanted is not None:
        raise UserError(f"heads: loss={wanted} is for numbers; these labels are {kind}, leave loss out")
    if kind not in fixed and balanced:
        raise UserError(f"heads: balanced is for classes and emotions; these labels are {kind}, leave it out")
    return fixed.get(kind) or wanted or ("ccc" if kind == "series" else "mse")


def targets_of(y: Tensor, kind: str, num_outputs: int, balanced: bool) -> tuple[Tensor, Tensor]:
    """What a problem's training rows ask for, and how much they weigh.

    Args:
        y: classes [n], or [n, E] with NaN where not labelled.
        kind: one of triptych.evaluation.predictions.KINDS.
        num_outputs: C.
        balanced: each class weighs the same in total; of each emotion, the rows that have it and those that do not.

    Returns:
        Targets [n, C] float32, one-hot for classes, and weights [n, E] float32; 0 both where not labelled.

    Raises:
        UserError: no row has a label.
    """
    if kind == "classes":
        targets = F.one_hot(y, num_outputs).float()
        weights = (targets / targets.sum(dim=0).clamp(min=1)).sum(dim=1, keepdim=True) if balanced else None
        labelled = torch.ones_like(targets[:, :1])
    else:
        labelled, targets = (~y.isnan()).float(), y.nan_to_num().float()
        positive = targets * labelled
        negative = (1 - targets) * labelled
        both = [part / part.sum(dim=0).clamp(min=1) for part in (positive, negative)]
        weights = both[0] + both[1] if balanced else None
    if not labelled.any():
        raise UserError("the training rows have no labels: nothing to fit a probe on")
    if weights is None:
        return targets, labelled
    return targets, weights * labelled.sum(dim=0) / weights.sum(dim=0).clamp(min=1e-12)  # 1 on average


def mean_loss(name: str, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The loss of each head over a batch, a weighted mean as torch's cross_entropy has it; 0 without labels.

    Args:
        name: of `loss_name`.
        outputs: [P, B, K, C].
        targets: [P, B, C].
        weights: [P, B, E].

    Returns:
        [P, K]
    """
    wanted, weights = targets[:, :, None], weights[:, :, None]
    if name == "ccc":
        return 1 - _concordance(outputs, wanted, weights)
    if name == "cross_entropy":
        losses = -(outputs.log_softmax(dim=-1) * wanted).sum(dim=-1, keepdim=True)
    elif name == "binary_cross_entropy":
        losses = F.binary_cross_entropy_with_logits(outputs, wanted.expand_as(outputs), reduction="none")
    else:
        losses = (outputs - wanted).square() if name == "mse" else (outputs - wanted).abs()
    return (losses * weights).sum(dim=(1, 3)) / weights.sum(dim=(1, 3)).clamp(min=1e-12)


def _concordance(outputs: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """[P, K] mean over outputs of Lin's concordance correlation over the batch's labelled rows, population moments."""
    total = weights.sum(dim=1, keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * weights).sum(dim=1, keepdim=True) / total

    level, target_level = mean(outputs), mean(wanted)
    deviation, target_deviation = outputs - level, wanted - target_level
    spread = mean(deviation.square()) + mean(target_deviation.square()) + (level - target_level).square()
    concordance = 2 * mean(deviation * target_deviation) / spread.clamp(min=1e-12)
    return concordance.squeeze(1).mean(dim=-1)
