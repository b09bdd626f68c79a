"""Sums over all scores of one modality's clips against another's, tile by tile: exact, with gradients, in flat memory.

Legend: N rows of an embedding, K of them in a pair (the clips that have both modalities, or both views of these),
D width, R x C a tile. Scores are s_ij = cos(left_i, right_j) / temperature. "Row" is a clip of the left modality,
"column" one of the right.

The forward pass keeps a number a row and a column, the backward pass computes each tile again. So there are four
products where the full K x K matrix costs three, and yet at K 16,384 it takes less than half the time: all else
that is done to a tile happens in the cache. Nothing as large as an embedding is made but its gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

TILE = {"cpu": (512, 512), "cuda": (8192, 8192)}
"""Device -> most rows and columns of a tile. A CPU's should lie in its second-level cache: at D 512, 4,096 clips, all
but the four products then adds 6 % to their time; 17 % with 1024 x 4096. The GPU's takes 256 MiB and is not tuned."""

LARGEST_EXPONENT = 40.0
"""Scores lie within +-1 / temperature. Up to this bound exp(s) needs no subtracted maximum in float32, also
in sums over millions, and one exponential serves both the row's and the column's sum."""

SMALLEST_NORM = 1e-12
"""A shorter embedding has no direction: its cosines are 0, and so is its gradient."""


@dataclass(frozen=True)
class Pair:
    """Two modalities and the rows that take part. Rows and columns are counted among these K, from 0."""

    left: int
    """Which of the embeddings."""
    right: int
    kept: Tensor | None
    """[K] which of the N rows take part; None: all do."""
    num_clips: int
    num_views: int
    """1: row i's positive is column i. 2: K = 2 num_clips, view 1 first, and it is column (i + num_clips) mod K."""
    own: tuple[range, ...]
    """The rows that this process computes, a range a view."""

    @property
    def num_rows(self) -> int:
        """K."""
        return self.num_clips * self.num_views

    @property
    def positives(self) -> tuple[int, ...]:
        """Column less row, of all positives."""
        return (0,) if self.num_views == 1 else (self.num_clips, -self.num_clips)

    def place(self, rows: range) -> slice | Tensor:
        """Where these of the K rows lie among the N."""
        span = slice(rows.start, rows.stop)
        return span if self.kept is None else self.kept[span]

    def take_own(self, values_K: Tensor) -> Tensor:
        """The values of this process's rows."""
        return torch.cat([values_K[rows.start : rows.stop] for rows in self.own])


@dataclass(frozen=True)
class Plan:
    """What is summed."""

    pairs: tuple[Pair, ...]
    softplus: bool
    """True: a row's sum of softplus(s + bias) over its negatives is asked. False: log sum exp s, and a column's."""
    columns: bool
    """Whether anything is asked of columns."""
    sum: Callable[[Tensor], Tensor]
    """Over the processes that share the rows."""
    max: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sums:
    """Of one pair, [K] each. What is said of rows holds for this process's own; what is said of columns, for all."""

    rows: Tensor
    """The sum over the row's negatives: all columns but the positive and, with two views, but the row's own place."""
    columns: Tensor
    """The same of columns; not filled where softplus is summed, of which every process has a part."""
    positives: Tensor
    """The positive's score (with the bias, where there is one) of every row, also of other processes'."""
    row_top: Tensor
    """Largest score among the negatives; without gradient, as the next."""
    column_top: Tensor


def pair_sums(plan: Plan, embeddings: Sequence[Tensor], temperature: Tensor, bias: Tensor | None) -> list[Sums]:
    """The sums of every pair, with a graph to the embeddings, the temperature and the bias.

    The gradient is that of this process's own rows of the score matrices. So the loss must be a function of *its* rows'
    sums and positives, but of *every* column's; then the gradients of the processes add up to the exact one.
    """
    made = _Sums.apply(plan, temperature, temperature.new_zeros(()) if bias is None else bias, *embeddings)
    return [Sums(*made[5 * number : 5 * number + 5]) for number in range(len(plan.pairs))]


