"""A speech recogniser from a folder or the model hub, in transformers' own format; weights are never made up."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2PhonemeCTCTokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING
from transformers.utils import logging

from shards.asr.ctc import CtcRecogniser
from shards.asr.recogniser import Recogniser
from shards.asr.whisper import WhisperRecogniser, languages_of
from triptych.config import UserError, nearest

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ONLY_FOR_TRAINING = "masked_spec_embed"
"""Published checkpoints often lack it; recognition does not use it."""


@dataclass(frozen=True)
class Loaded:
    """A recogniser, and what must be equal for two runs to give the same words."""

    recogniser: Recogniser
    weights: str
    """SHA-256 over all weights as loaded, so that a moved folder is the same model and a changed one is not."""
    device: str
    dtype: str


def load(name: str, revision: str | None, device: str, dtype: str, language: str | None) -> Loaded:
    """Load a model with its tokenizer and feature extractor.

    Args:
        name: folder, or name on the hub (from the local cache with HF_HUB_OFFLINE=1).
        revision: commit or tag on the hub.
        device: "cpu", "cuda", or "auto": cuda where there is one.
        dtype: "float32", "float16", "bfloat16", or "auto": float16 on a GPU, else float32.
        language: to write, for a Whisper of several languages; None: as heard.

    Raises:
        UserError: no such model, one that is no recogniser of words, weights missing in it, or a language it does not
            know.
    """
    logging.set_verbosity_error()  # what its warnings tell of weights is an error below
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    device = _device(device)
    dtype = ("float16" if device == "cuda" else "float32") if dtype == "auto" else dtype
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        is_whisper = config.model_type == "whisper"
        if not is_whisper and type(config) not in MODEL_FOR_CTC_MAPPING:
            raise UserError(f"{name}: a {config.model_type} model; expected a CTC model (Wav2Vec2, ...) or Whisper")
        kind = AutoModelForSpeechSeq2Seq if is_whisper else AutoModelForCTC
        model, info = kind.from_pretrained(name, revision=revision, dtype=_DTYPES[dtype], output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        extractor = AutoFeatureExtractor.from_pretrained(name, revision=revision)
    except UserError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise UserError(_not_loaded(name, error)) from None
    if missing := sorted(key for key in info["missing_keys"] if not key.endswith(_ONLY_FOR_TRAINING)):
        raise UserError(
            f"{name}: {len(missing)} weights are missing, first: {missing[0]}; take a model that was trained to "
            "recognise speech"
        )
    weights = _hash(model)
    model = model.eval().to(device)
    if is_whisper:
        _check_whisper(name, model, language)
        return Loaded(WhisperRecogniser(model, tokenizer, extractor, language), weights, device, dtype)
    if language is not None:
        raise UserError(f"language: {language}; {name} writes the language that it was trained on, leave it out")
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer) or isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer):
        raise UserError(f"{name}: its tokenizer ({type(tokenizer).__name__}) does not give words with their times")
    return Loaded(CtcRecogniser(model, tokenizer, extractor), weights, device, dtype)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda; no GPU can be used here, choose auto or cpu")
    return device


def _check_whisper(name: str, model: Any, language: str | None) -> None:
    settings = model.generation_config
    for needed in ("alignment_heads", "no_timestamps_token_id"):
        if not hasattr(settings, needed):
            raise UserError(f"{name}: its generation_config.json has no {needed}; without it there are no word times")
    known = languages_of(model) or {"en": 0}
    if language is not None and language not in known:
        raise UserError(f"language: {language}; {name} does not know it.{nearest(language, known)}")


def _not_loaded(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(name).is_dir():
        return f"{name}: no recogniser can be loaded from this folder: {reason}"
    offline = " HF_HUB_OFFLINE is set, so only models in the local cache can be found." if _offline() else ""
    return f"model {name!r} cannot be loaded: {reason}{offline} Give the name of a model on the hub, or its folder"


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _hash(model: Any) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
