"""Temporal augmentation (Franceschini et al. 2022, section III-D): windows of a clip, which may overlap.

In training an objective draws windows in its `prepare` and crops the batch in its forward pass; in evaluation it takes
whole clips.

Legend: B clips, V views of a clip, T steps of a modality, S steps that are kept of the longest clip.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pretrain.masking import generator
from triptych.batch import Batch, Track


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """How long windows are, and how near to each other."""

    seconds: float
    """Of each window; a clip that is not longer is taken whole."""
    min_overlap: float = 0.5
    """Share of a window that two windows of one clip have in common at least."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"windows.seconds: {self.seconds} must be above 0")
        if not 0 <= self.min_overlap < 1:
            raise ValueError(f"windows.min_overlap: {self.min_overlap} must lie in [0, 1); with 1, views are the same")


def draw_windows(batch: Batch, config: WindowsConfig, views: int, seed: int) -> Tensor:
    """Windows of each clip, a pure function of (seed, epoch, key) and of the clip's length.

    Each start alone is uniform over the clip, of the second view too, however near to the first it must be.

    Args:
        batch: on the CPU, whole clips.
        config: length and overlap.
        views: 1 or 2.
        seed: of the run.

    Returns:
        [B, V, 2] float32: start and end in seconds; of a clip that is no longer than a window, its own.
    """
    assert views in (1, 2), views
    names = zip(batch.epochs, batch.keys, strict=True)
    drawn = [generator(seed, epoch, f"windows/{key}").random(2) for epoch, key in names]  # others than the masks' own
    first_B, offset_B = np.stack(drawn).T
    clip_start_B, clip_end_B = _extents(batch)
    room_B = np.maximum(clip_end_B - clip_start_B - config.seconds, 0.0)  # 0 for a clip that is taken whole
    reach_B = np.minimum((1 - config.min_overlap) * config.seconds, room_B)
    starts_BV = (first_B * room_B)[:, None]
    if views == 2:
        # Reflected at both ends, a step from a uniform place leads to a uniform place; cut off, it would pile up there.
        moved_B = np.abs(starts_BV[:, 0] + (2 * offset_B - 1) * reach_B)
        starts_BV = np.stack([starts_BV[:, 0], room_B - np.abs(room_B - moved_B)], axis=1)
    starts_BV = starts_BV + clip_start_B[:, None]
    ends_BV = np.minimum(starts_BV + config.seconds, clip_end_B[:, None])
    return torch.from_numpy(np.stack([starts_BV, ends_BV], axis=-1).astype(np.float32))


def inside(track: Track, windows_B2: Tensor) -> Tensor:
    """[B, T] bool: the real steps whose middle lies in the clip's window; without any the clip has no such modality."""
    middles_BT = track.times.mean(dim=-1)
    return track.mask & (middles_BT >= windows_B2[:, :1]) & (middles_BT <= windows_B2[:, 1:])


def crop(track: Track, windows_B2: Tensor) -> Track:
    """The steps inside each clip's window, at the front and in their order.

    Args:
        track: on any device.
        windows_B2: start and end in seconds, on the same device.

    Returns:
        Track of [B, S] steps with times from the window's start on: a step's support may begin before the window, then
        its time is negative.
    """
    inside_BT = inside(track, windows_B2)
    longest = max(1, int(inside_BT.sum(dim=1).max()))  # a tower needs a step to run on
    chosen_BS = inside_BT.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    rows_B1 = torch.arange(len(inside_BT), device=inside_BT.device)[:, None]
    mask_BS = inside_BT[rows_B1, chosen_BS]
    values = track.values[rows_B1, chosen_BS]
    absent = ~mask_BS.view(*mask_BS.shape, *[1] * (values.ndim - 2))
    times = (track.times[rows_B1, chosen_BS] - windows_B2[:, None, :1]) * mask_BS[..., None]
    hidden = None if track.hidden is None else track.hidden[rows_B1, chosen_BS] & mask_BS
    return Track(values=values.masked_fill(absent, 0), mask=mask_BS, times=times, hidden=hidden)


def crop_batch(batch: Batch, windows_B2: Tensor) -> Batch:
    """Every modality cropped to the same window of its clip; targets and labels stay, also those that name steps."""
    return replace(batch, tracks={name: crop(track, windows_B2) for name, track in batch.tracks.items()})


def _extents(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each clip in seconds, both [B] float64: 0, or what begins before, and the latest.

    Of the middles of steps, as they decide what is inside: the supports of landmarks reach beyond both ends.
    """
    starts, ends = [], []
    for track in batch.tracks.values():
        middles_BT = track.times.mean(dim=-1) * track.mask  # 0 where there is nothing: no clip begins later
        starts.append(middles_BT.amin(dim=1))
        ends.append(middles_BT.amax(dim=1))
    start_B = torch.stack(starts).amin(dim=0).clamp(max=0.0)
    end_B = torch.stack(ends).amax(dim=0)
    return start_B.double().numpy(), end_B.double().numpy()
