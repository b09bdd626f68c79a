"""`check=true`: what a run would need, found out on a laptop before a cluster is asked for it."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from pretrain.build import build_task, choose_counts, choose_vocabulary, specs
from pretrain.config import PretrainConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.start import start_from, start_vectors
from shards.reading import plan
from shards.reading.index import ShardSet
from shards.words.words import Vocabulary
from triptych.batch import fake_batch
from triptych.models.encoder import Encoder
from triptych.models.linear import flop_formulas
from triptych.training.compare import compare, pull_back
from triptych.training.distributed import alone
from triptych.training.optim import MOMENTS

FAKE_WORDS = tuple(f"word{index}" for index in range(1000))
SAMPLE_CLIPS, SAMPLE_WORDS = 2, 26
"""Made-up clips of 7.8 s, the mean of VoxCeleb2; figures of a micro-batch are scaled up from them."""


def check(config: PretrainConfig, world: int) -> dict[str, float]:
    """Build the run, do a forward and backward pass of two made-up clips, print and return the figures.

    Args:
        config: of the run; its shards may be missing here, then the vocabulary is made up.
        world: ranks that the run is to have.

    Raises:
        UserError: what the run itself would be refused for.
    """
    torch.manual_seed(config.seed)
    stream, steps = config.stream, config.trainer.max_steps
    there = "://" in stream.shards or Path(stream.shards, "manifest.json").exists()
    shard_set = ShardSet(stream.shards, stream.cache) if there else None
    if shard_set is not None:
        words = choose_vocabulary(config, shard_set).words
    else:
        words = FAKE_WORDS if stream.vocabulary is None else Vocabulary.load(Path(stream.vocabulary)).words
    task = build_task(config, words)
    told = None
    if shard_set is not None and config.word_vectors is not None and Path(config.word_vectors.file).exists():
        assert isinstance(task.encoder, Encoder)
        told = start_vectors(config.word_vectors.file, task.encoder, choose_counts(config, shard_set))
    if config.start_from is not None and words is not FAKE_WORDS:
        assert isinstance(task.encoder, Encoder)
        print(start_from(config.start_from, task.encoder).told(config.start_from))
    activations, flops = _trial(task, config, len(words))
    parameters = sum(p.numel() for p in task.parameters())
    figures = {
        "parameters": parameters,
        "encoder_parameters": sum(p.numel() for p in task.encoder.parameters()),
        "micro_batches": plan.num_micro_batches(stream.global_batch, stream.micro_batch, world),
        "state_gib": _state_bytes(parameters, len(MOMENTS[config.optimizer.name]), config.engine.zero_stage, world)
        / 2**30,
        "activations_gib": activations / SAMPLE_CLIPS * stream.micro_batch / 2**30,
        "petaflop_run": flops / SAMPLE_CLIPS * stream.global_batch * steps / 1e15,
    }
    if shard_set is not None:
        clips = len(shard_set.split("train"))
        plan.check_fits(clips, stream.global_batch, "train")
        for line in task.check_data(shard_set):
            print(line)
        figures |= {"clips": clips, "epochs": steps * stream.global_batch / clips}
    _print(config, figures, world, words is FAKE_WORDS, told)
    return figures


def _trial(task: PretrainTask, config: PretrainConfig, num_words: int) -> tuple[int, int]:
    """Bytes that a forward pass of SAMPLE_CLIPS made-up clips keeps for the backward pass, and FLOPs of both."""
    clips = fake_batch(specs(config), num_clips=SAMPLE_CLIPS, num_words=SAMPLE_WORDS, vocabulary_size=num_words)
    batch = task.prepare(clips)
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    flops = FlopCounterMode(display=False, custom_mapping=flop_formulas())
    with flops, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedded, output = task.embed(batch), task(batch)
        losses = [total.sum / max(1, total.count) for total in output.losses.values()]
        if embedded:  # the comparison itself, which grows with the global batch, is little beside the towers
            compared = compare(task, [embedded], dict.fromkeys(embedded, 1.0), alone(torch.device("cpu")))
            losses.append(pull_back(embedded, compared.gradients[0]))
        torch.stack(losses).sum().backward()
    weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
    return sum(size for place, size in saved.items() if place not in weights), flops.get_total_flops()


def _state_bytes(parameters: int, moments: int, stage: int, world: int) -> float:
    """Weights, gradients, the optimizer's moments and the working copy: with AdamW's two 16 bytes a parameter
    (Rajbhandari et al. 2020, section 3.1), of which ZeRO shares out 12 (stage 1), 14 (stage 2) or all 16 (stage 3)."""
    optimizer = 4 + 4 * moments
    shared = {0: 0, 1: optimizer, 2: optimizer + 2, 3: optimizer + 4}[stage]
    return parameters * (optimizer + 4 - shared + shared / world)


def _print(config: PretrainConfig, figures: dict[str, float], world: int, made_up: bool, told: str | None) -> None:
    table = Table(title=f"{config.name}: checked, nothing trained", show_header=False)
    hours = figures["petaflop_run"] * 10 / 3600 / world
    rows = {
        "parameters": f"{figures['parameters']:,} ({figures['encoder_parameters']:,} in the encoder)",
        "optimizer steps": f"{config.trainer.max_steps:,} of {config.stream.global_batch:,} clips",
        "epochs": f"{figures['epochs']:.1f} over {figures['clips']:,} clips"
        if "epochs" in figures
        else "no shards here",
        "ranks": f"{world}, each {figures['micro_batches']} micro-batches a step",
        "memory a rank": f"{figures['state_gib']:.2f} GiB of weights and optimizer "
        f"(ZeRO stage {config.engine.zero_stage}) + about {figures['activations_gib']:.2f} GiB of activations "
        "for clips of 7.8 s",
        "arithmetic": f"{figures['petaflop_run']:.2f} PFLOP, or {hours:.2f} hours a rank at 100 TFLOP/s",
    }
    if made_up:
        rows["vocabulary"] = f"made up ({len(FAKE_WORDS)} words): {config.stream.shards} is not here"
    if config.word_vectors is not None:
        rows["word vectors"] = told or f"not looked at: {config.word_vectors.file} or the shards are not here"
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
