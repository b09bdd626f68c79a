"""What a linear probe is told."""

from dataclasses import dataclass, field
from pathlib import Path

from linear_probe.heads.config import HeadsConfig, Logistic
from shards.reading.cache import CacheConfig
from triptych.config import UserError


@dataclass(frozen=True, kw_only=True)
class ScoredConfig:
    """What is scored: whose clips, which labels, how they are divided."""

    shards: str
    """Shard set with labels; a folder or a URL."""
    protocol: str
    """Name in triptych.protocols.registry."""
    classes: list[str] = field(default_factory=list)
    """Some of the protocol's classes; none listed means all."""
    split: str = ""
    """Empty: as the shard set is divided. A rule of the protocol, as leave_one_actor_out: all its folds, whose held-out
    clips are scored together. RULE/3: the third."""
    listed: str = ""
    """File of keys, one a line, for a rule that takes its validation clips from a list of yours."""


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig:
    """Rows that every claim is read against."""

    untrained: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of the same architecture with fresh weights; none listed leaves the row out."""
    input_means: bool = True
    """Time means of the sound and picture features and word counts, without any encoder."""
    handcrafted: bool = False
    """Mean and standard deviation over time of every band of the sound (and value of the picture), and word counts."""
    random_labels: int = 20
    """How often the labels to learn from and to choose by are shuffled, for the first encoder once more: at chance in
    the mean, or something is wrong with the evaluation. Single shuffles scatter widely, since clips of a class look
    alike. 0 leaves the row out."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """`python -m linear_probe CONFIG encoder=runs/<name>/encoder shards=<folder> out=<folder>`."""

    encoder: str = ""
    """Frozen encoder; its row is called `pretrained`. A folder of ours, a YAML file that describes another model, or
    the name of one in configs/encoder/."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Instead of `encoder`: name of the row -> encoder, to compare several."""
    shards: str = ""
    """See ScoredConfig, as the next four."""
    protocol: str = ""
    classes: list[str] = field(default_factory=list)
    split: str = ""
    listed: str = ""
    on: dict[str, ScoredConfig] = field(default_factory=dict)
    """Instead of `shards` and `protocol`: name -> what is scored; several give a matrix of encoders and corpora."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""
    out: str = ""
    """Folder of the report; created, and refused where it holds something."""
    features: str = ""
    """Folder in which extracted features are kept, for the next probe of the same encoder and clips."""
    inputs: list[str] = field(default_factory=list)
    """Modalities that are shown, one table row each, such as [text+audio+video, audio]; none listed means one row with
    all that the encoder takes."""
    outputs: list[str] = field(default_factory=list)
    """Of the encoder (text, audio, video, fused), side by side; none listed means all that a row's inputs give."""
    layers: list[str] = field(default_factory=lambda: ["pooled"])
    """What a head may see, chosen on valid. pooled: the encoder's own pooled vectors. -1: its towers' last layers, -2
    those before, and so on; all: each of them. stack: a learned weighted sum of a tower's layers, for rows of one
    modality and trained heads."""
    pooling: list[str] = field(default_factory=lambda: ["mean"])
    """Of a layer's steps: mean, first (a CLS)."""
    heads: HeadsConfig = field(default_factory=lambda: HeadsConfig(logistic=Logistic()))
    """What is fitted: every head, with every setting of its grid, on every layer; one is chosen on valid."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Of trained heads, which are as many runs of a row; logistic and ridge have no chance in them."""
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    missing: bool = True
    """Score the chosen heads again with modalities removed at test time."""
    label_shares: list[float] = field(default_factory=list)
    """Shares of the training labels for a learning curve, as [0.01, 0.1, 1]."""
    predictions: list[str] = field(default_factory=list)
    """predictions.csv of other systems about the same clips, as finetune writes them: rows of the same table."""
    num_resamples: int = 1000
    """Of the bootstrap intervals."""
    micro_batch: int = 16
    """Clips encoded at a time; changes memory and speed, not the numbers."""
    workers: int = 0
    """Processes that read and decode clips; 0 reads in this one."""
    watch: str = ""
    """A run's folder: probe each checkpoint as it appears, on valid alone, and log to the run's TensorBoard."""

    def __post_init__(self) -> None:
        for name in ("num_resamples", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: 1 or more is wanted, given: {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"workers: 0 or more is wanted, given: {self.workers}")
        if self.baselines.random_labels < 0:
            raise ValueError(f"baselines.random_labels: 0 or more is wanted, given: {self.baselines.random_labels}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one or more different ones are wanted, given: {self.seeds}")
        for layer in self.layers:
            if layer not in ("pooled", "stack", "all") and not (layer.startswith("-") and layer[1:].isdecimal()):
                raise ValueError(f"layers: {layer!r}; there are pooled, all, stack, and -1, -2, ... from the last back")
        for pooling in self.pooling:
            if pooling not in ("mean", "first"):
                raise ValueError(f"pooling: {pooling!r}; there are mean and first")
        for share in self.label_shares:
            if not 0 < share <= 1:
                raise ValueError(f"label_shares: {share}; expected shares above 0, to 1")

    def named_encoders(self) -> dict[str, str]:
        """Name of the row -> encoder.

        Raises:
            UserError: neither or both of `encoder` and `encoders` are given.
        """
        if bool(self.encoder) == bool(self.encoders):
            raise UserError("give either encoder=<folder> or encoders: {name: folder, ...}")
        return dict(self.encoders) or {"pretrained": self.encoder}

    def scored(self) -> dict[str, ScoredConfig]:
        """Name -> what is scored; the name is empty where there is one.

        Raises:
            UserError: neither or both of `shards` and `on` are given.
        """
        if bool(self.shards) == bool(self.on):
            raise UserError(
                "give either shards=<folder> and protocol=<name>, or on: {name: {shards: ..., protocol: ...}}"
            )
        if self.on:
            return dict(self.on)
        if not self.protocol:
            raise UserError("give protocol=<name>, the benchmark whose labels are predicted")
        own = {name: getattr(self, name) for name in ("shards", "protocol", "classes", "split", "listed")}
        return {"": ScoredConfig(**own)}

    def folder(self) -> Path:
        """Of the report.

        Raises:
            UserError: none is given.
        """
        if not self.out:
            raise UserError("give out=<folder>, a new folder for the report")
        return Path(self.out)
