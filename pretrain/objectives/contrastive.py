"""Modality-pairwise contrastive learning (Franceschini et al. 2022, section III): each clip's panels find each other.

Every modality's pooled vector goes through a projection head (fc, ReLU, fc; thrown away after pretraining), and for
each ordered pair of modalities a clip's embedding in one is to be nearer to its own in the other than to those of the
other clips of the optimizer step, over all micro-batches and ranks (pretrain.losses.contrastive has the equations).

Legend: B clips of a micro-batch, N of the optimizer step, V views of a clip, D width of an embedding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.losses.contrastive import Ranks, all_pairs
from pretrain.objectives.objective import Comparison, HeldOut, ObjectiveConfig, unchanged
from pretrain.objectives.retrieval import TO, recall_figures
from pretrain.windows import WindowsConfig, crop_batch, draw_windows, inside
from triptych.batch import Batch
from triptych.models.blocks import segment_pool
from triptych.models.encoder import Encoder
from triptych.models.towers.tower import TowerOutput, timed
from triptych.training.distributed import Distributed
from triptych.training.task import Embeddings, Evaluator, Total

NAME = "contrastive"
WINDOWS = f"{NAME}/windows"

_LOG_TEMPERATURE, _BIAS = "log_temperature", "bias"


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """What similarities are divided by."""

    start: float = 0.07
    """Franceschini et al. 2022, section III-B."""
    learn: bool = False
    """Learn its logarithm, as CLIP does (Radford et al. 2021, section 2.3)."""
    least: float = 0.01
    """Of a learnt one; CLIP's bound."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.start < math.inf:
            raise ValueError(f"temperature: {self.start} must be above 0 and no less than `least` ({self.least})")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection heads; the defaults are the paper's."""

    per: Literal["pair", "modality"] = "pair"
    """pair: a modality has a head for each other one. modality: one for all."""
    hidden: int = 1024
    width: int = 512
    segments: int = 1
    """1: the head takes the tower's pooled vector, as in the paper. More: the clip is cut into so many equal parts, the
    head takes the mean of the tower's sequence over each of them, and the results stand side by side. Similarity is
    then a sum over parts, each compared with its own: a few hundred clips suffice to learn which sounds belong to which
    faces, where one mean over a clip forgets the order (ours)."""

    def __post_init__(self) -> None:
        if min(self.hidden, self.width, self.segments) < 1:
            raise ValueError(
                f"head: hidden {self.hidden}, width {self.width}, segments {self.segments} must be 1 or more"
            )


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ObjectiveConfig):
    """Tell which of all clips' other panel belongs to a clip's panel."""

    variant: Literal["paper", "infonce", "two_view", "sigmoid"] = "paper"
    """paper: the positive is not in the denominator, as printed. infonce: it is. two_view: what the paper's code does
    with two windows of each clip. sigmoid: SigLIP's (Zhai et al. 2023)."""
    modalities: tuple[str, ...] = ()
    """Two or more of the encoder's; all of them when not given."""
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    bias: float = -10.0
    """Where the learnt bias of `sigmoid` starts; SigLIP's. Without effect on the others."""
    head: HeadConfig = field(default_factory=HeadConfig)
    windows: WindowsConfig | None = None
    """The paper's only augmentation: train on a window of each clip instead of the whole. two_view needs two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "two_view" and self.windows is None:
            raise ValueError(
                f"objectives.{NAME}.windows: two_view compares two windows of each clip; give their seconds"
            )
        if self.modalities and len(set(self.modalities)) < max(2, len(self.modalities)):
            raise ValueError(
                f"objectives.{NAME}.modalities: {list(self.modalities)}; expected two different ones or more"
            )

    @property
    def views(self) -> int:
        """V."""
        return 2 if self.variant == "two_view" else 1

    def build(self, encoder: Encoder, seed: int) -> "Contrastive":
        """The objective over any encoder.

        Raises:
            ValueError: the encoder has none of the modalities, or only one.
        """
        return Contrastive(self, encoder, seed)


@dataclass(frozen=True)
class DrawWindows:
    """`targets["contrastive/windows"]` [B, V, 2]: seconds, of training batches."""

    config: WindowsConfig
    views: int
    seed: int

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its windows, a pure function of (seed, epoch, key)."""
        windows = draw_windows(batch, self.config, self.views, self.seed)
        return replace(batch, targets={**batch.targets, WINDOWS: windows})


