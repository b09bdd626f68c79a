"""Losses over a vocabulary of tens of thousands of words, whose full logits are never held.

Legend: T positions that are asked, V words of the vocabulary, D width, R positions of a chunk, K noise samples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from triptych.models.linear import product

CHUNK_ELEMENTS = 14 * 2**20
"""Logits held at once, 56 MiB of them in float32: 160 or so positions of 88,000 words. Each chunk reads and writes the
whole gradient of the weights, so that much smaller ones cost time."""
BLOCK_WORDS = {"cpu": 2048, "cuda": 32_768}
"""Words whose logits are turned into probabilities together: on a CPU they stay in its cache meanwhile, a GPU wants few
launches."""
GATHERED_ELEMENTS = 8 * 2**20
"""Numbers of gathered word vectors held at once where each position has its own noise words."""


@dataclass(frozen=True)
class Scored:
    """What the softmax says of the positions that were asked."""

    loss: Tensor
    """0-dimensional: cross entropy in nats, summed; carries the graph."""
    count: int
    """Positions that were asked."""
    correct: Tensor
    """0-dimensional int64: positions whose word scores above every other one (a tie is no success)."""


def softmax_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, ignore_index: int = -100
) -> tuple[Tensor, int]:
    """Exact cross entropy of a linear map to the vocabulary, in nats: sum_t [log sum_v exp(s_tv) - s_t,target(t)] with
    s_tv = hidden_t . weight_v + bias_v.

    Takes little more memory than its gradients have: see `score_softmax`, which also counts right words.

    Args:
        hidden: [T, D] or [..., D].
        weight: [V, D].
        bias: [V], or None.
        targets: [T] or [...] int64, 0 to V - 1 or `ignore_index`.
        ignore_index: target of positions that ask nothing; they get a gradient of exactly 0.

    Returns:
        The sum over the positions that are asked, and their number.

    Raises:
        ValueError: a target that is no word.
    """
    scored = score_softmax(hidden, weight, bias, targets, ignore_index=ignore_index)
    return scored.loss, scored.count


def score_softmax(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, ignore_index: int = -100
) -> Scored:
    """`softmax_loss` and the number of right words; arguments and errors as there.

    The gradients are computed together with the loss, a chunk of positions after the other, so that of the [T, V]
    logits only CHUNK_ELEMENTS exist at a time and none is computed twice. They are handed out at the backward pass,
    once: a second one through the same loss (retain_graph) is an error. Without gradients (torch.no_grad) none is
    computed. Under autocast the matrix products are taken in its type, and all else (exponentials, sums, the gradient
    of the weights) in float32.
    """
    hidden, targets = _asked(hidden, weight, targets, ignore_index)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    else:
        hidden = hidden.to(weight.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled():
            loss, correct = _Softmax.apply(hidden, weight, bias, targets)
        else:
            loss, correct, _ = _softmax(hidden, weight, bias, targets, (False, False, False))
    return Scored(loss, len(targets), correct)


def nce_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    noise: Tensor,
    samples: int,
    shared: bool = True,
    ignore_index: int = -100,
) -> tuple[Tensor, int]:
    """Noise-contrastive estimation (Gutmann and Hyvärinen 2010; Mnih and Teh 2012; Mnih and Kavukcuoglu 2013): tell the
    word that was said from `samples` words drawn from the noise.

        sum_t [ -log sigma(D_t(w_t)) - sum_{i=1..k} log sigma(-D_t(x_ti)) ]
        D_t(w) = s_tw - log V - log(k P_n(w)),   s_tw = hidden_t . weight_w + bias_w

    The normaliser of exp(s) is not computed but fixed at V, the size of the vocabulary: scores near 0 then start as a
    uniform distribution. Its value is no cross entropy; but its gradient tends to that of the softmax as k grows, where
    exp(s) / V is normalised. Computed in float32 (or float64), also under autocast. The noise words are drawn by
    torch's own generator: torch.manual_seed repeats them.

    Args:
        hidden: [T, D] or [..., D].
        weight: [V, D].
        bias: [V], or None.
        targets: [T] or [...] int64, 0 to V - 1 or `ignore_index`.
        noise: [V], log P_n; see `unigram`.
        samples: k, noise words for each position.
        shared: the same k noise words for all positions of the call, which makes of gathering vectors one matrix
            product; else each position draws its own.
        ignore_index: target of positions that ask nothing.

    Returns:
        The sum over the positions that are asked, and their number.

    Raises:
        ValueError: a target that is no word, or no noise samples.
    """
    if samples < 1:
        raise ValueError(f"samples: {samples}; noise-contrastive estimation needs at least one noise word")
    hidden, targets = _asked(hidden, weight, targets, ignore_index)
    exact = torch.promote_types(weight.dtype, torch.float32)
    shift = -noise.to(exact) - math.log(samples * len(weight))  # D - hidden . weight
    if bias is not None:
        shift = shift + bias.to(exact)
    with torch.autocast(hidden.device.type, enabled=False):
        hidden, weight = hidden.to(exact), weight.to(exact)
        if shared:
            drawn = _draw(noise, samples)
            # One gather, as each would have a gradient of the weights' whole size.
            vectors = functional.embedding(torch.cat([targets, drawn]), weight)
            own = (hidden * vectors[: len(targets)]).sum(dim=1)
            others = hidden @ vectors[len(targets) :].T  # [T, K]
        else:
            drawn = _draw(noise, samples * len(targets)).view(len(targets), samples)
            scores = _GatheredScores.apply(hidden, weight, torch.cat([targets[:, None], drawn], dim=1))
            own, others = scores[:, 0], scores[:, 1:]
        found = functional.logsigmoid(own + shift[targets]).sum()
        return -found - functional.logsigmoid(-others - shift[drawn]).sum(), len(targets)


def unigram(counts: Sequence[int]) -> Tensor:
    """[V] float32 log-probabilities of words by their counts; a word that is not counted weighs as one seen once, so
    that every word has some."""
    numbers = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (numbers / numbers.sum()).log().float()


def _asked(hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """[T, D] and [T] of the positions that ask something."""
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    asked = targets != ignore_index
    hidden, targets = hidden[asked], targets[asked]
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise ValueError(
            f"targets: {int(targets.min())} to {int(targets.max())}, but the vocabulary has {len(weight)} words: "
            f"expected 0 to {len(weight) - 1}, or {ignore_index} where nothing is asked"
        )
    return hidden, targets


def _slices(length: int, longest: int) -> Iterator[slice]:
    """Cut a length into equal parts of at most `longest`."""
    parts = -(-length // longest)
    for part in range(parts):
        yield slice(length * part // parts, length * (part + 1) // parts)


class _Softmax(torch.autograd.Function):
    """Loss and right words of `_softmax`, whose gradients wait in the context."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss, correct, ctx.gradients = _softmax(hidden, weight, bias, targets, ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # type: ignore[attr-defined]
        if gradients is None:
            raise RuntimeError("softmax_loss: a second backward pass; its gradients are computed once, and were taken")
        # In place, as a copy would double the memory.
        return *(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None


def _softmax(
    hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_T: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Summed loss, number of right words, and the gradients of hidden, weight and bias that are wanted."""
    exact = torch.promote_types(hidden_TD.dtype, torch.float32)
    loss, correct = hidden_TD.new_zeros((), dtype=exact), targets_T.new_zeros(())
    inputs = (hidden_TD, weight_VD, bias_V)
    gradients = tuple(
        torch.zeros_like(value, dtype=exact) if value is not None and want else None
        for value, want in zip(inputs, wanted, strict=True)
    )
    weight_VD = weight_VD.to(hidden_TD.dtype)
    chunks = list(_slices(len(targets_T), max(1, CHUNK_ELEMENTS // len(weight_VD))))
    # Once for all, as the C library does not find room for a chunk where the one before it was (seen).
    longest = max((rows.stop - rows.start for rows in chunks), default=0)
    space = hidden_TD.new_empty(longest * len(weight_VD)) if any(wanted) else None
    for rows in chunks:
        chunk = _Chunk(hidden_TD[rows], weight_VD, bias_V, targets_T[rows], space)
        loss += torch.logaddexp(chunk.odds, torch.zeros_like(chunk.odds)).sum()
        correct += (chunk.score > chunk.tops.amax(dim=1)).sum()
        if any(wanted):
            d_hidden, d_weight, d_bias = gradients
            chunk.add_gradients(None if d_hidden is None else d_hidden[rows], d_weight, d_bias)
    return loss, correct, gradients


class _Chunk:
    """Logits of some positions, turned into exponentials block by block. The target is left out of these, and kept
    apart: its part of the loss and of the gradient then needs no difference of nearly equal numbers."""

    def __init__(
        self, hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_R: Tensor, space: Tensor | None
    ) -> None:
        """Score a chunk; its exponentials are kept in `space` [at least R * V], if that is given."""
        self.hidden, self.weight, self.targets = hidden_RD, weight_VD, targets_R
        self.blocks = list(_slices(len(weight_VD), BLOCK_WORDS.get(hidden_RD.device.type, 2048)))
        exact = torch.promote_types(hidden_RD.dtype, torch.float32)
        lowest = torch.finfo(exact).min
        tops, sums = [], []
        score = hidden_RD.new_zeros(len(targets_R), 1, dtype=exact)
        self.exps: list[Tensor] = []
        """Of each block [R, its words], less the row's top in that block; the target's is 0."""
        for block in self.blocks:
            logits = product(hidden_RD, weight_VD[block].T).to(exact)
            if bias_V is not None:
                logits += bias_V[block]
            place = (targets_R - block.start).clamp(0, logits.shape[1] - 1)[:, None]
            inside = ((targets_R >= block.start) & (targets_R < block.stop))[:, None]
            there = logits.gather(1, place)
            score = torch.where(inside, there, score)
            logits.scatter_(1, place, there.masked_fill(inside, -torch.inf))
            tops.append(logits.amax(dim=1, keepdim=True).clamp_(min=lowest))  # of a block without any other word
            logits.sub_(tops[-1]).exp_()
            sums.append(logits.sum(dim=1, keepdim=True))
            if space is not None:
                place_in_space = space[block.start * len(hidden_RD) : block.stop * len(hidden_RD)]
                self.exps.append(place_in_space.view_as(logits).copy_(logits))
        self.tops = torch.cat(tops, dim=1)
        """[R, blocks]: the highest logit of a word that is not the target."""
        self.score = score[:, 0]
        """[R]: the target's logit."""
        self.others = (self.tops + torch.cat(sums, dim=1).log()).logsumexp(dim=1)
        """[R]: log of the summed exponentials of all words but the target."""
        self.odds = self.others - self.score
        """[R]: log-odds against the target."""

    def add_gradients(self, d_hidden_RD: Tensor | None, d_weight_VD: Tensor | None, d_bias_V: Tensor | None) -> None:
        """Add this chunk's to what is wanted."""
        # exp(logit - top) times this is a probability; it scales a block's [R, D] side of the products, not the block.
        share = (self.tops - torch.logaddexp(self.others, self.score)[:, None]).exp()
        for index, (block, exps) in enumerate(zip(self.blocks, self.exps, strict=True)):
            scale = share[:, index : index + 1]
            if d_hidden_RD is not None:
                d_hidden_RD.addcmul_(product(exps, self.weight[block]).to(scale.dtype), scale)
            if d_weight_VD is not None:
                d_weight_VD[block] += product(exps.T, (self.hidden * scale).to(exps.dtype))
            if d_bias_V is not None:
                d_bias_V[block] += exps.T.to(scale.dtype) @ scale[:, 0]
        miss = torch.sigmoid(self.odds)[:, None]  # 1 - p(target), without the rounding of that difference
        if d_hidden_RD is not None:
            d_hidden_RD -= miss * self.weight[self.targets]
        if d_weight_VD is not None:
            d_weight_VD.index_add_(0, self.targets, -miss * self.hidden)
        if d_bias_V is not None:
            d_bias_V.index_add_(0, self.targets, -miss[:, 0])


class _GatheredScores(torch.autograd.Function):
    """hidden_t . weight_w for words that differ from position to position: [T, K] of ids [T, K].

    The gathered [T, K, D] vectors are held a few positions at a time, and gathered again for the gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, ids)
        scores = hidden.new_empty(ids.shape)
        for rows in _slices(len(ids), _gathered_rows(ids, weight)):
            torch.bmm(weight[ids[rows]], hidden[rows, :, None], out=scores[rows, :, None])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_scores: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ids = ctx.saved_tensors  # type: ignore[attr-defined]
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        for rows in _slices(len(ids), _gathered_rows(ids, weight)):
            if d_hidden is not None:
                d_hidden[rows] = torch.bmm(d_scores[rows, None], weight[ids[rows]])[:, 0]
            if d_weight is not None:
                d_weight.index_add_(
                    0, ids[rows].flatten(), (d_scores[rows, :, None] * hidden[rows, None]).flatten(0, 1)
                )
        return d_hidden, d_weight, None


def _gathered_rows(ids: Tensor, weight: Tensor) -> int:
    return max(1, GATHERED_ELEMENTS // (ids.shape[1] * weight.shape[1]))


def _draw(noise: Tensor, number: int) -> Tensor:
    """[number] words of the noise, by its running sum in float64: in float32 that of 88,000 words passes over rare
    ones."""
    running = noise.double().exp().cumsum(dim=0)
    numbers = torch.rand(number, dtype=torch.float64, device=noise.device)
    return torch.searchsorted(running, numbers * running[-1], right=True).clamp_(max=len(noise) - 1)
