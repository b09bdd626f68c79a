"""Pairwise contrastive losses (Franceschini et al. 2022, Eqs. 1-2, and relatives): exact, in memory flat in the batch.

Legend: N clips, D width, s_ij = cos(z_m_i, z_n_j) / temperature. For every ordered pair of modalities (m, n), in which
m asks which of n's clips is its own:

    paper     L_i = -log [exp s_ii / sum_{j != i} exp s_ij]                      the printed equation: decoupled
    infonce   L_i = -log [exp s_ii / sum_j exp s_ij]
    two_view  L_i = -1/2 log [exp s_ip / sum_{j != i} exp s_ij], i of 2N rows     what the authors' code computes:
              two views of N clips, p = (i + N) mod 2N is the other view of the other modality, j = i the same view
    sigmoid   L_i = -sum_j log sigmoid(y_ij (s_ij + bias)), y_ij = 1 if i = j else -1        Zhai et al. 2023

The paper sums L_i over a batch. Here it is the mean over i, so that the gradient does not grow with N: the paper's
learning rate for batches of N clips is N times as large here under plain SGD.

A row's loss depends on its positive's score and on one sum over its negatives (tiles.py). Embeddings need not be
normalised; scores are computed in float32, in float64 where an embedding is. An embedding of zeros has cosine 0 to all.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.losses.tiles import Pair, Plan, Sums, pair_sums
from triptych.config import nearest

Key = str | tuple[str, str]
"""A modality; or (m, n): m's embedding for the pair with n, where each pair has heads of its own."""

Embeddings = Mapping[str, Tensor] | Mapping[tuple[str, str], Tensor] | Mapping[Key, Tensor]
"""[N, D] each; [2N, D] for two_view."""


def _paper(negatives: Tensor, positives: Tensor) -> Tensor:
    return negatives - positives


def _infonce(negatives: Tensor, positives: Tensor) -> Tensor:
    return functional.softplus(negatives - positives)  # log [(exp p + sum exp s) / exp p]


def _two_view(negatives: Tensor, positives: Tensor) -> Tensor:
    return functional.softplus(negatives - positives) / 2


def _sigmoid(negatives: Tensor, positives: Tensor) -> Tensor:
    return negatives + functional.softplus(-positives)


VARIANTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "paper": _paper,
    "infonce": _infonce,
    "two_view": _two_view,
    "sigmoid": _sigmoid,
}
"""Variant -> L_i of the row's sum over its negatives (log sum exp s; for sigmoid sum softplus(s + bias)) and of its
positive's score (for sigmoid with the bias)."""

LEAST_CLIPS = 2
"""With one clip there is nothing to compare with: `paper` has no denominator, the others learn nothing from it."""


@dataclass(frozen=True)
class Ranks:
    """Processes that all hold the embeddings of all clips, and compute the scores of some clips each."""

    rows: slice
    """This process's clips, in the order of all. Every clip belongs to one process; a process may have none."""
    sum: Callable[[Tensor], Tensor]
    """Of the processes' tensors, element by element, on every process. Every process calls it at the same places."""
    max: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PairFigures:
    """One ordered pair (m, n), detached."""

    loss: Tensor
    """0-dim: this process's share of the mean over the pair's rows."""
    correct: Tensor
    """0-dim: number of this process's rows whose positive scores higher than every negative. A tie is none: embeddings
    that are all the same get nothing right."""
    count: int
    """Number of this process's rows; 0 where the pair was left out."""


@dataclass(frozen=True)
class PairsLoss:
    """The mean over ordered pairs."""

    loss: Tensor
    """0-dim, with its graph: this process's share. Shares add up to the mean, their gradients to its gradient."""
    pairs: Mapping[str, PairFigures]
    """"audio_to_video" -> figures; every pair of the embeddings is there, also one that was left out."""
    num_pairs: int
    """Ordered pairs in the mean, the same on every process; 0: no two clips share two modalities, and the loss is 0."""


