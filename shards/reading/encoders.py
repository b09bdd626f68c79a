"""Which encoder is meant: the folder of one that was pretrained here, or a config of models that others published.

A config names the towers and the features that they read:

    system:
      pairwise:
        width: 0                                           # nothing behind the published weights
        audio: {encoder: {model: facebook/wav2vec2-base}}  # or text, video, several
    features:
      audio: {waveform: {}}

It is given as a file, or as the name of one in configs/encoder/. With `text: {encoder: {model: ..., unit: piece}}` the
text is read as it is written, by the model's own tokenizer; else with the vocabulary of the shard set, and a word that
its training split does not have is the model's unknown piece.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from shards.features.config import FeaturesConfig
from shards.features.config import build as build_features
from shards.features.words import PIECES, WORDS
from shards.reading.index import ShardSet
from shards.words.words import AnyVocabulary, PieceVocabulary, Vocabulary
from triptych import config as configs
from triptych.config import UserError, nearest
from triptych.modalities import FeatureSpec, reads_words
from triptych.models.encoder import Encoder
from triptych.models.load import SystemConfig, build, load
from triptych.models.saved import SavedModels


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A file of configs/encoder/."""

    system: SystemConfig
    """`pairwise` with `width: 0`."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """What the towers of sound and picture read; text needs none."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A frozen encoder, and what tells it from all others."""

    encoder: Encoder
    """In evaluation mode, on the CPU."""
    folder: Path | None = None
    """Where it lay; None of a config."""

    @property
    def is_stored(self) -> bool:
        """Whether it has no weights, and reads what another's towers said; see `shards.writing.add_sequences`."""
        return all(spec.encoder is not None for spec in self.encoder.inputs.values())

    @cached_property
    def sha256(self) -> str:
        """Of all weights, by name, as they are in memory; those of the other one where the towers are stored."""
        if self.is_stored:
            return "+".join(sorted({str(spec.encoder) for spec in self.encoder.inputs.values()}))
        digest = hashlib.sha256()
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def architecture(self) -> str:
        """Equal of two encoders that differ in their weights alone."""
        return json.dumps(self._description, sort_keys=True)

    @property
    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, as JSON types."""
        return {**self._description, "weights": self.sha256}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def untrained(self, seed: int) -> Encoder:
        """The same architecture with fresh weights, in evaluation mode.

        Raises:
            UserError: it has none.
        """
        encoder = self.encoder
        if self.is_stored:
            raise UserError(
                f"{self.folder}: has no weights that could be fresh, for its towers are stored; leave the rows from "
                "scratch and untrained out, or give the encoder that wrote them"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(encoder.system, encoder.inputs, encoder.words, SavedModels.within(encoder)).eval()

    def untrained_identity(self, seed: int) -> dict[str, Any]:
        """As `identity`, of `untrained`: fresh weights depend on torch's version too."""
        return {**self._description, "weights": f"untrained, seed {seed}, torch {torch.__version__}"}

    @property
    def _description(self) -> dict[str, Any]:
        encoder = self.encoder
        texts = {"words": "\n".join(encoder.words), **SavedModels.within(encoder).files}
        return {
            "system": configs.to_dict(encoder.system),
            "inputs": {modality: spec.to_json() for modality, spec in encoder.inputs.items()},
            **{name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        }


def open_encoder(given: str, shard_set: ShardSet) -> Opened:
    """The encoder that a user means.

    Args:
        given: a folder with config.json (a run's, a checkpoint's or a release's `encoder/`), a YAML file, or the name
            of a shipped one.
        shard_set: the clips that it will read; of a config whose text tower reads words its vocabulary is taken.

    Raises:
        UserError: nothing of the kind is there; a damaged or unfitting encoder; weights that cannot be had.
    """
    folder = Path(given)
    if (folder / "config.json").is_file():
        return Opened(encoder=load(folder), folder=folder)
    shipped = {file.stem: file for file in sorted((configs.config_folder() / "encoder").glob("*.yaml"))}
    file = folder if folder.is_file() else shipped.get(given)
    if file is None:
        raise UserError(
            f"{given}: no encoder: neither a folder with config.json (a run's encoder/), nor a YAML file, nor the name "
            f"of a shipped one.{nearest(given, shipped)}"
        )
    config = configs.load(EncoderConfig, file)
    inputs = _inputs(config, file)
    try:
        encoder = build(config.system, inputs, shard_set.vocabulary().words if inputs.get("text") == WORDS else ())
        encoder.start()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return Opened(encoder=encoder.eval())


def _inputs(config: EncoderConfig, file: Path) -> Mapping[str, FeatureSpec]:
    """Modality -> feature of its tower, where everything in the config has its use."""
    towers = config.system.pairwise
    if towers is None or towers.width:
        raise UserError(
            f"{file}: system: an encoder of published weights is `pairwise` with `width: 0`; anything else has weights "
            "that nobody trained. Pretrain it, and give its run's encoder/"
        )
    features = {modality: feature.spec for modality, feature in build_features(config.features).items()}
    if unused := [modality for modality in features if getattr(towers, modality) is None]:
        raise UserError(f"{file}: features: {', '.join(unused)} has no tower in system.pairwise that would read it")
    if towers.text is None:
        return features
    of_pieces = towers.text.encoder is not None and towers.text.encoder.unit == "piece"
    return {"text": PIECES if of_pieces else WORDS, **features}


def vocabulary_of(encoder: Encoder, inputs: Mapping[str, FeatureSpec]) -> AnyVocabulary | None:
    """What gives words, or their pieces, the ids that an encoder knows; None where it reads no text.

    Args:
        encoder: whose ids are meant.
        inputs: those of its inputs that are read.
    """
    if not reads_words(inputs):
        return None
    if not inputs["text"].is_pieces:
        return Vocabulary(encoder.words)
    model = SavedModels.within(encoder).text
    assert model is not None
    assert model.tokenizer is not None
    return PieceVocabulary(model.tokenizer)
