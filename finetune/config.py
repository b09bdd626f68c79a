"""What a fine-tuning is told."""

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from finetune.heads.config import HeadConfig
from shards.cache import CacheConfig
from triptych.engine_accelerate import AccelerateConfig
from triptych.optim import OptimizerConfig
from triptych.trainer import TrainerConfig

Init = Literal["pretrained", "random"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """`python -m finetune CONFIG encoder=runs/<name>/encoder shards=<folder> out=<folder>`."""

    encoder: str = MISSING
    """Folder of an encoder: its weights, or for `random` its architecture only."""
    shards: str = MISSING
    """Shard set with labels, split into train, valid and test; a folder or a URL."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""
    out: str = MISSING
    """Folder of the report, with a run folder for each row and seed. The same command resumes what was interrupted."""
    protocol: str = "ravdess"
    """Name in triptych.protocols.registry."""
    classes: list[str] = field(default_factory=list)
    """Some of the protocol's classes; none listed means all."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """What stands on the encoder, and trains with it."""
    inputs: str = ""
    """Modalities that are shown, such as audio+video; empty means all that the encoder takes."""
    init: list[Init] = field(default_factory=lambda: ["pretrained"])
    """Initial weights of the encoder, one table row each; random is training from scratch."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """One run each: initial weights of the head (and of a random encoder), order of clips, dropout."""
    global_batch: int = 32
    """Clips of an optimizer step, over all ranks."""
    micro_batch: int = 16
    """Most clips of one forward pass."""
    workers: int = 0
    """Loader processes a rank."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: AccelerateConfig = field(default_factory=AccelerateConfig)
    trainer: TrainerConfig
    num_resamples: int = 1000
    """Of the bootstrap intervals."""

    def __post_init__(self) -> None:
        for name in ("init", "seeds"):
            given = getattr(self, name)
            if not given or len(set(given)) != len(given):
                raise ValueError(f"{name}: one or more different ones are wanted, given: {given}")
        if self.trainer.best_metric is not None:
            raise ValueError("trainer.best_metric: the protocol's metric on valid chooses; leave it out")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples: 1 or more is wanted, given: {self.num_resamples}")
