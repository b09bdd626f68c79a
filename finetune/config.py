"""What a fine-tuning is told."""

import re
from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from finetune.engine import EngineConfig
from finetune.heads.config import HeadConfig
from finetune.trained_weights import EncoderTraining
from shards.reading.cache import CacheConfig
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

Init = Literal["pretrained", "random", "frozen"]

ORDER: tuple[Init, ...] = ("random", "frozen", "pretrained")
"""Of rows: baselines stand above what they are for."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """`python -m finetune CONFIG encoder=runs/<name>/encoder shards=<folder> out=<folder>`."""

    encoder: str = MISSING
    """Folder of an encoder, a YAML file that describes somebody else's model, or a name of configs/encoder/."""
    shards: str = MISSING
    """Shard set with labels; a folder or a URL."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""
    out: str = MISSING
    """Folder of the report, with a run folder for each row and seed. The same command resumes what was interrupted."""
    protocol: str = "ravdess"
    """Name in triptych.protocols.registry."""
    classes: list[str] = field(default_factory=list)
    """Some of the protocol's classes; none listed means all."""
    split: str = ""
    """Empty: as the shard set is divided. A rule of the protocol, as leave_one_actor_out: all its folds, whose held-out
    clips are scored together. RULE/3: the third."""
    listed: str = ""
    """File of keys, one a line, for a rule that takes its validation clips from a list of yours."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """What stands on the encoder, and trains with it."""
    inputs: str = ""
    """Modalities that are shown, such as audio+video; empty means all that the encoder takes."""
    init: list[Init] = field(default_factory=lambda: ["pretrained"])
    """Rows of the table. pretrained: the encoder trains on from its weights. random: the same architecture from
    scratch. frozen: the encoder keeps its weights, and the head alone trains."""
    freeze: Literal["none", "hub", "towers", "all"] = "none"
    """Of a row that starts from weights: what keeps them, without dropout. hub: models of transformers, torchvision and
    timm inside the encoder. towers: what sees one modality each."""
    unfreeze_every: int = 0
    """Steps: of what `freeze` froze, the last layers train from this step on, those below from twice this, and so on; 0
    keeps them frozen."""
    encoder_lr_scale: float = 1.0
    """Learning rate of the encoder's last layers over that of the head; not of rows from scratch."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer of the encoder to the one below; not of rows from scratch."""
    loss: Literal["", "cross_entropy", "two_way", "bce", "l1", "mse", "ccc"] = ""
    """Empty: that of the protocol's kind, see finetune/losses.py."""
    balanced: bool = False
    """Whether all classes weigh the same in the loss, and positives and negatives of every emotion."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """One run each: initial weights of the head (and of a random encoder), order of clips, dropout."""
    best_of: int = 0
    """Beside the mean over all seeds, a row of those that valid chooses, one of every so many seeds; 0 has none."""
    missing: bool = True
    """Score the last row's runs again with modalities removed at test time."""
    transcripts: dict[str, str] = field(default_factory=dict)
    """Name -> other words of the same clips, as {asr: data/mosei_asr}: a folder of `python -m shards transcribe`, other
    files of transcripts (shards/transcripts/attach.py), or a shard set, of which the words alone are read. Every row's
    runs are tested on these words too, as they were trained."""
    label_shares: list[float] = field(default_factory=list)
    """Shares of the training labels for a learning curve, as [0.05, 0.2, 1]; each smaller one trains all runs again,
    in steps of no more clips than it has."""
    global_batch: int = 32
    """Clips of an optimizer step, over all ranks."""
    micro_batch: int = 16
    """Most clips of one forward pass; a larger global batch is accumulated."""
    workers: int = 0
    """Loader processes a rank."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    trainer: TrainerConfig
    """`trainer.patience` stops a run when valid gets no better."""
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
        for name in self.transcripts:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"transcripts: {name!r} names files; expected letters, digits, - and _ alone")
        for share in self.label_shares:
            if not 0 < share <= 1:
                raise ValueError(f"label_shares: {share}; expected shares above 0, to 1")
        if self.best_of and (self.best_of < 2 or len(self.seeds) % self.best_of):
            raise ValueError(f"best_of: {len(self.seeds)} seeds are no multiple of {self.best_of}, or it is below 2")
        shared_out = self.engine.deepspeed is not None and self.engine.deepspeed.zero_stage > 0
        if self.unfreeze_every and shared_out:
            raise ValueError(
                "unfreeze_every: ZeRO updates all weights at every step, so none can join later; set "
                "engine.deepspeed.zero_stage=0, or leave engine.deepspeed or unfreeze_every out"
            )
        if self.encoder_training("pretrained").is_frozen and {"pretrained", "frozen"} <= set(self.init):
            raise ValueError("init: with freeze=all, pretrained and frozen are the same row; leave one out")

    def encoder_training(self, init: Init) -> EncoderTraining:
        """How the encoder trains in a row."""
        if init == "random":
            return EncoderTraining()
        if init == "frozen":
            return EncoderTraining(freeze="all")
        return EncoderTraining(
            freeze=self.freeze,
            unfreeze_every=self.unfreeze_every,
            encoder_lr_scale=self.encoder_lr_scale,
            layer_decay=self.layer_decay,
        )

    @property
    def rows(self) -> list[Init]:
        """`init` in the order of the table."""
        return sorted(self.init, key=ORDER.index)

    @property
    def last_row(self) -> Init:
        """The row that the report is about."""
        return self.rows[-1]

    def title(self, init: Init) -> str:
        """Of a row."""
        if init == "random":
            return "from scratch"
        return "frozen" if self.encoder_training(init).is_frozen else "fine-tuned"
