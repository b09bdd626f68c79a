"""A model that cannot recognise words is refused in one sentence; nothing is made up for what is missing."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import WavLMConfig, WavLMForCTC

from shards.asr.load import load
from triptych.config import UserError


def copy(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "copy"))


def refused(model: Path | str, because: str, language: str | None = None) -> None:
    with pytest.raises(UserError, match=because) as told:
        load(str(model), None, "cpu", "auto", language)
    assert len(str(told.value).splitlines()) == 1


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("nobody/has-this", "model 'nobody/has-this' cannot be loaded.*HF_HUB_OFFLINE")
    refused(tmp_path, "no recogniser can be loaded from this folder")


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(tmp_path, "a bert model; expected a CTC model")


def test_missing_weights_are_not_drawn_at_random(tone_model: Path, tmp_path: Path) -> None:
    folder = copy(tone_model, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "1 weights are missing, first: lm_head.weight")


def test_weights_of_training_only_may_be_missing(tone_model: Path, tmp_path: Path) -> None:
    folder = copy(tone_model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.05}))  # now it has masked_spec_embed
    load(str(folder), None, "cpu", "auto", None)


@pytest.mark.slow
def test_languages(tone_model: Path, whisper_model: Path) -> None:
    refused(tone_model, "language: en; .* leave it out", language="en")
    refused(whisper_model, "language: english; .* There are de, en, zh", language="english")


def test_whisper_without_alignment_heads(whisper_model: Path, tmp_path: Path) -> None:
    folder = copy(whisper_model, tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    del settings["alignment_heads"]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    refused(folder, "no alignment_heads; without it there are no word times")


def test_an_english_only_whisper_hears_words_and_tells_no_language(
    whisper_model: Path, tmp_path: Path, lessons
) -> None:
    folder = copy(whisper_model, tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"is_multilingual": False}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (said,) = load(str(folder), None, "cpu", "auto", None).recogniser.hear([lessons[0][2]])
    assert said.languages == {}


def test_other_ctc_models_load_too(tone_model: Path, tmp_path: Path, spoken) -> None:
    folder = copy(tone_model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"], config["architectures"]
    WavLMForCTC(WavLMConfig(**config)).save_pretrained(folder)
    recogniser = load(str(folder), None, "cpu", "auto", None).recogniser
    assert len(recogniser.hear([spoken([("A", 0.1)], 0.5)])) == 1


def test_the_same_weights_in_another_folder_are_the_same_model(
    tone_model: Path, group_model: Path, tmp_path: Path
) -> None:
    original, moved, other = (
        load(str(folder), None, "cpu", "auto", None).weights
        for folder in (tone_model, copy(tone_model, tmp_path), group_model)
    )
    assert original == moved != other
