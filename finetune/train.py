"""Fine-tuning from end to end: train every row and seed, take the best step on valid, score the test split once."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.config import FinetuneConfig, Init
from finetune.evaluation import Predicted, ScoreEvaluator, predict
from finetune.task import FinetuneTask
from shards.features.config import FeaturesConfig
from shards.features.recover import features_of
from shards.index import ShardSet
from shards.pretrained_on import compare
from shards.read import EvalLoader, StreamConfig, TrainLoader
from shards.record import SPLITS
from shards.suits import check_suits
from shards.words import Vocabulary
from triptych import config as configs
from triptych import conventions, evaluation, evaluation_report
from triptych import distributed as launch
from triptych.baselines import baselines
from triptych.checkpoint import Checkpoints
from triptych.config import UserError, nearest
from triptych.distributed import Distributed
from triptych.engine_accelerate import AccelerateEngine
from triptych.files import sha256
from triptych.models.encoder import Encoder
from triptych.models.load import load, save_encoder, untrained
from triptych.protocols import registry
from triptych.protocols.protocol import Protocol
from triptych.run import RunFolder
from triptych.trainer import Trainer

LOG = logging.getLogger(__name__)

MAY_CHANGE = ("out", "shards", "cache", "workers")
"""Of the config, at a later start: the same clips in another place, read by other processes."""

TITLES = {"pretrained": "fine-tuned", "random": "from scratch"}


@dataclass(frozen=True)
class _Setting:
    """What all runs of a command share."""

    config: FinetuneConfig
    protocol: Protocol
    shard_set: ShardSet
    distributed: Distributed
    suits: Mapping[str, str]
    """Of shards.suits.check_suits."""


@dataclass(frozen=True)
class _Outcome:
    """What is left of a run: the step that valid chose, and what it says of every split."""

    step: int
    score: float
    predicted: Mapping[str, Predicted]


def run(config: FinetuneConfig) -> int:
    """Fine-tune and write the report; the same config goes on with what was interrupted.

    Returns:
        0, or triptych.trainer.EXIT_REQUEUE where a signal stopped it.

    Raises:
        UserError: no such encoder, protocol, class or modality; unlabelled shards; a finished report in the folder.
    """
    protocol = registry.find(config.protocol, tuple(config.classes))
    encoder, shard_set = untrained(config.encoder, 0), ShardSet(config.shards, config.cache)
    asked = {protocol.label: protocol.corpus_classes}
    suits = check_suits(shard_set, _inputs(config, encoder), encoder.words, asked)
    setting = _Setting(config, protocol, shard_set, launch.init(), suits)
    try:
        if setting.distributed.is_main and "absent" in suits:
            LOG.warning("warning: %s: %s; the encoder is used to more", config.shards, suits["absent"])
        setting.distributed.on_main(lambda: _open(config))
        outcomes: dict[str, list[_Outcome]] = {init: [] for init in config.init}
        for init in config.init:
            for seed in config.seeds:
                outcome = _train(setting, init, seed)
                if isinstance(outcome, int):
                    return outcome
                outcomes[init].append(outcome)
        if setting.distributed.is_main:
            evaluation.write(_evaluation(setting, outcomes), Path(config.out))
            print(f"report: {config.out}/report.md")
    finally:
        setting.distributed.shutdown()
    return 0


def _open(config: FinetuneConfig) -> None:
    out = Path(config.out)
    if (out / "report.md").exists():
        raise UserError(f"{out}: holds a finished report; give another folder, or remove it")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "config.yaml").exists())):
        raise UserError(f"{out}: is in use by something else; give an empty or new folder")
    out.mkdir(parents=True, exist_ok=True)
    configs.save(config, out / "config.yaml")


def _train(setting: _Setting, init: Init, seed: int) -> _Outcome | int:
    """One run; an exit code where it was asked to stop."""
    config, distributed = setting.config, setting.distributed
    if distributed.is_main:
        print(f"{TITLES[init]}, seed {seed}")
    task = build_task(config, setting.protocol, init, seed)
    engine = AccelerateEngine(
        task,
        distributed,
        config.engine,
        optimizer=config.optimizer,
        max_steps=config.trainer.max_steps,
        seed=seed,
    )
    train_loader = _train_loader(setting, task.encoder, seed)
    loaders = {split: _eval_loader(setting, task.encoder, split) for split in SPLITS}
    own = replace(config, init=[init], seeds=[seed])  # so that a seed can be added later
    folder = RunFolder.open(Path(config.out) / "runs" / f"{init}-seed-{seed}", own, distributed, MAY_CHANGE)
    shard_set = setting.shard_set
    folder.keep("data.json", json.dumps(shard_set.identity, indent=1) + "\n", f"other shards than {shard_set.location}")

    def save(folder: Path, state: Mapping[str, Tensor]) -> None:
        save_encoder(task.encoder, folder, state)

    trainer = Trainer(
        engine,
        train_loader,
        folder,
        replace(
            config.trainer,
            best_metric=f"valid/{setting.protocol.select}",
            best_is="lowest" if setting.protocol.select_lowest else "highest",
        ),
        save_encoder=save,
        evaluators=[ScoreEvaluator("valid", engine, loaders["valid"], setting.protocol)],
    )
    if code := trainer.train():
        return code
    best = distributed.on_main(lambda: json.loads((folder.path / "best.json").read_text()))
    checkpoints = Checkpoints(folder.checkpoints, config.trainer.keep_checkpoints, distributed)
    engine.load_state(checkpoints.load(best["step"])[0])
    predicted = {split: predict(engine, loader, setting.protocol.label) for split, loader in loaders.items()}
    return _Outcome(best["step"], best["value"], predicted)


def build_task(config: FinetuneConfig, protocol: Protocol, init: Init, seed: int) -> FinetuneTask:
    """The encoder, pretrained or random, with a fresh head; a function of the config, `init` and `seed`.

    Raises:
        UserError: no encoder there, or a head that does not fit it.
    """
    encoder = load(config.encoder) if init == "pretrained" else untrained(config.encoder, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = config.head.build(encoder, tuple(_inputs(config, encoder)), len(protocol.classes), None)
    return FinetuneTask(encoder, head, protocol.label)


def _inputs(config: FinetuneConfig, encoder: Encoder) -> dict[str, Any]:
    names = config.inputs.split("+") if config.inputs else list(encoder.inputs)
    for name in names:
        if name not in encoder.inputs:
            raise UserError(f"inputs: the encoder takes no {name!r}.{nearest(name, tuple(encoder.inputs))}")
    return {name: encoder.inputs[name] for name in names}


def _train_loader(setting: _Setting, encoder: Encoder, seed: int) -> TrainLoader:
    config, inputs = setting.config, _inputs(setting.config, encoder)
    stream = StreamConfig(
        shards=config.shards,
        features=FeaturesConfig(),
        global_batch=config.global_batch,
        micro_batch=config.micro_batch,
        workers=config.workers,
        text="text" in inputs,
    )
    return TrainLoader(
        setting.shard_set,
        stream,
        vocabulary=Vocabulary(encoder.words) if "text" in inputs else None,
        seed=seed,
        rank=setting.distributed.rank,
        world=setting.distributed.world,
        prepare=setting.protocol.relabel,
        labels={setting.protocol.label: setting.protocol.corpus_classes},
        features=features_of(inputs),
    )


def _eval_loader(setting: _Setting, encoder: Encoder, split: str) -> EvalLoader:
    config, inputs = setting.config, _inputs(setting.config, encoder)
    return EvalLoader(
        setting.shard_set,
        features_of(inputs),
        vocabulary=Vocabulary(encoder.words) if "text" in inputs else None,
        batch_size=config.micro_batch,
        rank=setting.distributed.rank,
        world=setting.distributed.world,
        split=split,
        workers=config.workers,
        prepare=setting.protocol.relabel,
        labels={setting.protocol.label: setting.protocol.corpus_classes},
    )


def _evaluation(setting: _Setting, outcomes: Mapping[str, list[_Outcome]]) -> evaluation.Evaluation:
    config, protocol = setting.config, setting.protocol
    inputs = config.inputs or "+".join(load(config.encoder).inputs)
    splits = {split: found.split for split, found in next(iter(outcomes.values()))[0].predicted.items()}
    systems = baselines(protocol, {"": splits["train"].truth}, splits["test"])
    trivial = len(systems)
    percent = conventions.by_name(protocol.kind)[protocol.select].percent
    for init in sorted(outcomes, reverse=True):  # from scratch first: baselines stand above what they are for
        runs = outcomes[init]
        steps, score = ", ".join(str(one.step) for one in runs), float(np.mean([one.score for one in runs]))
        rows = np.stack([one.predicted["test"].probabilities for one in runs])
        note = f"step {steps} ({protocol.select} {evaluation_report.number(score, percent)})"
        systems.append(
            evaluation.System(
                name=TITLES[init], inputs=inputs, predictions=rows.argmax(axis=-1), probabilities=rows, note=note
            )
        )
    titles = [system.title for system in systems[trivial:]]
    digest = sha256(Path(config.encoder) / "model.safetensors")
    pretrained = compare(Path(config.encoder), setting.shard_set)
    if pretrained.shared:
        LOG.warning("the encoder was pretrained on clips that are scored here: %s", pretrained.told)
    return evaluation.Evaluation(
        title=f"Fine-tuning: {protocol.label}, {protocol.name}",
        protocol=protocol,
        splits=splits,
        split_rule=setting.shard_set.manifest.split,
        systems=systems,
        compared=[(titles[-1], title) for title in titles[:-1]],
        drawn=titles[-1],
        num_resamples=config.num_resamples,
        facts={
            "training": f"encoder and {config.head.name} head together, {config.trainer.max_steps} steps of "
            f"{config.global_batch} clips, {config.optimizer.name}, learning rate {config.optimizer.lr:g}; the step with the best "
            f"{protocol.select} on valid",
            "seeds": ", ".join(map(str, config.seeds)),
            "encoder": f"`{'/'.join(Path(config.encoder).parts[-3:])}`, model SHA-256 `{digest}`; random takes its "
            "architecture only",
            "scored clips in its pretraining": pretrained.told,
            **setting.suits,
        },
    )