def pair_loss(
    z_m: Tensor, z_n: Tensor, *, temperature: float | Tensor, variant: str, bias: float | Tensor | None = None
) -> Tensor:
    """The loss of the ordered pair (m, n), 0-dim: the mean of L_i (equations: module docstring) over the rows i.

    Args:
        z_m: [N, D]; [2N, D] for two_view, view 1 first.
        z_n: the same shape, same order of clips.
        temperature: positive; a 0-dim tensor may be learnt.
        variant: paper, infonce, two_view or sigmoid.
        bias: of sigmoid, which must have it; a 0-dim tensor may be learnt.

    Raises:
        ValueError: fewer than two clips, embeddings of different or wrong shape, an unknown variant, a temperature that
            is not positive, a bias missing or without effect.
    """
    numbers = _numbers(z_m, temperature, variant, bias)
    num_clips = _num_clips({"m": z_m, "n": z_n}, variant)
    if num_clips < LEAST_CLIPS:
        raise ValueError(f"a contrastive loss compares clips: it needs {LEAST_CLIPS} at least, and got {num_clips}")
    views = 2 if variant == "two_view" else 1
    pair = _pair((0, 1), torch.ones(num_clips, dtype=torch.bool), views, slice(0, num_clips), z_m.device)
    plan = Plan((pair,), softplus=variant == "sigmoid", columns=False, sum=_alone, max=_alone)
    (sums,) = pair_sums(plan, (z_m, z_n), *numbers)
    return VARIANTS[variant](sums.rows, sums.positives).mean()


def all_pairs_loss(
    embeddings: Embeddings,
    present: Mapping[str, Tensor],
    *,
    temperature: float | Tensor,
    variant: str,
    bias: float | Tensor | None = None,
) -> Tensor:
    """The mean of `pair_loss` over all ordered pairs of modalities, 0-dim; of each, over the clips that have both.

    Args:
        embeddings: modality, or (m, n) for m's embedding for the pair with n -> [N, D] ([2N, D] for two_view).
        present: modality -> [N] bool: the clips that have it. A pair that two clips or more do not share is left out.
        temperature: as in `pair_loss`.
        variant: as in `pair_loss`.
        bias: as in `pair_loss`.

    Raises:
        ValueError: as in `pair_loss`; keys that do not fit together; no pair is left.
    """
    made = all_pairs(embeddings, present, temperature=temperature, variant=variant, bias=bias)
    if not made.num_pairs:
        raise ValueError(f"no two modalities of {', '.join(present)} have {LEAST_CLIPS} clips in common")
    return made.loss


def all_pairs(
    embeddings: Embeddings,
    present: Mapping[str, Tensor],
    *,
    temperature: float | Tensor,
    variant: str,
    bias: float | Tensor | None = None,
    ranks: Ranks | None = None,
) -> PairsLoss:
    """`all_pairs_loss` shared between processes, with figures to log (a collective, where there are `ranks`).

    Every process gives the embeddings and the presence of all clips of the global batch in the same order, and computes
    its clips' rows. Both directions of two modalities come from the same scores, computed once. The gradients that the
    processes get with regard to embeddings, temperature and bias add up to the exact ones.

    Raises:
        ValueError: as in `all_pairs_loss`, on every process alike; but a batch without any pair is no error.
    """
    given = cast(Mapping[Key, Tensor], embeddings)
    numbers = _numbers(next(iter(given.values()), None), temperature, variant, bias)
    num_clips = _num_clips(given, variant)
    names = _pair_names(given, present, num_clips)
    ranks = ranks or Ranks(slice(0, num_clips), _alone, _alone)
    order, on_cpu = list(given), {name: flags.cpu() for name, flags in present.items()}
    device, views = given[order[0]].device, 2 if variant == "two_view" else 1
    pairs = {}
    for m, n in names:
        kept = on_cpu[m] & on_cpu[n]
        if int(kept.sum()) >= LEAST_CLIPS:
            sides = [order.index((a, b) if (a, b) in given else a) for a, b in ((m, n), (n, m))]
            pairs[m, n] = _pair((sides[0], sides[1]), kept, views, ranks.rows, device)
    plan = Plan(tuple(pairs.values()), variant == "sigmoid", columns=True, sum=ranks.sum, max=ranks.max)
    sums = dict(zip(pairs, pair_sums(plan, list(given.values()), *numbers), strict=True))

    zero = torch.zeros((), device=device)
    losses: list[Tensor] = []
    figures: dict[str, PairFigures] = {}
    for m, n in names:
        there, back = PairFigures(zero, zero, 0), PairFigures(zero, zero, 0)
        if (m, n) in pairs:
            both, there, back = _both_ways(pairs[m, n], sums[m, n], variant, numbers[0].item())
            losses.append(both / (2 * len(pairs)))
        figures |= {f"{m}_to_{n}": there, f"{n}_to_{m}": back}
    if not pairs:  # a gradient of zeros, for a run in which other objectives go on
        losses = [(z[:0].sum() + zero) for z in given.values()]
    return PairsLoss(torch.stack(losses).sum(), figures, 2 * len(pairs))


