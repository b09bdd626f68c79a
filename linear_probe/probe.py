"""The probe from end to end: read once, encode frozen, choose on valid, score the test split once."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from linear_probe.config import ProbeConfig
from linear_probe.features import Extracted, Extractor, extract, input_features, pooled_features
from linear_probe.fit import Probe, fit
from shards.features.recover import features_of
from shards.index import ShardSet
from shards.pretrained_on import compare
from shards.read import EvalLoader
from shards.record import SPLITS
from shards.suits import check_suits
from shards.words import Vocabulary
from triptych import config as configs
from triptych import conventions, evaluation
from triptych.baselines import baselines
from triptych.batch import Batch
from triptych.config import UserError, nearest
from triptych.files import sha256
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoder
from triptych.models.load import load, untrained
from triptych.protocols import registry
from triptych.protocols.protocol import Protocol

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One system of the table: the extractors of its runs (seeds of initialisation)."""

    name: str
    inputs: str
    runs: tuple[str, ...]
    """Names of extractors."""


def run(config: ProbeConfig) -> dict[str, Any]:
    """Probe one or several encoders and write the report.

    Returns:
        The content of results.json.

    Raises:
        UserError: no such encoder, protocol, class or modality; unlabelled shards; a report folder in use.
    """
    protocol = registry.find(config.protocol, tuple(config.classes))
    encoders = {name: load(folder).to(_device()) for name, folder in config.named_encoders().items()}
    shard_set, out = ShardSet(config.shards, config.cache), Path(config.out)
    evaluation.make_folder(out)
    for name, encoder in encoders.items():  # before hours of encoding
        _pooled(config, name, encoder)
        for inputs in config.inputs:
            _modalities(inputs, name, encoder)
    suits = {name: _check_suits(config, shard_set, encoder, protocol) for name, encoder in encoders.items()}
    systems: list[evaluation.System] = []
    compared: list[tuple[str, str]] = []
    splits: dict[str, evaluation.Split] = {}
    known_baselines: dict[Any, str] = {}
    for name, encoder in encoders.items():
        architecture = (encoder.inputs.items(), encoder.words, repr(getattr(encoder, "system", name)))
        known = known_baselines.get(repr(architecture))
        baseline = known or ("untrained" if not known_baselines else f"untrained, as {name}")
        known_baselines[repr(architecture)] = baseline
        rows, extractors = _rows(config, name, encoder, None if known else baseline)
        data = {split: _extracted(config, shard_set, split, encoder, protocol, extractors) for split in SPLITS}
        splits = {split: _split(found) for split, found in data.items()}
        features = {split: found.features for split, found in data.items()}
        systems += [_system(config, protocol, row, features, splits["train"], splits["valid"]) for row in rows]
        compared += [(f"{name} ({row.inputs})", f"{baseline} ({row.inputs})") for row in rows if row.name == name]
    made = evaluation.Evaluation(
        title=f"Linear probe: {protocol.label}, {protocol.name}",
        protocol=protocol,
        splits=splits,
        split_rule=shard_set.manifest.split,
        systems=[*baselines(protocol, {"": splits["train"].truth}, splits["test"]), *systems],
        compared=compared,
        drawn=compared[0][0],
        num_resamples=config.num_resamples,
        facts=_facts(config, encoders, suits, shard_set),
    )
    configs.save(config, out / "config.yaml")
    return evaluation.write(made, out)


def _rows(
    config: ProbeConfig, name: str, encoder: Encoder, baseline: str | None
) -> tuple[list[_Row], dict[str, Extractor]]:
    """The table rows of an encoder, preceded by those of its baselines unless another encoder had the same."""
    pooled = _pooled(config, name, encoder)
    folder = config.named_encoders()[name]
    frozen = {name: encoder}
    if baseline:
        seeds = config.untrained_seeds
        frozen = {**{f"{baseline} {seed}": untrained(folder, seed).to(_device()) for seed in seeds}, **frozen}
    rows: list[_Row] = []
    extractors: dict[str, Extractor] = {}
    for inputs in config.inputs or ["+".join(encoder.inputs)]:
        modalities = _modalities(inputs, name, encoder)
        for title, module in frozen.items():
            extractors[f"{title} ({inputs})"] = pooled_features(module, pooled, modalities)
        if baseline:
            extractors[f"input means ({inputs})"] = input_features(encoder.inputs, modalities)
            rows.append(_Row(name="input means", inputs=inputs, runs=(f"input means ({inputs})",)))
            runs = tuple(f"{baseline} {seed} ({inputs})" for seed in config.untrained_seeds)
            rows.append(_Row(name=baseline, inputs=inputs, runs=runs))
        rows.append(_Row(name=name, inputs=inputs, runs=(f"{name} ({inputs})",)))
    return rows, extractors


def _pooled(config: ProbeConfig, name: str, encoder: Encoder) -> tuple[str, ...]:
    for wanted in config.pooled:
        if wanted not in encoder.widths:
            raise UserError(f"pooled: {name} has no {wanted!r}.{nearest(wanted, tuple(encoder.widths))}")
    return tuple(config.pooled) or tuple(encoder.widths)


