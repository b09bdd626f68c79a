"""The one door to an encoder: `load(folder)` gives what `save_encoder` wrote, and nothing is unpickled on the way.

encoder/
  config.json         system, its settings, the features it takes, vocabulary size, SHA-256 of the other files
  model.safetensors   weights, fp32
  vocabulary.txt      one word a line; the word on line i has id i (ids start at 1)
  text_model.json     only where a text encoder reads the words: its architecture, and the sub-word pieces of each word,
                      or its tokenizer where it reads pieces
  speech_model.json   only where a speech model reads the sound: its architecture, and how the samples are scaled
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from triptych import config as configs
from triptych.config import UserError
from triptych.files import sha256
from triptych.modalities import FeatureSpec
from triptych.models.autoencoder import AutoencoderConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.encoder import Encoder
from triptych.models.pairwise import PairwiseConfig
from triptych.models.saved import FILES, NONE_SAVED, SavedModels
from triptych.refusals import follow_umask

FORMAT_VERSION = 1

HASHED = ("model.safetensors", "vocabulary.txt")
"""What config.json vouches for; and the files of SavedModels that are there."""


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """Which system the encoder is. Its settings build it: `build(inputs, words, models)`, with the arguments of `build`
    below. A new one is its file and a line here."""

    cross_modal: CrossModalConfig | None = None
    pairwise: PairwiseConfig | None = None
    autoencoder: AutoencoderConfig | None = None

    def __post_init__(self) -> None:
        configs.check_one_of(self, "encoder")


def build(
    system: SystemConfig,
    inputs: Mapping[str, FeatureSpec],
    words: tuple[str, ...],
    models: SavedModels = NONE_SAVED,
) -> Encoder:
    """A freshly initialised encoder.

    Args:
        system: which system, with its settings.
        inputs: modality -> the feature it takes.
        words: the vocabulary; word `i` of it has id `i + 1`.
        models: of a saved encoder; those not there to be asked for by their names.

    Raises:
        UserError: the settings and the features do not fit.
    """
    name, settings = configs.chosen(system)
    try:
        encoder: Encoder = settings.build(inputs, words, models)
    except ValueError as error:
        raise UserError(f"encoder.{name}: {error}") from None
    encoder.system = system
    return encoder


def save_encoder(encoder: Encoder, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write an encoder into a new folder.

    Args:
        encoder: built by `build` or `load`.
        folder: is made; its parent exists.
        state: full fp32 weights, where the encoder's own are sharded or in low precision.
    """
    folder.mkdir(parents=True)
    weights = {
        name: tensor.detach().float().cpu().contiguous() for name, tensor in (state or encoder.state_dict()).items()
    }
    save_file(weights, folder / "model.safetensors")
    follow_umask(folder / "model.safetensors")
    (folder / "vocabulary.txt").write_text("".join(f"{word}\n" for word in encoder.words), encoding="utf-8")
    models = SavedModels.within(encoder).files
    for name, content in models.items():
        (folder / name).write_text(content)
    description = {
        "format_version": FORMAT_VERSION,
        "system": configs.to_dict(encoder.system),
        "inputs": {modality: spec.to_json() for modality, spec in encoder.inputs.items()},
        "sha256": {name: sha256(folder / name) for name in (*HASHED, *models)},
    }
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")


def load(folder: Path | str) -> Encoder:
    """The encoder of a folder: a run's, a checkpoint's or a release's `encoder/`, in evaluation mode, on the CPU.

    Raises:
        UserError: no encoder there, a damaged file, another format, or unfitting weights; the message names the file.
    """
    folder = Path(folder)
    encoder = _build_described(folder, _describe(folder, HASHED))
    try:
        encoder.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{folder / 'model.safetensors'}: does not fit config.json: {error}") from None
    return encoder.eval()


def copy(folder: Path, target: Path) -> None:
    """Copy an encoder's files, proven to be whole, into a new folder; nothing else that lies beside them goes along.

    Raises:
        UserError: as of `load`.
    """
    description = _describe(folder, HASHED)
    target.mkdir()
    for name in ("config.json", *HASHED, *(name for name in FILES if name in description["sha256"])):
        shutil.copyfile(folder / name, target / name)  # a link's content, and the umask's mode


def untrained(folder: Path | str, seed: int) -> Encoder:
    """The same architecture with fresh weights, for the baseline of every probe; raises as `load` does."""
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build_described(folder, _describe(folder, ("vocabulary.txt",))).eval()


def _describe(folder: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """config.json, after the hashes of the wanted files and of those of SavedModels that are there."""
    path = folder / "config.json"
    try:
        description = json.loads(path.read_text())
    except OSError:
        raise UserError(
            f"{folder}: no encoder here (no config.json); give a run's, checkpoint's or release's encoder/"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format {version}, this version reads {FORMAT_VERSION}: install the version that wrote it"
        )
    for name in (*wanted, *(name for name in FILES if name in description.get("sha256", {}))):
        if not (folder / name).is_file() or sha256(folder / name) != description.get("sha256", {}).get(name):
            raise UserError(f"{folder / name}: missing or damaged (its SHA-256 is not the one in config.json)")
    return description


def _build_described(folder: Path, description: dict[str, Any]) -> Encoder:
    try:
        system = configs.load(SystemConfig, description["system"])
        inputs = {modality: FeatureSpec.from_json(fields) for modality, fields in description["inputs"].items()}
    except (KeyError, TypeError, ValueError) as error:
        told = error if isinstance(error, UserError) else repr(error)
        raise UserError(f"{folder / 'config.json'}: describes no encoder of this version: {told}") from None
    # not splitlines, which also takes some characters of other alphabets for the end of a line
    words = tuple((folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1])
    return build(system, inputs, words, SavedModels.read(folder, description["sha256"]))
