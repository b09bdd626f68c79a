"""Everything that a pretraining run is told."""

from dataclasses import dataclass, field, fields

from pretrain.objectives.contrastive import ContrastiveConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import ObjectiveConfig
from pretrain.objectives.reconstruction import ReconstructionConfig
from pretrain.objectives.weak_labels import WeakLabelsConfig
from shards.reading.read import StreamConfig
from triptych.models.load import SystemConfig
from triptych.training.engine_deepspeed import EngineConfig
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Which objectives train the encoder, alone or together; a new one is its file and a line here."""

    masked_lm: MaskedLMConfig | None = None
    contrastive: ContrastiveConfig | None = None
    weak_labels: WeakLabelsConfig | None = None
    reconstruction: ReconstructionConfig | None = None

    def __post_init__(self) -> None:
        if not self.given:
            raise ValueError(f"objectives: give at least one of {', '.join(f.name for f in fields(self))}")

    @property
    def given(self) -> dict[str, ObjectiveConfig]:
        """Name -> config, of those that train."""
        return {f.name: given for f in fields(self) if (given := getattr(self, f.name)) is not None}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on clips that are not trained on."""

    batch: int = 64
    """Clips of a forward pass on each rank."""
    gallery: int = 100
    """Clips that are compared with each other, of objectives that compare: among them the contrastive one is to find
    each clip's other panels, its own and so many less one."""
    test: bool = False
    """Measure the best checkpoint on the test split, once, when the run ends."""

    def __post_init__(self) -> None:
        if self.gallery < 2:
            raise ValueError(f"evaluation.gallery: {self.gallery}; expected 2 or more")


@dataclass(frozen=True, kw_only=True)
class WordVectorsConfig:
    """Word vectors that the text's input starts from, as GloVe's 300-dimensional ones in Khare et al. 2021."""

    file: str
    """In GloVe's text format, also as .gz or in a .zip (shards.words.glove.load); read where a run begins, not where it
    goes on. Words without a vector start as random ones of the same spread, those that the encoder of `start_from`
    knows with its vectors."""
    train: bool = False
    """Train them; else they stay as they are, the random ones too."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run."""

    name: str
    """The run's folder below `runs`."""
    runs: str = "runs"
    seed: int = 0
    """Of weights, order of clips, masks and dropout."""
    stream: StreamConfig
    encoder: SystemConfig
    word_vectors: WordVectorsConfig | None = None
    """None: word vectors start at random and are trained."""
    objectives: ObjectivesConfig
    start_from: str | None = None
    """Folder of an encoder (a run's encoder/) that was trained before, on any corpus: this run, a new one, begins with
    its weights, see pretrain.start. To continue an interrupted run give the same command again instead."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    check: bool = False
    """Train nothing: build everything, run one step on made-up clips and print sizes, steps and memory."""

    def __post_init__(self) -> None:
        for objective in self.objectives.given.values():
            objective.check(self)
        if self.encoder.autoencoder is not None and self.word_vectors is not None and self.word_vectors.train:
            raise ValueError(
                "word_vectors.train: encoder.autoencoder reconstructs the vectors, and trained ones would become "
                "whatever is easy to reconstruct; leave it false"
            )
