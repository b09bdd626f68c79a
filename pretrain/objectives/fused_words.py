"""The vector of each word in fused sequences, whichever modality's steps they have.

Legend: B clips, T words, K words that are asked for, D width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from triptych.models.blocks import mean_pool, span_means
from triptych.models.encoder import Fused

WORDS = "text"
"""The anchor whose steps are the words themselves."""


def word_vectors(fused: Mapping[str, Fused], times_BT2: Tensor, asked_BT: Tensor) -> Tensor:
    """[K, D]: of every word that is asked for, the mean over the anchors that its clip has.

    An anchor's vector of a word is the mean of its steps whose support overlaps the word's span at all, or, where none
    does, of the nearest; the words' own anchor has the word's step.

    Args:
        fused: anchor -> sequence, as an encoder gives it.
        times_BT2: start and end of the words, in seconds.
        asked_BT: which words; every clip with one has an anchor.
    """
    clips_K = asked_BT.nonzero()[:, 0]
    vectors = [
        one.sequence[asked_BT] if anchor == WORDS else word_means(one, times_BT2)[asked_BT]
        for anchor, one in fused.items()
    ]
    has_KM = torch.stack([one.mask.any(dim=1)[clips_K] for one in fused.values()], dim=1)
    return mean_pool(torch.stack(vectors, dim=1), has_KM)


def word_means(fused: Fused, times_BT2: Tensor) -> Tensor:
    """[B, T, D] mean of the steps that overlap each word, or of the nearest; zeros in a clip without real steps."""
    return span_means(fused.sequence, fused.mask, fused.times, times_BT2)
