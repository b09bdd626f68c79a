"""One pretraining run, from its config to an exported encoder."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from pretrain.build import build_task, choose_counts, choose_vocabulary
from pretrain.check import check
from pretrain.config import ObjectivesConfig, PretrainConfig
from pretrain.objectives.objective import HeldOut, PretrainTask
from pretrain.start import Start, has_begun, start_from, start_vectors
from shards.features.config import build as build_features
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader, TrainLoader
from shards.words.words import Vocabulary
from triptych import provenance
from triptych.config import to_dict
from triptych.files import sha256_of, write_atomically
from triptych.models.encoder import Encoder
from triptych.models.load import save_encoder
from triptych.models.saved import TEXT, SavedModels
from triptych.training import distributed as processes
from triptych.training.checkpoint import Checkpoints
from triptych.training.distributed import Distributed
from triptych.training.engine_deepspeed import DeepSpeedEngine
from triptych.training.run import LABELS_USED, RunFolder
from triptych.training.task import Evaluator
from triptych.training.trainer import Trainer, TrainerConfig

MAY_CHANGE = (
    "runs",
    "stream.shards",
    "stream.cache",
    "stream.workers",
    "stream.micro_batch",
    "word_vectors.file",  # what it gave is in the checkpoint
)
"""Of the config, at a later start: the same clips in another place, shared out in another way. What objectives may have
otherwise they say themselves."""


def pretrain(config: PretrainConfig) -> int:
    """Train, or continue what the run's folder holds; every process of the launcher calls it.

    Returns:
        Exit code: 0 when the run is finished, triptych.training.trainer.EXIT_REQUEUE when it was asked to stop and
        saved itself.

    Raises:
        UserError: a config, a shard set or a run folder that does not fit, or a loss that is not finite.
    """
    if config.check:  # trains nothing, and needs no other rank: also in a shell of salloc
        launch = processes.announced(os.environ)
        if launch.rank == 0:
            check(config, launch.world)
        return 0
    distributed = processes.init()
    try:
        return _run(config, distributed)
    finally:
        distributed.shutdown()


def _run(config: PretrainConfig, distributed: Distributed) -> int:
    shard_set = ShardSet(config.stream.shards, config.stream.cache)
    vocabulary = choose_vocabulary(config, shard_set)
    distributed.agree(
        {
            "shard set (manifest)": sha256_of(shard_set.manifest.to_json()),
            "vocabulary": sha256_of(vocabulary.words),
            "config": sha256_of(to_dict(config)),
            "version of the code": f"{provenance.version()} {provenance.commit()}",
        }
    )
    torch.manual_seed(config.seed)
    task = build_task(config, vocabulary.words)
    assert isinstance(task.encoder, Encoder)
    loader = TrainLoader(
        shard_set,
        config.stream,
        vocabulary=vocabulary,
        seed=config.seed,
        rank=distributed.rank,
        world=distributed.world,
        prepare=task.prepare,
        labels=task.labels,
    )
    held_out = {split: _held_out(config, split, shard_set, vocabulary, task, distributed) for split in _splits(config)}
    _tell(distributed.on_main(lambda: task.check_data(shard_set)), distributed)
    folder = Path(config.runs) / config.name
    start = _start(config, task, folder, choose_counts(config, shard_set), distributed)
    run = RunFolder.open(folder, config, distributed, (*MAY_CHANGE, *_may_change(config.objectives)))
    _keep(run, config, task, start, shard_set)
    engine = DeepSpeedEngine(
        task,
        distributed,
        config.engine,
        optimizer=config.optimizer,
        num_micro_batches=loader.num_micro_batches,
        max_steps=config.trainer.max_steps,
        seed=config.seed,
    )
    export = partial(save_encoder, task.encoder)
    evaluators = {
        split: task.evaluators(HeldOut(split, engine, clips, config.evaluation)) for split, clips in held_out.items()
    }
    code = Trainer(engine, loader, run, config.trainer, save_encoder=export, evaluators=evaluators["valid"]).train()
    # Rank 0 looks, as a network file system may show the others an older folder.
    if code == 0 and config.evaluation.test and not distributed.on_main((run.path / "test.json").exists):
        _test(run, engine, evaluators["test"], held_out["test"].num_samples, config.trainer)
    return code


def _may_change(objectives: ObjectivesConfig) -> list[str]:
    return [f"objectives.{name}.{field}" for name, given in objectives.given.items() for field in given.may_change]


def _keep(run: RunFolder, config: PretrainConfig, task: PretrainTask, start: Start | None, shard_set: ShardSet) -> None:
    """What the run depends on beside its config: with other words each id would mean another word, with other clips
    each position another clip, unnoticed.

    Raises:
        UserError: it goes on with something else than it began with.
    """
    assert isinstance(task.encoder, Encoder)
    words = "".join(f"{word}\n" for word in task.encoder.words)
    run.keep("vocabulary.txt", words, "other words than its vocabulary has")
    run.keep("data.json", json.dumps(shard_set.identity, indent=1) + "\n", f"other shards than {shard_set.location}")
    labels = [label for objective in config.objectives.given.values() for label in objective.labels_used()]
    run.keep(LABELS_USED, json.dumps(labels, indent=1) + "\n", "other labels")
    if start is not None:
        run.keep("start.json", json.dumps(asdict(start), indent=1) + "\n", "another encoder in start_from")
    if task.identity:
        run.keep("objectives.json", json.dumps(task.identity, indent=1) + "\n", "other labels in the objectives' files")
    for name, content in SavedModels.within(task).files.items():
        setting = "tokenizer in text_encoder.model" if name == TEXT else "settings of it in audio.encoder.model"
        run.keep(name, content, f"another model or {setting}")


def _start(
    config: PretrainConfig, task: PretrainTask, folder: Path, counts: Mapping[str, int], distributed: Distributed
) -> Start | None:
    """Take over word vectors and the weights of `start_from`, or those that were published for parts of the encoder,
    and let the objectives begin; a run that has a checkpoint no longer needs any of it."""
    if distributed.on_main(lambda: has_begun(folder)):
        return None
    encoder, start = task.encoder, None
    assert isinstance(encoder, Encoder)
    if config.word_vectors is not None:
        _tell([start_vectors(config.word_vectors.file, encoder, counts)], distributed)
    if config.start_from is None:
        encoder.start()
    else:
        start = start_from(config.start_from, encoder)
        _tell([start.told(config.start_from)], distributed)
    task.start(counts)
    return start


def _tell(lines: Iterable[str], distributed: Distributed) -> None:
    if distributed.is_main:
        for line in lines:
            print(line, file=sys.stderr)


def _splits(config: PretrainConfig) -> list[str]:
    return ["valid", "test"] if config.evaluation.test else ["valid"]


def _held_out(
    config: PretrainConfig,
    split: str,
    shard_set: ShardSet,
    vocabulary: Vocabulary,
    task: PretrainTask,
    distributed: Distributed,
) -> EvalLoader:
    return EvalLoader(
        shard_set,
        build_features(config.stream.features),
        vocabulary=vocabulary if config.stream.text else None,
        batch_size=config.evaluation.batch,
        rank=distributed.rank,
        world=distributed.world,
        split=split,
        workers=config.stream.workers,
        prepare=task.prepare,
        labels=task.labels,
        max_damaged_share=config.stream.max_damaged_share,
    )


def _test(
    run: RunFolder, engine: DeepSpeedEngine, evaluators: Sequence[Evaluator], num_clips: int, trainer: TrainerConfig
) -> None:
    """Measure the exported checkpoint on the test split, once: test.json is written and not written again."""
    best = run.path / "best.json"  # only where a metric chooses, as in the trainer's export
    step = run.distributed.on_main(
        lambda: int(json.loads(best.read_text())["step"]) if best.exists() else trainer.max_steps
    )
    files, _ = Checkpoints(run.checkpoints, trainer.keep_checkpoints, run.distributed).load(step)
    engine.load_state(files)
    figures: dict[str, float] = {"step": step, "clips": num_clips}
    for evaluator in evaluators:
        figures |= evaluator.evaluate(step)
    run.distributed.on_main(lambda: write_atomically(run.path / "test.json", json.dumps(figures, indent=1) + "\n"))
