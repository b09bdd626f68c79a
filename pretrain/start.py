"""What a new run starts from: word vectors, and an encoder trained before: domain-adaptive pretraining (Gururangan et
al. 2020).

The encoder's weights are taken over by name. The words may be others: those that both vocabularies have keep their
vectors, whatever their ids, and new ones start as in any fresh run. What the objectives have beside the encoder (the
layer from its sequence to the words, for one) starts fresh, since an encoder's folder does not hold it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.words import glove
from shards.words.words import Vocabulary
from triptych import config as configs
from triptych.config import UserError
from triptych.files import sha256
from triptych.models.encoder import Encoder
from triptych.models.inputs import WordInput, find_word_input
from triptych.models.load import HASHED, load

FREE = ("dropout", "train", "weights")
"""Last names of settings that change no weight's meaning (the last two: whether a text encoder trains, and where a
tower's first weights came from): they may be other ones than those of the encoder that a run starts from."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run began with."""

    sha256: Mapping[str, str]
    """File of the encoder's folder -> its hash."""
    words: int
    """Of the run's vocabulary."""
    known: int
    """Of these words, those that the encoder brought a vector for."""

    def told(self, folder: str) -> str:
        """A line to print."""
        fresh = self.words - self.known
        return f"start_from: {folder}: knows {self.known} of the run's {self.words} words; {fresh} start fresh"


def start_from(folder: str | Path, encoder: Encoder) -> Start:
    """Give an encoder the weights of another one of the same system.

    Args:
        folder: of the other one, as a run exports it.
        encoder: freshly initialised; keeps what it has at words that the other does not know.

    Raises:
        UserError: no encoder there, a damaged file, another system, setting, modality or feature (with both values), or
            none of the words in common.
    """
    folder = Path(folder)
    source = load(folder)
    _check_same(folder, source, encoder)
    there = Vocabulary(source.words)
    pairs = [(here, known) for here, word in enumerate(encoder.words, start=1) if (known := there.id(word))]
    if encoder.words and not pairs and "text" in encoder.inputs:
        raise UserError(f"start_from: {folder} knows none of the run's words; is it of this language?")
    tables = _word_tables(encoder)
    weights, given = encoder.state_dict(), source.state_dict()
    rows_here, rows_there = torch.tensor([(0, 0), *pairs]).unbind(dim=1)  # row 0: any other word
    with torch.no_grad():
        for name, weight in weights.items():
            values = given.get(name)
            if values is None or (weight.shape[1:] if name in tables else weight.shape) != (
                values.shape[1:] if name in tables else values.shape
            ):
                raise UserError(
                    f"start_from: {folder}: {name} is {_shape(values)} there and {_shape(weight)} here, though all "
                    "settings are the same: another version of the code wrote it"
                )
            if name in tables:
                weight[rows_here] = values[rows_there]
            else:
                weight.copy_(values)
    hashes = {name: sha256(folder / name) for name in HASHED}
    return Start(sha256=hashes, words=len(encoder.words), known=len(pairs))


def start_vectors(file: str, encoder: Encoder, counts: Mapping[str, int]) -> str:
    """Give a fresh encoder the word vectors of a file; words without one stay random, with the same spread.

    Args:
        file: see shards.words.glove.load.
        encoder: freshly initialised.
        counts: word -> how often it is said, for what is told.

    Returns:
        How many words have no vector, for the user.

    Raises:
        UserError: a file that cannot be read, has another width, or none of the words.
    """
    words = word_table(encoder)
    loaded = glove.load(Path(file), encoder.words)
    width, given = words.vectors.embedding_dim, loaded.matrix.shape[1]
    if given != width:
        raise UserError(
            f"word_vectors.file: {file} has vectors of {given} numbers, and the encoder's word_width is {width}; set "
            f"that to {given}, or give a file of {width}"
        )
    if not loaded.found.any():
        raise UserError(
            f"word_vectors.file: {file} has none of the {len(encoder.words)} words; is it of this language?"
        )
    words.start(torch.from_numpy(loaded.matrix), torch.from_numpy(loaded.found))
    return f"word vectors of {file}: {loaded.told(counts)}"


def word_table(encoder: Encoder) -> WordInput:
    """What `word_vectors` gives its vectors to.

    Raises:
        UserError: the encoder has none.
    """
    try:
        return find_word_input(encoder)
    except ValueError as error:
        raise UserError(f"word_vectors: {error}; leave word_vectors out") from None


def has_begun(run: Path) -> bool:
    """Whether a run's folder holds a checkpoint, whole or not: its weights are then not those that it started from."""
    return any((run / "checkpoints").glob("step-*"))


def _word_tables(encoder: Encoder) -> set[str]:
    """Names of the weights with a row a word, word `i` of the vocabulary in row `i + 1`."""
    return {f"{name}.vectors.weight" for name, module in encoder.named_modules() if isinstance(module, WordInput)}


def _check_same(folder: Path, source: Encoder, encoder: Encoder) -> None:
    there, here = _settings(source), _settings(encoder)
    for name in {**there, **here}:
        if there.get(name) != here.get(name) and name.rpartition(".")[2] not in FREE:
            raise UserError(
                f"start_from: {folder} has {name}: {there.get(name)}, and this run has {here.get(name)}; its weights "
                "only fit an encoder of the same settings, modalities and features"
            )


def _settings(encoder: Encoder) -> dict[str, Any]:
    features = {f"feature of {modality}": spec.to_json() for modality, spec in encoder.inputs.items()}
    settings = configs.flatten({"encoder": configs.to_dict(encoder.system), **features})
    return {name: value for name, value in settings.items() if value != {}}  # which says as little as none


def _shape(weight: Tensor | None) -> str:
    return "missing" if weight is None else f"{tuple(weight.shape)}"
