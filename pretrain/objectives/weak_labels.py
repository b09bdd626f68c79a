"""Weak labels beside self-supervision: a linear classifier of each on the encoder's pooled vector.

A weak label is what nobody annotated for the purpose and most clips have: the speaker's gender out of the corpus'
metadata, or the opinion of another system ("happy", says a classifier of faces). They come from

    the shards   a label of the clips, else one of their properties (`source`): `labels: {gender: [f, m]}` for
                 VoxCeleb2 with its metadata
    a file       `file: opinions.csv` with the columns `key` (as in the shards) and one a label; an empty field, or a
                 clip that is not listed, has no label

The loss is the cross entropy over all pairs of a clip and one of its labels; clips without a label are not counted.
The classifiers are thrown away with the run's other heads.

Legend: B clips, L labels, K clips of a file, D width.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.label_file import FileLabels, hashes_of, unknown_class
from pretrain.objectives.objective import Objective, ObjectiveConfig
from shards.reading.index import ShardSet
from shards.reading.storage import DamagedShard
from shards.reading.suits import check_form
from triptych.batch import IGNORE, UNLABELLED, Batch
from triptych.config import UserError, nearest
from triptych.files import sha256
from triptych.models.encoder import Encoder
from triptych.training.task import Total

NAME = "weak_labels"

LOOKED_AT = 1000
"""Clips that are searched at the start for a property that the manifest does not count."""


@dataclass(frozen=True, kw_only=True)
class WeakLabelsConfig(ObjectiveConfig):
    """Tell labels that come for free."""

    labels: dict[str, list[str]]
    """Label -> its classes, in the order of the classifier's outputs."""
    file: str | None = None
    """CSV file with the labels; when not given, the shards' own."""
    pooled: str | None = None
    """Which of the encoder's vectors: fused, text, audio or video. When not given, fused where the encoder has it, else
    those of all its towers side by side."""

    may_change: ClassVar[tuple[str, ...]] = ("file",)  # `identity` has its hash

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.labels:
            raise ValueError(f"objectives.{NAME}.labels: give at least one, as in {{gender: [f, m]}}")
        for label, classes in self.labels.items():
            if len(classes) < 2 or len(set(classes)) < len(classes):
                raise ValueError(f"objectives.{NAME}.labels.{label}: {classes}; expected two different classes or more")

    def labels_used(self) -> tuple[str, ...]:
        """See ObjectiveConfig.labels_used."""
        source = "of the shards" if self.file is None else "of a file"
        return tuple(f"{label} ({source})" for label in self.labels)

    def build(self, encoder: Encoder, seed: int) -> "WeakLabels":
        """The objective over any encoder; nothing of it is drawn, so the seed is not used.

        Raises:
            UserError: the file is missing or bad.
            ValueError: the encoder has no such vector.
        """
        return WeakLabels(self, encoder)


