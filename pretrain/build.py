"""From a config to the task: which features, which encoder, which objectives."""

from dataclasses import fields

from pretrain.config import PretrainConfig
from pretrain.objectives.objective import Objective, PretrainTask
from shards.features.config import build as build_features
from shards.features.words import WORDS
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.load import build as build_encoder


def specs(config: PretrainConfig) -> dict[str, FeatureSpec]:
    """Modality -> feature of what the stream delivers."""
    text = {"text": WORDS} if config.stream.text else {}
    return text | {name: feature.spec for name, feature in build_features(config.stream.features).items()}


def build_task(config: PretrainConfig, words: tuple[str, ...]) -> PretrainTask:
    """The encoder with fresh weights (from torch's generator) and its objectives.

    Raises:
        UserError: the parts do not fit each other; the message names the keys.
    """
    encoder = build_encoder(config.encoder, specs(config), words)
    objectives: dict[str, Objective] = {}
    for objective in fields(config.objectives):
        settings = getattr(config.objectives, objective.name)
        if settings is not None:
            try:
                objectives[objective.name] = settings.build(encoder, config.seed)
            except ValueError as error:
                raise UserError(str(error)) from None
    return PretrainTask(encoder, objectives)
