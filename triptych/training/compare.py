"""Losses that compare all clips of an optimizer step with each other, over micro-batches and ranks (Task.embed).

Gradient caching (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup", section
3): the micro-batches are embedded, the embeddings of all ranks gathered, and the loss's gradient with regard to them
computed; a micro-batch is then embedded once more, with the graph, and its part of that gradient sent back through it.
The result is that of one large batch, while only one micro-batch's activations are kept. Embeddings travel once, and
their gradients once.

Legend: B clips of a micro-batch, N of the optimizer step, W numbers of a clip's embeddings together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from triptych.training.distributed import Distributed
from triptych.training.tally import Record
from triptych.training.task import Embeddings, Task, Total

Embedded = Mapping[str, Embeddings]
"""Objective -> embeddings."""


@dataclass(frozen=True)
class Compared:
    """What a comparison says of this rank's micro-batches."""

    gradients: list[Embedded]
    """By micro-batch: of the scaled loss, with regard to its `rows`, and to `shared`: in all but the first zeros, since
    every backward pass must reach the same weights."""
    record: Record
    """Losses and figures of this rank's rows."""


def gather(own: Embeddings, distributed: Distributed) -> tuple[Embeddings, slice]:
    """All ranks' embeddings without their graph, and where this rank's rows are (a collective)."""
    names, marks = sorted(own.rows), sorted(own.present)
    kind = own.rows[names[0]].dtype
    columns = [own.rows[name].detach().flatten(1) for name in names]
    columns += [own.present[name].to(kind)[:, None] for name in marks]
    table, where = distributed.gather_rows(torch.cat(columns, dim=1))
    parts = iter(table.split([column.shape[1] for column in columns], dim=1))
    rows = {name: next(parts).unflatten(1, own.rows[name].shape[1:]) for name in names}
    present = {name: next(parts)[:, 0] > 0 for name in marks}
    return Embeddings(rows=rows, present=present, shared=_detached(own.shared)), where


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Micro-batches under each other, without their graph; `shared` is the first one's."""
    first = parts[0]
    return Embeddings(
        rows={name: torch.cat([part.rows[name].detach() for part in parts]) for name in first.rows},
        present={name: torch.cat([part.present[name] for part in parts]) for name in first.present},
        shared=_detached(first.shared),
    )


def compare(task: Task, embedded: Sequence[Embedded], scale: Mapping[str, float], distributed: Distributed) -> Compared:
    """Losses of a whole optimizer step and their gradients with regard to this rank's embeddings (a collective).

    Args:
        task: whose `compare` knows the losses.
        embedded: this rank's micro-batches; at least one.
        scale: objective -> factor of its loss; without one there is no gradient.
        distributed: the ranks.
    """
    gradients: list[dict[str, Embeddings]] = [{} for _ in embedded]
    losses: dict[str, Total] = {}
    report: dict[str, Total] = {}
    for objective in sorted(embedded[0]):
        parts = [micro_batch[objective] for micro_batch in embedded]
        gathered, own = gather(join(parts), distributed)
        leaves = [*gathered.rows.values(), *gathered.shared.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        with torch.enable_grad():
            loss, figures = task.compare(objective, gathered, own, distributed)
            scaled = loss.sum * scale.get(objective, 0.0)
        found = torch.autograd.grad(scaled, leaves, allow_unused=True) if scaled.requires_grad else [None] * len(leaves)
        whole = [torch.zeros_like(leaf) if value is None else value for leaf, value in zip(leaves, found, strict=True)]
        rows = dict(zip(gathered.rows, whole, strict=False))
        shared = dict(zip(gathered.shared, whole[len(rows) :], strict=True))
        mine = _summed(rows, own, distributed)
        start = 0
        for number, part in enumerate(parts):
            stop = start + len(next(iter(part.rows.values())))
            cut = {name: value[start:stop] for name, value in mine.items()}
            once = {name: value * (number == 0) for name, value in shared.items()}
            gradients[number][objective] = Embeddings(rows=cut, present={}, shared=once)
            start = stop
        losses[objective] = Total(loss.sum.detach(), loss.count)
        report.update(figures)
    return Compared(list(gradients), (losses, report))


def pull_back(embedded: Embedded, gradients: Embedded) -> Tensor:
    """A number whose gradient is that of the comparison: the sum of embeddings times their gradients."""
    parts = [
        (values[name] * given).sum()
        for objective, own in embedded.items()
        for values, wanted in ((own.rows, gradients[objective].rows), (own.shared, gradients[objective].shared))
        for name, given in wanted.items()
    ]
    return torch.stack(parts).sum()


def tensors(embedded: Embedded) -> list[Tensor]:
    """All that carries a graph."""
    return [value for own in embedded.values() for value in (*own.rows.values(), *own.shared.values())]


def _summed(rows: Mapping[str, Tensor], own: slice, distributed: Distributed) -> dict[str, Tensor]:
    """The own rows of the ranks' summed gradients, in one message."""
    shapes = {name: value.shape[1:] for name, value in rows.items()}
    table = distributed.sum(torch.cat([value.flatten(1) for value in rows.values()], dim=1))[own]
    parts = table.split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in values.items()}