def _both_ways(pair: Pair, sums: Sums, variant: str, temperature: float) -> tuple[Tensor, PairFigures, PairFigures]:
    """This process's share of the losses of both directions, added up; and the figures of each."""
    formula, num_rows = VARIANTS[variant], pair.num_rows
    of_column = sums.positives.roll(pair.num_clips) if pair.num_views == 2 else sums.positives
    there = formula(pair.take_own(sums.rows), pair.take_own(sums.positives)).sum() / num_rows
    if variant == "sigmoid":  # y and s are symmetric: both directions are the same sum
        back, loss = there, 2 * there
    else:
        of_all = formula(sums.columns, of_column)
        back, whole = pair.take_own(of_all).sum() / num_rows, of_all.sum() / num_rows
        # every column's gradient passes through this process's rows of scores; only its own columns' loss counts
        loss = there + whole + (back - whole).detach()
    # scores of equal cosine differ by rounding
    least = 16 * torch.finfo(sums.rows.dtype).eps / temperature
    figures = []
    for share, positives, top in ((there, sums.positives, sums.row_top), (back, of_column, sums.column_top)):
        margins = pair.take_own(positives - top)
        figures.append(PairFigures(share.detach(), (margins > least).sum(), len(margins)))
    return loss, figures[0], figures[1]


def _pair(sides: tuple[int, int], kept_N: Tensor, num_views: int, rows: slice, device: torch.device) -> Pair:
    """The pair of the clips that are kept, of which those within `rows` are this process's own."""
    num_clips = int(kept_N.sum())
    first, last = int(kept_N[: rows.start].sum()), int(kept_N[: rows.stop].sum())
    own = tuple(range(view * num_clips + first, view * num_clips + last) for view in range(num_views))
    index = None if num_clips == len(kept_N) else kept_N.repeat(num_views).nonzero()[:, 0].to(device)
    return Pair(*sides, index, num_clips, num_views, own)


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def _numbers(
    like: Tensor | None, temperature: float | Tensor, variant: str, bias: float | Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Temperature and bias as 0-dim tensors.

    Raises:
        ValueError: see pair_loss.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r} of the contrastive loss.{nearest(variant, VARIANTS)}")
    if variant == "sigmoid" and bias is None:
        raise ValueError("the variant sigmoid needs a bias (Zhai et al. start it at -10)")
    if variant != "sigmoid" and bias is not None:
        raise ValueError(f"the variant {variant} has no bias; only sigmoid does")
    value = temperature.item() if isinstance(temperature, Tensor) else temperature
    if not 0 < value < math.inf:
        raise ValueError(f"temperature={value:g}: it divides the cosines and must be positive")
    device = None if like is None else like.device
    made = [
        None if x is None else x.reshape(()) if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
        for x in (temperature, bias)
    ]
    assert made[0] is not None
    return made[0].to(device), None if made[1] is None else made[1].to(device)


def _num_clips(embeddings: Mapping[Key, Tensor], variant: str) -> int:
    """N.

    Raises:
        ValueError: shapes that do not fit.
    """
    shapes = {key: tuple(z.shape) for key, z in embeddings.items()}
    if len(shapes) < 2 or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(f"embeddings of two modalities or more are needed, all [N, D] alike, and there are {shapes}")
    num_rows = next(iter(shapes.values()))[0]
    if variant == "two_view" and num_rows % 2:
        raise ValueError(f"two_view takes two views of every clip, view 1 first, and got {num_rows} rows")
    return num_rows // 2 if variant == "two_view" else num_rows


def _pair_names(
    embeddings: Mapping[Key, Tensor], present: Mapping[str, Tensor], num_clips: int
) -> list[tuple[str, str]]:
    """Every pair once, in the order of the embeddings.

    Raises:
        ValueError: a pair with a head on one side only, both kinds of keys, presence missing or of another length.
    """
    modalities = [key for key in embeddings if isinstance(key, str)]
    heads = [key for key in embeddings if not isinstance(key, str)]
    if modalities and heads:
        raise ValueError(f"embeddings are keyed by modality or by pair, not both: {list(embeddings)}")
    if missing := [(m, n) for n, m in heads if (m, n) not in embeddings]:
        raise ValueError(f"embeddings lack {missing}: each pair of modalities has a head on either side")
    named = dict.fromkeys([*modalities, *(name for key in heads for name in key)])
    if wrong := [name for name in named if name not in present or present[name].shape != (num_clips,)]:
        raise ValueError(f"present must say of each of the {num_clips} clips whether it has {', '.join(wrong)}")
    if heads:
        return [key for number, key in enumerate(heads) if key[::-1] not in heads[:number]]
    return [(m, n) for number, m in enumerate(modalities) for n in modalities[number + 1 :]]
