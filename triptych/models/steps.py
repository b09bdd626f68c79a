"""A tower's sequence on the steps of a series. Pure functions.

Legend: B clips, T steps of the sequence, S steps of the track that it was made of, R rows over all clips, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.batch import Track

Numbers = NDArray[np.float64]


def num_steps(durations_s: NDArray[np.float32], rate_hz: float) -> NDArray[np.int64]:
    """[N] steps of clips: `ceil(duration * rate)`, at least one.

    A duration in float32 may lie a little above the true one (0.3 s at 10 Hz are three steps and not four): that is
    forgiven.
    """
    seconds = durations_s.astype(np.float64) - np.spacing(durations_s)
    steps: NDArray[np.int64] = np.maximum(1, np.ceil(seconds * rate_hz)).astype(np.int64)
    return steps


def on_steps(
    sequence_BTD: Tensor,
    mask_BT: Tensor,
    track: Track,
    rate_hz: float,
    num_rows: Sequence[int],
    has_cls: bool = False,
) -> Tensor:
    """[R, D] float32: row `i` of a clip is the mean of the steps whose middle lies in `[i, i + 1) / rate_hz`.

    Where there is none (words, a rate above the sequence's, a clip that was cut at its longest length) it is the step
    whose middle is nearest to the row's. Rows of a clip without any step are zeros.

    Args:
        sequence_BTD: of a tower.
        mask_BT: True = real.
        track: what went in; where a clip's T is not its S, the times of its steps are interpolated linearly.
        rate_hz: of the rows.
        num_rows: of each clip; their sum is R.
        has_cls: the first real step has no time and is left out; so is the track's, where it has as many.
    """
    rows_RD = torch.zeros(sum(num_rows), sequence_BTD.shape[-1], device=sequence_BTD.device)
    middles_BS = track.times.double().mean(dim=-1).cpu().numpy()
    real_BS = track.mask.cpu().numpy()
    start = 0
    for clip, count in enumerate(num_rows):
        steps_TD = sequence_BTD[clip][mask_BT[clip]].float()
        given_S = middles_BS[clip][real_BS[clip]]
        if has_cls:
            given_S = given_S[1:] if len(given_S) == len(steps_TD) else given_S
            steps_TD = steps_TD[1:]
        if len(steps_TD) and len(given_S):
            rows_RD[start : start + count] = _rows(steps_TD, spread(given_S, len(steps_TD)), rate_hz, count)
        start += count
    return rows_RD


def spread(middles_S: Numbers, num: int) -> Numbers:
    """Times [num] of `num` steps that share the track's evenly; step `j` covers the track's `[j, j + 1) * S / num`."""
    if num == len(middles_S):
        return middles_S
    places = (np.arange(num) + 0.5) * len(middles_S) / num - 0.5
    return np.interp(places, np.arange(len(middles_S)), middles_S)


def _rows(steps_TD: Tensor, middles_T: Numbers, rate_hz: float, count: int) -> Tensor:
    # a middle in float32 may lie a little below the boundary that it is meant to lie on
    places_T = np.floor((middles_T + np.spacing(middles_T.astype(np.float32))) * rate_hz).astype(np.int64)
    inside_T = (places_T >= 0) & (places_T < count)
    members_R = np.bincount(places_T[inside_T], minlength=count)
    device = steps_TD.device
    rows_RD = torch.zeros(count, steps_TD.shape[1], device=device)
    places = torch.from_numpy(places_T[inside_T]).to(device)
    rows_RD.index_add_(0, places, steps_TD[torch.from_numpy(inside_T).to(device)])
    rows_RD /= torch.from_numpy(members_R).to(device).clamp(min=1)[:, None]
    (empty,) = np.nonzero(members_R == 0)
    nearest = _nearest(middles_T, (empty.astype(np.float64) + 0.5) / rate_hz)
    rows_RD[torch.from_numpy(empty).to(device)] = steps_TD[torch.from_numpy(nearest).to(device)]
    return rows_RD


def _nearest(middles_T: Numbers, wanted: Numbers) -> NDArray[np.int64]:
    """Index of the middle that is nearest to each wanted time, the earlier of two."""
    order = np.argsort(middles_T, kind="stable")
    times = middles_T[order]
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    before = (after - 1).clip(min=0)
    chosen: NDArray[np.int64] = order[np.where(wanted - times[before] <= times[after] - wanted, before, after)]
    return chosen
