"""The held-out loss of an objective that compares clips.

Such a loss grows with the number of clips that are compared, so it is measured in galleries of one size.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import torch

from triptych.batch import Batch
from triptych.training.distributed import alone
from triptych.training.engine import Engine
from triptych.training.held_out_loss import EvalBatches, refuse_damage
from triptych.training.task import Embeddings


def no_figures(embeddings: Embeddings) -> Mapping[str, float]:
    """The `measure` of an objective that has a loss and nothing else."""
    return {}


@dataclass(frozen=True)
class GalleryEvaluator:
    """An Evaluator of one objective: what it measures on the embeddings of a split, and its loss in galleries.

    `loss/<objective>` is the mean over a cut of the split into galleries, in an order given by the keys.
    """

    name: str
    """Prefix of its figures in metrics.jsonl, e.g. "valid"."""
    engine: Engine
    loader: EvalBatches
    objective: str
    """Name of the Comparison; what others embed is not looked at."""
    gallery: int
    """Clips of a gallery; a split with fewer clips is one gallery."""
    measure: Callable[[Embeddings], Mapping[str, float]] = no_figures
    """Figure -> value, of the embeddings of the whole split."""

    def evaluate(self, step: int) -> Mapping[str, float]:
        """The same figures on every rank.

        Raises:
            UserError: more clips are damaged than the loader allows.
        """
        damaged = 0

        def counted() -> Iterator[Batch]:
            nonlocal damaged
            for batch in self.loader.batches():
                damaged += len(batch.damaged)
                yield batch

        keys, embedded = self.engine.embed(counted())
        refuse_damage(self.name, sum(self.engine.distributed.gather(damaged)), self.loader)
        own = embedded[self.objective]
        return {**self.measure(own), **self._loss(keys, own)}

    def _loss(self, keys: list[str], own: Embeddings) -> dict[str, float]:
        """The loss over galleries of like size."""
        order = sorted(range(len(keys)), key=lambda clip: blake2b(keys[clip].encode()).digest())
        parts = torch.tensor(order).tensor_split(max(1, len(keys) // self.gallery))
        total, count = 0.0, 0
        with torch.no_grad():
            for part in parts:
                clips = part.to(self.engine.device)
                rows = {name: values[clips] for name, values in own.rows.items()}
                present = {name: marks[clips] for name, marks in own.present.items()}
                gathered = Embeddings(rows=rows, present=present, shared=own.shared)
                loss, _ = self.engine.task.compare(self.objective, gathered, slice(0, len(clips)), alone(clips.device))
                total, count = total + float(loss.sum), count + loss.count
        return {f"loss/{self.objective}": total / count} if count else {}