class _Embedding:
    """Unit vectors of an embedding, made for a tile when they are needed; float64 stays, all else becomes float32."""

    def __init__(self, values_ND: Tensor, dtype: torch.dtype) -> None:
        self.values, self.dtype = values_ND, dtype
        norms = torch.linalg.vector_norm(values_ND, dim=1, dtype=dtype)
        self.inverse = torch.where(norms > SMALLEST_NORM, norms.reciprocal(), 0)

    def unit(self, place: slice | Tensor) -> Tensor:
        """[rows, D], each of length 1 (or 0)."""
        return self.values[place].to(self.dtype) * self.inverse[place, None]

    def from_unit(self, gradient_ND: Tensor) -> Tensor:
        """Turn, in place, the gradient with regard to the unit vectors into the embedding's own; returns the sum over
        rows of unit vector times gradient, 0-dim float64."""
        total = torch.zeros((), dtype=torch.float64, device=gradient_ND.device)
        for rows in _spans(range(len(gradient_ND)), TILE["cpu"][0]):
            span = slice(rows.start, rows.stop)
            unit, gradient = self.unit(span), gradient_ND[span]
            along = (unit * gradient).sum(dim=1)
            gradient.sub_(unit.mul_(along[:, None])).mul_(self.inverse[span, None])
            total += along.sum(dtype=torch.float64)
        return total


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, temperature: Tensor, bias: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(embeddings[0].device.type, enabled=False):
            work = _Work(plan, temperature, bias, embeddings)
            sums = [work.sums(pair) for pair in plan.pairs]
            _complete(plan, sums)
        ctx.plan = plan
        ctx.save_for_backward(temperature, bias, *embeddings, *(s for one in sums for s in (one.rows, one.columns)))
        ctx.mark_non_differentiable(*(top for one in sums for top in (one.row_top, one.column_top)))
        return tuple(value for one in sums for value in vars(one).values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        temperature, bias, *saved = ctx.saved_tensors
        num_embeddings = len(saved) - 2 * len(ctx.plan.pairs)
        embeddings, sums = saved[:num_embeddings], saved[num_embeddings:]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            work = _Work(ctx.plan, temperature, bias, embeddings)
            gradients = [torch.zeros_like(value, dtype=work.dtype) for value in embeddings]
            of_bias = torch.zeros((), dtype=torch.float64, device=bias.device)
            for number, pair in enumerate(ctx.plan.pairs):
                slopes = _Slopes(*sums[2 * number : 2 * number + 2], *upstream[5 * number : 5 * number + 3])
                of_bias += work.add_gradients(pair, slopes, gradients[pair.left], gradients[pair.right])
            # the sum of ds_ij s_ij is what the unit vectors have along their gradients: once left, once right
            along = sum(made.from_unit(gradient) for made, gradient in zip(work.embeddings, gradients, strict=True))
            of_temperature = (-0.5 * along / temperature).to(temperature.dtype)
        given = (gradient.to(value.dtype) for gradient, value in zip(gradients, embeddings, strict=True))
        return (None, of_temperature, of_bias.to(bias.dtype), *given)


@dataclass(frozen=True)
class _Slopes:
    """What the backward pass of a pair is given, [K] each: sums, and the loss's gradient with regard to them."""

    rows: Tensor
    columns: Tensor
    of_rows: Tensor
    of_columns: Tensor
    of_positives: Tensor


class _Work:
    """Walks the tiles of pairs, in one buffer."""

    def __init__(self, plan: Plan, temperature: Tensor, bias: Tensor, embeddings: Sequence[Tensor]) -> None:
        values = embeddings[0]
        self.plan, self.bias = plan, bias
        self.dtype = torch.float64 if any(z.dtype == torch.float64 for z in embeddings) else torch.float32
        self.scale = 1 / temperature.item()
        self.plain_exp = self.scale <= LARGEST_EXPONENT
        self.embeddings = [_Embedding(z, self.dtype) for z in embeddings]
        self.tile = TILE.get(values.device.type, TILE["cpu"])
        largest = max((pair.num_rows for pair in plan.pairs), default=0)
        size = min(self.tile[0], largest) * min(self.tile[1], largest)
        self.buffer = torch.empty(size, dtype=self.dtype, device=values.device)

    def sums(self, pair: Pair) -> Sums:
        """The sums over this process's rows."""
        exp = self.plain_exp and not self.plan.softplus
        start = -torch.inf if not exp and not self.plan.softplus else 0.0
        rows, columns, row_top, column_top = (
            self.buffer.new_full((pair.num_rows,), value) for value in (start, start, -torch.inf, -torch.inf)
        )
        for tile in self._tiles(pair):
            r, c, scores = tile.rows, tile.columns, tile.scores
            for shift in {0, *pair.positives}:
                tile.diagonal(shift)[0].fill_(-torch.inf)
            if self.plan.softplus:
                scores.add_(self.bias)
            row_top[r] = torch.maximum(row_top[r], scores.amax(dim=1))
            if self.plan.columns:
                column_top[c] = torch.maximum(column_top[c], scores.amax(dim=0))
            if self.plan.softplus:
                rows[r] += functional.softplus(scores).sum(dim=1)
            elif exp:
                rows[r] += scores.exp_().sum(dim=1)
                if self.plan.columns:
                    columns[c] += scores.sum(dim=0)
            else:
                rows[r] = torch.logaddexp(rows[r], scores.logsumexp(dim=1))
                if self.plan.columns:
                    columns[c] = torch.logaddexp(columns[c], scores.logsumexp(dim=0))
        if exp:
            rows.log_()
            columns.log_()
        return Sums(rows, columns, self._positives(pair), row_top, column_top)

    def add_gradients(self, pair: Pair, slopes: _Slopes, left: Tensor, right: Tensor) -> Tensor:
        """Add the gradients with regard to the unit vectors of either side; returns that of the bias."""
        of_bias = torch.zeros((), dtype=torch.float64, device=left.device)
        # d exp(s) / d sum; the sums of rows that are not this process's own are not there, and are not used
        row_factor, column_factor = slopes.of_rows * (-slopes.rows).exp(), slopes.of_columns * (-slopes.columns).exp()
        for tile in self._tiles(pair):
            r, c, scores = tile.rows, tile.columns, tile.scores
            if self.plan.softplus:
                scores.add_(self.bias).sigmoid_().mul_(slopes.of_rows[r, None])
            elif not self.plan.columns:
                scores.sub_(slopes.rows[r, None]).exp_().mul_(slopes.of_rows[r, None])
            elif self.plain_exp:
                scores.exp_().mul_(row_factor[r, None] + column_factor[c])
            else:
                by_column = (scores - slopes.columns[c]).exp_().mul_(slopes.of_columns[c])
                scores.sub_(slopes.rows[r, None]).exp_().mul_(slopes.of_rows[r, None]).add_(by_column)
            for shift in {0, *pair.positives}:
                diagonal, on = tile.diagonal(shift)
                diagonal.copy_(slopes.of_positives[on]) if shift in pair.positives else diagonal.zero_()
            if self.plan.softplus:
                of_bias += scores.sum(dtype=torch.float64)
            _add_product(left, tile.row_place, scores, tile.right, self.scale)
            _add_product(right, tile.column_place, scores.T, tile.left, 1.0)
        return of_bias

    def _tiles(self, pair: Pair) -> Iterator["_Tile"]:
        """All tiles of this process's rows; each is valid until the next is asked for."""
        for own in pair.own:
            for rows in _spans(own, self.tile[0]):
                row_place = pair.place(rows)
                left = self.embeddings[pair.left].unit(row_place).mul_(self.scale)
                for columns in _spans(range(pair.num_rows), self.tile[1]):
                    column_place = pair.place(columns)
                    right = self.embeddings[pair.right].unit(column_place)
                    scores = self.buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
                    torch.mm(left, right.T, out=scores)
                    yield _Tile(rows, columns, row_place, column_place, left, right, scores)

    def _positives(self, pair: Pair) -> Tensor:
        found = self.buffer.new_empty(pair.num_rows)
        for view, shift in enumerate(pair.positives):
            of_view = range(view * pair.num_clips, (view + 1) * pair.num_clips)
            for rows in _spans(of_view, self.tile[0]):
                left = self.embeddings[pair.left].unit(pair.place(rows))
                right = self.embeddings[pair.right].unit(pair.place(range(rows.start + shift, rows.stop + shift)))
                found[rows.start : rows.stop] = (left * right).sum(dim=1) * self.scale
        return found.add_(self.bias)


@dataclass(frozen=True)
class _Tile:
    """Some rows against some columns."""

    row_range: range
    column_range: range
    row_place: slice | Tensor
    """Among the N of the embedding."""
    column_place: slice | Tensor
    left: Tensor
    """[R, D] unit vectors over the temperature."""
    right: Tensor
    """[C, D] unit vectors."""
    scores: Tensor
    """[R, C]; whoever walks the tiles may overwrite it."""

    @property
    def rows(self) -> slice:
        """Among the pair's K."""
        return slice(self.row_range.start, self.row_range.stop)

    @property
    def columns(self) -> slice:
        """Among the pair's K."""
        return slice(self.column_range.start, self.column_range.stop)

    def diagonal(self, shift: int) -> tuple[Tensor, slice]:
        """The scores whose column less row is `shift`, as a view, and their rows; empty where the tile has none."""
        offset = self.row_range.start + shift - self.column_range.start
        if not -len(self.row_range) < offset < len(self.column_range):
            return self.scores[0, :0], slice(0, 0)
        found = self.scores.diagonal(offset)
        first = self.row_range.start + max(0, -offset)
        return found, slice(first, first + len(found))


def _spans(whole: range, most: int) -> Iterator[range]:
    """Cut a range into equal parts of at most this many, so that none is a narrow rest."""
    if len(whole) == 0:
        return
    parts = -(-len(whole) // most)
    for part in range(parts):
        yield whole[part * len(whole) // parts : (part + 1) * len(whole) // parts]


def _add_product(total: Tensor, place: slice | Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """total[place] += scale * left @ right."""
    part = total[place]  # a view where place is a slice, else a copy
    part.addmm_(left, right, alpha=scale)
    if not isinstance(place, slice):
        total[place] = part


def _complete(plan: Plan, sums: Sequence[Sums]) -> None:
    """Put the processes' parts of the columns together, in place: two small messages for all pairs."""
    if not plan.columns or not sums:
        return
    sizes = [len(one.columns) for one in sums]
    top = plan.max(torch.cat([one.column_top for one in sums]))
    parts = torch.cat([one.columns for one in sums])
    whole = parts if plan.softplus else plan.sum((parts - top).exp_()).log_().add_(top)
    for one, columns, column_top in zip(sums, whole.split(sizes), top.split(sizes), strict=True):
        one.columns.copy_(columns)
        one.column_top.copy_(column_top)
