"""What do frozen towers know of a GRID sentence? Linear probes of its words, beside the same towers untrained.

    python benchmarks/grid_probe.py ENCODER [ENCODER ...] shards=SHARDS

ENCODER: a run's encoder/ folder; several are seeds of one run. SHARDS: GRID clips with words, split into train, valid
and test. A sentence of GRID is command, colour, preposition, letter, digit, adverb: `bin blue at f two now`. Four words
are the labels. The towers of sound and face get nothing but sound and face, and are not fused.

Every probe is a logistic regression on the means of a tower's sequence over six equal parts of the clip, side by side
(a mean over all of it forgets the order), standardised on the training split; its strength is chosen on valid, and the
test split is scored once. Encoder number i stands against untrained towers of seed i. With
several encoders: mean [95 % interval of the mean, Student's t].
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from linear_probe.heads.base import Problem
from linear_probe.heads.config import Logistic
from shards.features.recover import features_of
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import SPLITS, ClipRecord
from triptych.config import UserError, run_command
from triptych.evaluation.scores import Classes, accuracy, mean_interval
from triptych.models.blocks import segment_pool
from triptych.models.encoder import Encoder
from triptych.models.load import load, untrained

PLACES = {"colour": 1, "preposition": 2, "letter": 3, "digit": 4}
"""Label -> index of the word."""
NUM_WORDS = 6
KINDS = ("pretrained", "untrained")
SHOWN = ("audio", "video")
"""Never text: it is what is asked for."""
C_GRID = [0.001, 0.01, 0.1, 1.0, 10.0]
"""Inverse L2 strengths, those of linear_probe."""
BATCH = 32

Table = Mapping[str, list[float]]
"""Label, or "mean" of all -> test accuracy of each encoder."""


@dataclass(frozen=True)
class Split:
    """The clips of a split that have six words."""

    words: NDArray[np.str_]
    """[N, NUM_WORDS]."""
    features: Mapping[str, Mapping[str, NDArray[np.float32]]]
    """Encoder -> modality -> [N, D]."""
    left_out: int


def read(shard_set: ShardSet, split: str, encoders: Mapping[str, Encoder]) -> Split:
    """Encode a split: every clip is read once, for all encoders, which take the same features.

    Raises:
        UserError: no clip has six words, or the split cannot be read.
    """
    inputs = {name: spec for name, spec in next(iter(encoders.values())).inputs.items() if name in SHOWN}
    loader = EvalLoader(shard_set, features_of(inputs), vocabulary=None, batch_size=BATCH, rank=0, world=1, split=split)
    clips = shard_set.split(split)
    contents = (clips.read(number, ["json"])["json"] for number in range(len(clips)))  # in the order of the loader
    sentences = {
        record.key: [word.text for word in record.words or ()]
        for record in (ClipRecord.from_json(json.loads(content)) for content in contents)
    }
    keys: list[str] = []
    rows: dict[str, dict[str, list[torch.Tensor]]] = {name: {shown: [] for shown in inputs} for name in encoders}
    with torch.inference_mode():
        for batch in loader.batches():
            keys += batch.keys
            for name, encoder in encoders.items():
                towers = encoder.encode(batch, fuse=False).towers
                for modality, parts in rows[name].items():
                    tower = towers[modality]
                    parts.append(segment_pool(tower.sequence, tower.mask, NUM_WORDS).float())
    whole = np.array([len(sentences[key]) == NUM_WORDS for key in keys])
    if not whole.any():
        raise UserError(
            f"{shard_set.location}: no {split} clip has {NUM_WORDS} words; the probes are of GRID sentences"
        )
    return Split(
        words=np.array([sentences[key] for key, good in zip(keys, whole) if good]),
        features={
            name: {modality: torch.cat(parts).numpy()[whole] for modality, parts in of_encoder.items()}
            for name, of_encoder in rows.items()
        },
        left_out=int((~whole).sum()),
    )


def probe(splits: Mapping[str, Split], encoder: str, modalities: Sequence[str]) -> dict[str, float]:
    """Label -> accuracy on the test split, and the "mean" of all."""
    features = {
        name: np.concatenate([split.features[encoder][modality] for modality in modalities], axis=1)
        for name, split in splits.items()
    }
    found = {}
    for label, place in PLACES.items():
        labels, num_classes = classes(splits, place)
        x, rows = (
            torch.from_numpy(np.concatenate([features[name] for name in ("train", "valid")])),
            len(labels["train"]),
        )
        y = torch.from_numpy(np.concatenate([labels[name] for name in ("train", "valid")]))
        problem = Problem(train=np.arange(rows), valid=np.arange(rows, len(y)))
        fitted = Logistic(c=C_GRID).fit(x, y, [problem], "classes", num_classes)
        scores = [accuracy(labels["valid"], said) for said in fitted.outputs(0, x[rows:]).argmax(dim=2).numpy()]
        said = fitted.outputs(0, torch.from_numpy(features["test"]))[int(np.argmax(scores))].argmax(dim=1)
        found[label] = accuracy(labels["test"], said.numpy())
    return found | {"mean": float(np.mean(list(found.values())))}


def most_frequent(splits: Mapping[str, Split]) -> dict[str, float]:
    """As `probe`, of always saying the training split's most frequent word."""
    found = {}
    for label, place in PLACES.items():
        labels, _ = classes(splits, place)
        found[label] = float(np.mean(labels["test"] == np.bincount(labels["train"]).argmax()))
    return found | {"mean": float(np.mean(list(found.values())))}


