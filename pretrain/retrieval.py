"""How well the panels of held-out clips find each other.

Legend: N held-out clips that have both modalities of a pair, G of a gallery, D width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.objectives.contrastive import TO
from triptych.batch import Batch
from triptych.training.distributed import alone
from triptych.training.engine import Engine
from triptych.training.held_out_loss import EvalBatches, refuse_damage
from triptych.training.task import Embeddings

CUTS = (1, 5)
_ROWS = 1024
"""Of the table of similarities at a time."""


@dataclass(frozen=True)
class RetrievalEvaluator:
    """An Evaluator: of every objective that compares clips, the loss in galleries and how often the own clip is found.

    `recall_at_1/audio_to_video` is the share of clips whose sound is nearer to their own picture than to those of the
    other G - 1 clips of a gallery: the mean over all galleries that can be drawn from the split, which needs no drawing
    and does not depend on the number of ranks. `recall_at_1/contrastive` is the mean over the pairs of modalities, and
    `loss/contrastive` the mean over a cut of the split into galleries, in an order given by the keys.
    """

    name: str
    """Prefix of its figures in metrics.jsonl, e.g. "valid"."""
    engine: Engine
    loader: EvalBatches
    gallery: int
    """G; a split with fewer clips is one gallery."""

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
        figures: dict[str, float] = {}
        for objective, own in embedded.items():
            found = recalls(own, self.gallery)
            for cut in CUTS:
                shares = {pair: recall[cut] for pair, recall in found.items()}
                figures |= {f"recall_at_{cut}/{pair}": share for pair, share in shares.items()}
                if shares:
                    figures[f"recall_at_{cut}/{objective}"] = sum(shares.values()) / len(shares)
            figures |= self._loss(objective, keys, own)
        return figures

    def _loss(self, objective: str, keys: list[str], own: Embeddings) -> dict[str, float]:
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
                loss, _ = self.engine.task.compare(objective, gathered, slice(0, len(clips)), alone(clips.device))
                total, count = total + float(loss.sum), count + loss.count
        return {f"loss/{objective}": total / count} if count else {}


def recalls(embeddings: Embeddings, gallery: int) -> dict[str, dict[int, float]]:
    """Ordered pair -> cut -> share of clips that are among the nearest `cut` of a gallery; pairs without clips are
    missing.

    Args:
        embeddings: rows [N, 1, D] by head ("audio_to_video", or "audio" for all pairs), presence by modality.
        gallery: G.
    """
    modalities = tuple(embeddings.present)
    found = {}
    for m, n in permutations(modalities, 2):
        both = embeddings.present[m] & embeddings.present[n]
        if both.any():
            asking, asked = (_rows_of(embeddings, *pair)[both, 0] for pair in ((m, n), (n, m)))
            better = _num_better(asking, asked)
            found[f"{m}{TO}{n}"] = {cut: float(expected_recall(better, cut, gallery).mean()) for cut in CUTS}
    return found


def expected_recall(better_N: Tensor, cut: int, gallery: int) -> Tensor:
    """[N] probability that a clip is among the nearest `cut` of a random gallery of its own and G - 1 others.

    Of the N - 1 others `better` are nearer; how many of these are drawn is hypergeometric.

    Args:
        better_N: number of other clips that are as near or nearer.
        cut: places that count.
        gallery: G; at most N are taken.
    """
    others, drawn = len(better_N) - 1, min(gallery, len(better_N)) - 1
    better = better_N.double()
    chance = torch.zeros_like(better)
    for hits in range(min(cut, drawn + 1)):
        possible = (better >= hits) & (others - better >= drawn - hits)
        logs = _log_choose(better, hits) + _log_choose(others - better, drawn - hits)
        total = _log_choose(torch.tensor(float(others), dtype=torch.float64), drawn)
        chance += torch.where(possible, (logs - total.to(logs.device)).exp(), 0.0)
    return chance


def _log_choose(n: Tensor, k: int) -> Tensor:
    n = n.clamp(min=k)
    return torch.lgamma(n + 1) - torch.lgamma(n - k + 1) - torch.lgamma(torch.tensor(k + 1.0, dtype=torch.float64))


def _num_better(asking_ND: Tensor, asked_ND: Tensor) -> Tensor:
    """[N] number of other clips at least as near as the own one, by cosine; a tie is no success."""
    asking, asked = (functional.normalize(values, dim=1) for values in (asking_ND, asked_ND))
    counts = []
    for start in range(0, len(asking), _ROWS):
        scores = asking[start : start + _ROWS] @ asked.T
        own = scores.diagonal(offset=start).clone()[:, None]
        counts.append((scores >= own).sum(dim=1) - 1)
    return torch.cat(counts)


def _rows_of(embeddings: Embeddings, m: str, n: str) -> Tensor:
    name = f"{m}{TO}{n}"
    return embeddings.rows[name] if name in embeddings.rows else embeddings.rows[m]
