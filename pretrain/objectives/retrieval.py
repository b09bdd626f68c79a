"""How often the panels of held-out clips find each other: what contrastive.py measures beside its loss.

Legend: N held-out clips that have both modalities of a pair, G of a gallery, D width.
"""

from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional

from triptych.training.task import Embeddings

TO = "_to_"
"""Between the modalities of a pair in the names of embeddings and figures."""

CUTS = (1, 5)
_ROWS = 1024
"""Of the table of similarities at a time."""


def recall_figures(embeddings: Embeddings, gallery: int, objective: str) -> dict[str, float]:
    """Figures of a split, whose names end in the pair or, for the mean over the pairs, in the objective.

    `recall_at_1/audio_to_video` is the share of clips whose sound is nearer to their own picture than to those of the
    other G - 1 clips of a gallery: the mean over all galleries that can be drawn from the split, which needs no drawing
    and does not depend on the number of ranks.

    Args:
        embeddings: see `recalls`.
        gallery: G; a split with fewer clips is one gallery.
        objective: its name.
    """
    found = recalls(embeddings, gallery)
    figures: dict[str, float] = {}
    for cut in CUTS:
        shares = {pair: recall[cut] for pair, recall in found.items()}
        figures |= {f"recall_at_{cut}/{pair}": share for pair, share in shares.items()}
        if shares:
            figures[f"recall_at_{cut}/{objective}"] = sum(shares.values()) / len(shares)
    return figures


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