def classes(splits: Mapping[str, Split], place: int) -> tuple[dict[str, Classes], int]:
    """Split -> [N] class index of the word at a place, and the number of classes, those of all splits."""
    known = np.unique(np.concatenate([split.words[:, place] for split in splits.values()]))
    return {name: np.searchsorted(known, split.words[:, place]) for name, split in splits.items()}, len(known)


def line(modalities: str, name: str, table: Table, sign: str = "") -> str:
    """A row of the Markdown table."""
    return f"| {' | '.join([modalities, name, *(cell(table[label], sign) for label in (*PLACES, 'mean'))])} |"


def cell(values: Sequence[float], sign: str) -> str:
    """Mean and, of several values, its interval."""
    if len(values) < 2:
        return f"{values[0]:{sign}.3f}"
    return "{0:{sign}.3f} [{1:{sign}.3f}, {2:{sign}.3f}]".format(*mean_interval(values), sign=sign)


def collected(runs: Sequence[Mapping[str, float]]) -> Table:
    """The accuracies of several encoders, label by label."""
    return {label: [run[label] for run in runs] for label in runs[0]}


def main(arguments: Sequence[str]) -> int:
    """The command; see the module."""
    folders = [Path(argument) for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if not folders or set(options) != {"shards"}:
        print(__doc__)
        return 2
    pairs = [(load(folder), untrained(folder, seed)) for seed, folder in enumerate(folders)]
    if len({repr((encoder.inputs, encoder.system)) for encoder, _ in pairs}) > 1:
        raise UserError("the encoders differ in more than their weights: give seeds of one run, each run in a table")
    shown = [name for name in SHOWN if name in pairs[0][0].inputs]
    if not shown:
        raise UserError(f"{folders[0]}: takes neither sound nor face")
    numbered = {f"{kind} {seed}": encoder for seed, pair in enumerate(pairs) for kind, encoder in zip(KINDS, pair)}
    shard_set = ShardSet(options["shards"])
    splits = {split: read(shard_set, split, numbered) for split in SPLITS}

    print(f"| towers of | weights | {' | '.join((*PLACES, 'mean'))} |\n|---|---|{'---:|' * (len(PLACES) + 1)}")
    print(line("", "none: the most frequent word", collected([most_frequent(splits)])))
    for modalities in dict.fromkeys([tuple(shown), *((name,) for name in shown)]):
        tables = {
            kind: collected([probe(splits, f"{kind} {seed}", modalities) for seed in range(len(folders))])
            for kind in KINDS
        }
        gains = {
            label: list(np.subtract(values, tables["untrained"][label]))
            for label, values in tables["pretrained"].items()
        }
        name = " + ".join(modalities)
        for kind in reversed(KINDS):
            print(line(name, kind, tables[kind]))
        print(line(name, "difference", gains, "+"), flush=True)
    counts = ", ".join(f"{len(split.words)} {name}" for name, split in splits.items())
    left_out = sum(split.left_out for split in splits.values())
    print(f"\n{len(folders)} encoder(s); {counts} clips; {left_out} left out for another number of words than six.")
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
