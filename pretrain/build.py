"""From a config to the task: which features, which encoder, which objectives."""

from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.objectives.objective import AnyObjective, PretrainTask
from pretrain.start import word_table
from shards.features.config import build as build_features
from shards.features.words import WORDS
from shards.reading.index import ShardSet
from shards.words.words import Vocabulary, read_counts
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.load import build as build_encoder


def specs(config: PretrainConfig) -> dict[str, FeatureSpec]:
    """Modality -> feature of what the stream delivers."""
    text = {"text": WORDS} if config.stream.text else {}
    return text | {name: feature.spec for name, feature in build_features(config.stream.features).items()}


def choose_vocabulary(config: PretrainConfig, shard_set: ShardSet) -> Vocabulary:
    """The words of the run: of `stream.vocabulary`, else the shard set's own.

    Raises:
        UserError: a file is missing or bad, or has none of the words of the training split.
    """
    if config.stream.vocabulary is None:
        return shard_set.vocabulary()
    vocabulary = Vocabulary.load(Path(config.stream.vocabulary))
    counts = shard_set.word_counts()
    if config.stream.text and counts and not any(map(vocabulary.id, counts)):
        raise UserError(
            f"stream.vocabulary: {config.stream.vocabulary} has none of the words of {config.stream.shards}; is it "
            "of this language?"
        )
    return vocabulary


def choose_counts(config: PretrainConfig, shard_set: ShardSet) -> dict[str, int]:
    """Word -> how often it is said, in the order of `choose_vocabulary`: as the file of `stream.vocabulary` counts it,
    else the shard set's training split."""
    file = config.stream.vocabulary
    return shard_set.word_counts() if file is None else read_counts(Path(file))


def build_task(config: PretrainConfig, words: tuple[str, ...]) -> PretrainTask:
    """The encoder with fresh weights (from torch's generator) and its objectives.

    Raises:
        UserError: the parts do not fit each other; the message names the keys.
    """
    encoder = build_encoder(config.encoder, specs(config), words)
    objectives: dict[str, AnyObjective] = {}
    for name, settings in config.objectives.given.items():
        try:
            objectives[name] = settings.build(encoder, config.seed)
        except ValueError as error:
            raise UserError(str(error)) from None
    if config.word_vectors is not None:
        word_table(encoder).vectors.requires_grad_(config.word_vectors.train)
    return PretrainTask(encoder, objectives)