class Contrastive(Comparison):
    """Projection heads, temperature and the loss of all ordered pairs."""

    name = NAME
    config: ContrastiveConfig

    def __init__(self, config: ContrastiveConfig, encoder: Encoder, seed: int) -> None:
        """Build it; raises as `ContrastiveConfig.build` does."""
        super().__init__(config)
        if not encoder.sequence_widths:
            raise ValueError(
                f"objectives.{NAME}: compares towers, which this encoder does not have; use encoder.pairwise or "
                "encoder.cross_modal, or another objective"
            )
        if unknown := set(config.modalities) - set(encoder.inputs):
            raise ValueError(
                f"objectives.{NAME}.modalities: the encoder has no {', '.join(sorted(unknown))}; it has "
                f"{', '.join(encoder.inputs)}"
            )
        self.modalities = tuple(name for name in encoder.inputs if not config.modalities or name in config.modalities)
        if len(self.modalities) < 2:
            raise ValueError(f"objectives.{NAME}: compares modalities, and the encoder has only {self.modalities[0]}")
        windows = config.windows
        self.prepare = unchanged if windows is None else DrawWindows(windows, config.views, seed)
        pairs = [f"{m}{TO}{n}" for m, n in permutations(self.modalities, 2)]
        names = pairs if config.head.per == "pair" else self.modalities
        widths = encoder.widths if config.head.segments == 1 else encoder.sequence_widths
        self.heads = nn.ModuleDict({name: _head(widths[name.partition(TO)[0]], config.head) for name in names})
        # one element, as DeepSpeed cannot broadcast a weight without a dimension
        self.log_temperature = nn.Parameter(
            torch.tensor([math.log(config.temperature.start)]), requires_grad=config.temperature.learn
        )
        self.bias = nn.Parameter(torch.tensor([config.bias])) if config.variant == "sigmoid" else None

    def count(self, batch: Batch) -> int:
        """Number of clips that have two of the modalities."""
        return int((torch.stack(list(self._present(batch).values())).sum(dim=0) >= 2).sum())

    def embed(self, encoder: Encoder, batch: Batch) -> Embeddings:
        """Rows [B, V, D] of every head; windows in training, whole clips in evaluation."""
        windows = batch.targets.get(WINDOWS) if self.training else None
        compared = replace(batch, tracks={name: batch.tracks[name] for name in self.modalities})
        views = [compared] if windows is None else [crop_batch(compared, view) for view in windows.unbind(dim=1)]
        columns: dict[str, list[Tensor]] = {name: [] for name in self.heads}
        for view in views:
            parts = {
                name: self._parts(output, name in encoder.modalities_with_cls)
                for name, output in encoder.encode(view, fuse=False).towers.items()
            }
            for name, head in self.heads.items():
                columns[name].append(head(parts[name.partition(TO)[0]]).flatten(1).float())
        shared = {_LOG_TEMPERATURE: self.log_temperature[0]}
        if self.bias is not None:
            shared[_BIAS] = self.bias[0]
        rows = {name: torch.stack(column, dim=1) for name, column in columns.items()}
        return Embeddings(rows=rows, present=self._present(batch), shared=shared)

    def compare(self, gathered: Embeddings, own: slice, distributed: Distributed) -> tuple[Total, Mapping[str, Total]]:
        """The mean over ordered pairs times the clips that count, which Total divides by; reports `accuracy_<pair>`:
        how often the own clip is the nearest of all."""
        there = torch.stack([gathered.present[name] for name in self.modalities]).sum(dim=0) >= 2
        # view 1 of all clips first; two_view is two_view only where there are two: whole clips are compared as infonce
        z = {_key(name): rows.transpose(0, 1).flatten(0, 1) for name, rows in gathered.rows.items()}
        num_views = next(iter(gathered.rows.values())).shape[1]
        variant = "infonce" if self.config.variant == "two_view" and num_views == 1 else self.config.variant
        least = math.log(self.config.temperature.least)
        pairs = all_pairs(
            z,
            {name: gathered.present[name] for name in self.modalities},
            temperature=gathered.shared[_LOG_TEMPERATURE].clamp(min=least).exp(),
            variant=variant,
            bias=gathered.shared.get(_BIAS),
            ranks=Ranks(own, distributed.sum, distributed.max),
        )
        report = {f"accuracy_{name}": Total(pair.correct, pair.count) for name, pair in pairs.pairs.items()}
        if self.config.temperature.learn:
            temperature = gathered.shared[_LOG_TEMPERATURE].detach().clamp(min=least).exp()
            report["temperature"] = Total(temperature, 1)
        return Total(pairs.loss * int(there.sum()), int(there[own].sum())), report

    def evaluators(self, held_out: HeldOut) -> list[Evaluator]:
        """Its loss, and how often the own clip is found."""
        gallery = held_out.settings.gallery
        return [self.gallery_evaluator(held_out, partial(recall_figures, gallery=gallery, objective=NAME))]

    def _parts(self, output: TowerOutput, has_cls: bool) -> Tensor:
        """[B, segments, width] what the heads take."""
        segments = self.config.head.segments
        if segments == 1:
            return output.pooled[:, None]
        return segment_pool(output.sequence, timed(output.mask, has_cls), segments).unflatten(1, (segments, -1))

    def _present(self, batch: Batch) -> dict[str, Tensor]:
        """Modality -> [B] bool: the clips that have it, in every view."""
        windows = batch.targets.get(WINDOWS) if self.training else None
        tracks = {name: batch.tracks[name] for name in self.modalities}
        if windows is None:
            return {name: track.present for name, track in tracks.items()}
        views = windows.unbind(dim=1)
        seen = {name: torch.stack([inside(track, view).any(dim=1) for view in views]) for name, track in tracks.items()}
        return {name: found.all(dim=0) for name, found in seen.items()}


def _head(width: int, config: HeadConfig) -> nn.Sequential:
    """fc, ReLU, fc (Franceschini et al. 2022, section III-B)."""
    return nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.width))


def _key(name: str) -> str | tuple[str, str]:
    """Of an embedding, as the losses want it."""
    m, to, n = name.partition(TO)
    return (m, n) if to else m