@dataclass(frozen=True)
class LookUp:
    """`targets["weak_labels"]` [B, L] int64: class indices, IGNORE where a clip has no label or cannot be seen."""

    labels: tuple[str, ...]
    table: FileLabels | None
    """None takes the labels that the loader read."""
    seen: tuple[str, ...]
    """Modalities of which a clip needs one."""

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its targets."""
        if self.table is not None:
            classes = torch.from_numpy(self.table.of(batch.keys))
        else:  # made-up clips (check=true) have no labels
            none = torch.full((len(batch),), UNLABELLED)
            classes = torch.stack([batch.labels.get(label, none) for label in self.labels], dim=1)
        seen = torch.stack([batch.tracks[name].present for name in self.seen]).any(dim=0)
        targets = torch.where(seen[:, None] & (classes != UNLABELLED), classes, IGNORE)
        return replace(batch, targets={**batch.targets, NAME: targets})


class WeakLabels(Objective):
    """A linear layer a label."""

    name = NAME
    config: WeakLabelsConfig

    def __init__(self, config: WeakLabelsConfig, encoder: Encoder) -> None:
        """Build it; raises as `WeakLabelsConfig.build` does."""
        super().__init__(config)
        widths = dict(encoder.widths)
        pooled = config.pooled or ("fused" if "fused" in widths else None)
        if pooled is not None and pooled not in widths:
            raise ValueError(f"objectives.{NAME}.pooled: the encoder has no {pooled!r}.{nearest(pooled, widths)}")
        self.pooled = tuple(encoder.inputs) if pooled is None else (pooled,)
        self.table = None if config.file is None else FileLabels.read(Path(config.file), config.labels)
        seen = (encoder.anchors or tuple(encoder.inputs)) if pooled == "fused" else self.pooled
        self.prepare = LookUp(tuple(config.labels), self.table, seen)
        width = sum(widths[name] for name in self.pooled)
        self.outputs = nn.ModuleList(nn.Linear(width, len(classes)) for classes in config.labels.values())

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """See Objective.labels."""
        return {} if self.table is not None else {name: tuple(found) for name, found in self.config.labels.items()}

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """See Objective.identity."""
        return {"file_sha256": None if self.config.file is None else sha256(Path(self.config.file))}

    def check_data(self, shard_set: ShardSet) -> list[str]:
        """How many clips have each label.

        Raises:
            UserError: no training clip has one of them, or a class is none of the label's.
        """
        if self.table is not None:
            return self._check_file(self.table, shard_set)
        return [_check_clips(label, classes, shard_set) for label, classes in self.config.labels.items()]

    def count(self, batch: Batch) -> int:
        """Number of pairs of a clip and a label of it."""
        return int((batch.targets[NAME] != IGNORE).sum())

    def forward(self, encoder: Encoder, batch: Batch) -> tuple[Total, Mapping[str, Total]]:
        """Cross entropy in nats summed over the pairs; reports `accuracy_<label>`."""
        pooled = encoder.encode(batch).pooled
        x_BD = torch.cat([pooled[name] for name in self.pooled], dim=-1)
        losses: list[Tensor] = []
        report = {}
        columns = batch.targets[NAME].unbind(dim=1)
        for label, output, targets in zip(self.config.labels, self.outputs, columns, strict=True):
            asked = targets != IGNORE
            logits = output(x_BD[asked]).float()
            losses.append(functional.cross_entropy(logits, targets[asked], reduction="sum"))
            correct = (logits.argmax(dim=-1) == targets[asked]).sum()
            report[f"accuracy_{label}"] = Total(correct.detach(), int(asked.sum()))
        return Total(torch.stack(losses).sum(), self.count(batch)), report

    def _check_file(self, table: FileLabels, shard_set: ShardSet) -> list[str]:
        listed = 0
        for split in shard_set.splits:
            keys = shard_set.split(split).keys
            listed += int(np.isin(hashes_of(keys), table.hashes).sum())
            if split == "train":
                num_clips, example, train = len(keys), keys[0], table.of(keys)
        told = []
        for (label, classes), column in zip(self.config.labels.items(), train.T, strict=True):
            counts = Counter({name: int((column == index).sum()) for index, name in enumerate(classes)})
            if not counts.total():
                raise UserError(
                    f"objectives.{NAME}.file: {self.config.file} tells {label} of none of the {num_clips} training "
                    f"clips; its keys are like {table.example!r}, theirs like {example!r}"
                )
            told.append(f"{label}: {counts.total()} of {num_clips} training clips ({_counted(counts)})")
        return [*told, f"{len(table.hashes) - listed} of {len(table.hashes)} keys of {self.config.file} are no clip's"]


def _check_clips(label: str, classes: Sequence[str], shard_set: ShardSet) -> str:
    """A label is counted in the manifest; a property is searched for in the first clips."""
    check_form(shard_set, label, tuple(classes))
    manifest, properties = shard_set.manifest, set[str]()
    counts, among = Counter(manifest.labels.get(label, {})), manifest.written
    if not counts:
        split = shard_set.split("train")
        among = min(LOOKED_AT, len(split))
        for sample_id in range(among):
            with suppress(DamagedShard):  # the stream counts them
                source = json.loads(split.read(sample_id, ["json"])["json"])["source"]
                properties |= set(source)
                counts.update([source[label]] if label in source else [])
    if not counts:
        raise UserError(
            f"objectives.{NAME}: {shard_set.location}: no clip has the label {label!r}, nor have the first {among} "
            f"training clips such a property.{nearest(label, [*manifest.labels, *sorted(properties)])}"
        )
    if unknown := sorted(set(counts) - set(classes)):
        raise UserError(f"{shard_set.location}: {unknown_class(label, unknown[0], classes)}")
    return f"{label}: {counts.total()} of {among} clips ({_counted(counts)})"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
