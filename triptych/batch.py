"""The one batch type of all stages.

Legend: B clips, T steps of a modality (padded), * the shape of one step (FeatureSpec.shape).
Masks are True where something real is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from triptych.labels import UNLABELLED as UNLABELLED  # what labels of a batch may be
from triptych.modalities import FeatureSpec

IGNORE = -100
"""Target value at positions that ask nothing, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One modality of a batch."""

    values: Tensor
    """[B, T, *]; zeros where `mask` is False."""
    mask: Tensor
    """[B, T] bool; a clip that lacks the modality has no True."""
    times: Tensor
    """[B, T, 2] float32, seconds from the clip's start: start and end of what the step was computed from."""
    hidden: Tensor | None = None
    """[B, T] bool; True where the tower must see zeros, set by an objective that masks. None hides nothing."""

    @property
    def present(self) -> Tensor:
        """[B] bool: which clips have this modality."""
        return self.mask.any(dim=1)

    def to(self, device: torch.device) -> "Track":
        """The track on another device."""
        moved = {
            name: None if value is None else value.to(device, non_blocking=True) for name, value in vars(self).items()
        }
        return Track(**moved)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips side by side; a micro-batch of the global batch of one optimizer step."""

    keys: tuple[str, ...]
    """B sample keys, as in the shards."""
    epochs: tuple[int, ...]
    """B epoch numbers: a global batch may straddle two epochs, and masking is a function of (seed, epoch, key)."""
    tracks: Mapping[str, Track]
    """Modality name -> track. All clips of a batch list the same modalities; `Track.present` says who has them."""
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """Label name -> what was asked for (triptych.labels.LabelSpec):

    classes   [B] int64, index in the order asked for; UNLABELLED where absent
    Number    [B] float32; NaN where absent
    Series    [B, T] float32, T steps of the longest series and at least 1; step `i` at `i / rate_hz` seconds from the
              clip's start; NaN after a series' end and where absent

    The mask of a number or a series is `~values.isnan()`; labels themselves are finite."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """What an objective drew for this batch, by objective name (see Task.prepare)."""
    damaged: tuple[tuple[int, str], ...] = ()
    """Sample id and what is wrong, of clips that could not be read: they are here without any modality or label."""
    num_cut: int = 0
    """Clips of which a modality was longer than its FeatureSpec.max_length, and was cut there."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_steps(self) -> tuple[int, int]:
        """Steps of all modalities together: real ones, and all with the padding."""
        masks = [track.mask for track in self.tracks.values()]
        return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return replace(
            self,
            tracks={name: track.to(device) for name, track in self.tracks.items()},
            labels={name: value.to(device, non_blocking=True) for name, value in self.labels.items()},
            targets={name: value.to(device, non_blocking=True) for name, value in self.targets.items()},
        )

    def keep(self, modalities: tuple[str, ...]) -> "Batch":
        """The batch with only these modalities present; the others are kept as absent tracks (mask all False).

        Raises:
            ValueError: a name that the batch does not carry.
        """
        unknown = set(modalities) - set(self.tracks)
        if unknown:
            raise ValueError(f"the batch has no {', '.join(sorted(unknown))}; it has {', '.join(self.tracks)}")
        return replace(
            self,
            tracks={
                name: track if name in modalities else replace(track, mask=torch.zeros_like(track.mask))
                for name, track in self.tracks.items()
            },
        )


def fake_batch(
    specs: Mapping[str, FeatureSpec],
    *,
    num_clips: int = 4,
    num_words: int = 6,
    vocabulary_size: int = 20,
    seed: int = 0,
    absent: Mapping[str, tuple[int, ...]] | None = None,
) -> Batch:
    """A valid batch without any file: random values, ragged lengths, words spread over the clip.

    Args:
        specs: modality -> feature; steps of one without a rate are at the words' times.
        num_clips: B.
        num_words: words of the longest clip; clip `b` has `max(1, num_words - b)`.
        vocabulary_size: word ids are drawn from 1 to this (0 is the unknown word).
        seed: of the random values.
        absent: modality -> clip indices that lack it.
    """
    generator = torch.Generator().manual_seed(seed)
    duration_s = 0.3 * num_words
    tracks = {}
    for modality, spec in specs.items():
        longest = num_words if spec.rate_hz is None else max(1, round(duration_s * spec.rate_hz))
        lengths = torch.tensor([max(1, longest - clip) for clip in range(num_clips)])
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        for clip in (absent or {}).get(modality, ()):
            mask[clip] = False
        index = torch.arange(longest, dtype=torch.float32)
        if spec.rate_hz is None:
            starts, ends = index * 0.3, index * 0.3 + 0.25
        else:
            starts, ends = (index / spec.rate_hz + support for support in spec.support_s)
        if spec.is_words:
            values = torch.randint(1, vocabulary_size + 1, (num_clips, longest), generator=generator)
        else:
            values = torch.randn(num_clips, longest, *spec.shape, generator=generator) * spec.std + spec.mean
            if spec.dtype == "uint8":
                values = values.clamp(0, 255).to(torch.uint8)
        values = values * mask.view(*mask.shape, *[1] * len(spec.shape))
        times = torch.stack([starts, ends], dim=-1).expand(num_clips, -1, -1) * mask[..., None]
        tracks[modality] = Track(values=values, mask=mask, times=times)
    return Batch(keys=tuple(f"clip-{clip:04d}" for clip in range(num_clips)), epochs=(0,) * num_clips, tracks=tracks)