def _modalities(inputs: str, name: str, encoder: Encoder) -> tuple[str, ...]:
    modalities = tuple(inputs.split("+"))
    for modality in modalities:
        if modality not in encoder.inputs:
            raise UserError(f"inputs: {name} takes no {modality!r}.{nearest(modality, tuple(encoder.inputs))}")
    return modalities


def _extracted(
    config: ProbeConfig,
    shard_set: ShardSet,
    split: str,
    encoder: Encoder,
    protocol: Protocol,
    extractors: Mapping[str, Extractor],
) -> Extracted:
    """The split as this encoder's features and those of its baselines; modalities that no row shows are not read."""
    inputs = _shown(config, encoder)
    loader = EvalLoader(
        shard_set,
        features_of(inputs),
        vocabulary=Vocabulary(encoder.words) if "text" in inputs else None,
        batch_size=config.micro_batch,
        rank=0,
        world=1,
        split=split,
        prepare=protocol.relabel,
        labels={protocol.label: protocol.corpus_classes},
    )

    def batches() -> Iterator[Batch]:
        quiet = not Console().is_terminal
        for batch in track(loader.batches(), f"encoding {split}", total=loader.num_batches, disable=quiet):
            yield batch.to(_device())

    return extract(batches(), extractors, protocol.label)


def _shown(config: ProbeConfig, encoder: Encoder) -> dict[str, FeatureSpec]:
    shown = {modality for inputs in config.inputs for modality in inputs.split("+")} or set(encoder.inputs)
    return {modality: spec for modality, spec in encoder.inputs.items() if modality in shown}


def _check_suits(config: ProbeConfig, shard_set: ShardSet, encoder: Encoder, protocol: Protocol) -> dict[str, str]:
    told = check_suits(shard_set, _shown(config, encoder), encoder.words, {protocol.label: protocol.corpus_classes})
    if "absent" in told:
        LOG.warning("warning: %s: %s; the encoder is used to more", shard_set.location, told["absent"])
    return told


def _split(found: Extracted) -> evaluation.Split:
    return evaluation.Split(keys=found.keys, truth=found.labels, left_out=found.left_out)


def _system(
    config: ProbeConfig,
    protocol: Protocol,
    row: _Row,
    features: Mapping[str, Mapping[str, np.ndarray]],
    train: evaluation.Split,
    valid: evaluation.Split,
) -> evaluation.System:
    """Fit the probes of a row; the test split comes in as features only."""
    probes: list[Probe] = []
    for name in row.runs:
        probes.append(
            fit(
                (features["train"][name], train.truth),
                (features["valid"][name], valid.truth),
                num_classes=len(protocol.classes),
                c_grid=config.c_grid,
                select=conventions.columns_of(protocol, protocol.select)[-1].score,
            )
        )
    chosen = ", ".join(f"{c:g}" for c in sorted({probe.c for probe in probes}))
    stopped = "" if all(probe.converged for probe in probes) else "; stopped before convergence"
    score = np.mean([probe.valid_score for probe in probes])
    rows = np.stack([probe.probabilities(features["test"][name]) for probe, name in zip(probes, row.runs, strict=True)])
    return evaluation.System(
        name=row.name,
        inputs=row.inputs,
        predictions=rows.argmax(axis=-1),
        probabilities=rows,
        note=f"C {chosen} ({protocol.select} {100 * score:.1f}){stopped}",
    )


def _facts(
    config: ProbeConfig,
    encoders: Mapping[str, Encoder],
    suits: Mapping[str, Mapping[str, str]],
    shard_set: ShardSet,
) -> dict[str, str]:
    facts = {
        "classifier": "multinomial logistic regression (lbfgs) on standardised frozen features, "
        f"C from {', '.join(f'{c:g}' for c in config.c_grid)}",
        "untrained": f"the same architecture with fresh weights, seeds {', '.join(map(str, config.untrained_seeds))}",
        "input means": "time means of the sound and picture features and word counts, no encoder",
    }
    for name, folder in config.named_encoders().items():
        pooled = ", ".join(config.pooled or encoders[name].widths)
        digest = sha256(folder / "model.safetensors")
        facts[f"encoder {name}"] = f"`{_short(folder)}`, model SHA-256 `{digest}`"
        facts[f"features of {name}"] = f"pooled {pooled}; zeros where a clip lacks one"
        facts |= {f"{title} for {name}": told for title, told in suits[name].items()}
        facts[f"scored clips in the pretraining of {name}"] = _seen(name, folder, shard_set)
    return facts


def _seen(name: str, folder: Path, shard_set: ShardSet) -> str:
    pretrained = compare(folder, shard_set)
    if pretrained.shared:
        LOG.warning("encoder %s was pretrained on clips that are scored here: %s", name, pretrained.told)
    return pretrained.told


def _short(folder: Path) -> str:
    """The end of a path: a report is shared, and need not tell how someone's disk is laid out."""
    return "/".join(folder.parts[-3:])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
