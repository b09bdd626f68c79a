"""A run whose word vectors start from a file."""

import shutil
from pathlib import Path

import pytest
import torch

from pretrain.build import build_task
from pretrain.config import PretrainConfig, WordVectorsConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.start import start_vectors
from shards.words import glove
from triptych import config
from triptych.config import UserError
from triptych.models.load import load
from triptych.training.optim import parameter_groups

WORDS = ("the", "of", "happyish", "to")


def configured(*overrides: str) -> PretrainConfig:
    small = ["transformer.width=8", "transformer.layers=1", "transformer.heads=2", "input.frame_hidden=4"]
    settings = [f"encoder.cross_modal.{setting}" for setting in (*small, "modalities=[text]")]
    file = config.find("demo", "pretrain")
    return config.load(
        PretrainConfig, file, [*settings, "objectives.contrastive=null", "stream.features.audio=null", *overrides]
    )


def start(task: PretrainTask, settings: PretrainConfig, counts: dict[str, int]) -> str:
    assert isinstance(settings.word_vectors, WordVectorsConfig)
    told = start_vectors(settings.word_vectors.file, task.encoder, counts)
    task.start(counts)
    return told


def write(folder: Path, width: int = 64, words: tuple[str, ...] = ("of", "the", "to", "cat")) -> Path:
    torch.manual_seed(1)
    lines = (f"{word} {' '.join(f'{value:.4f}' for value in torch.randn(width).tolist())}\n" for word in words)
    (folder / "vectors.txt").write_text("".join(lines))
    return folder / "vectors.txt"


@pytest.mark.parametrize("output", ["linear", "tied", "glove"])
def test_vectors_land_at_the_ids_of_their_words_and_frozen_ones_stay(tmp_path: Path, output: str) -> None:
    file = write(tmp_path)
    settings = configured(f"word_vectors.file={file}", f"objectives.masked_lm.output={output}")
    task = build_task(settings, WORDS)
    told = start(task, settings, {"the": 6, "of": 2, "happyish": 1, "to": 1})
    assert "1 of 4 words have no vector (25.00 %), and 1 of 10 running words" in told
    vectors = task.encoder.input["text"].vectors.weight
    expected = glove.load(file, WORDS)
    for row in (1, 2, 4):
        assert vectors[row].tolist() == pytest.approx(expected.matrix[row].tolist())
    assert vectors[3].any()
    assert not any(parameter is vectors for group in parameter_groups(task, 0.1) for parameter in group["params"])
    if output == "glove":
        weight = task.objectives["masked_lm"].output.weight
        assert torch.equal(weight, vectors[1:])
        assert weight.requires_grad


def test_vectors_can_be_trained_and_are_then_among_the_optimizers(tmp_path: Path) -> None:
    settings = configured(f"word_vectors.file={write(tmp_path)}", "word_vectors.train=true")
    task = build_task(settings, WORDS)
    vectors = task.encoder.input["text"].vectors.weight
    assert any(parameter is vectors for group in parameter_groups(task, 0.1) for parameter in group["params"])


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    narrow = configured(f"word_vectors.file={write(tmp_path, width=50)}")
    with pytest.raises(UserError, match="vectors of 50 numbers, and the encoder's word_width is 64; set that to 50"):
        start(build_task(narrow, WORDS), narrow, {})
    other = configured(f"word_vectors.file={write(tmp_path, words=('le', 'chat'))}")
    with pytest.raises(UserError, match="has none of the 4 words"):
        start(build_task(other, WORDS), other, {})
    with pytest.raises(UserError, match=r"glove starts from word vectors; give word_vectors\.file"):
        configured("objectives.masked_lm.output=glove")


@pytest.mark.real
def test_real_glove_vectors_start_the_words_that_they_are_of(real_data: Path) -> None:
    file = real_data / "glove" / "glove.6B.300d.sample.txt.gz"
    settings = configured(f"word_vectors.file={file}", "encoder.cross_modal.input.word_width=300")
    task = build_task(settings, WORDS)
    start(task, settings, dict.fromkeys(WORDS, 1))
    vectors = task.encoder.input["text"].vectors.weight
    assert vectors[1, :3].tolist() == pytest.approx([0.04656, 0.21318, -0.0074364])  # the first line: "the"
    assert vectors[4, :3].tolist() == pytest.approx([-0.25756, -0.057132, -0.6719])  # "to"


@pytest.mark.slow
def test_a_run_goes_on_to_the_last_bit_without_its_file_and_leaves_frozen_vectors_alone(demo, tmp_path: Path) -> None:
    file = write(tmp_path, words=("so", "and", "we"))
    settings = [f"word_vectors.file={file}", "objectives.masked_lm.output=tied", "objectives.masked_lm.nce.samples=8"]
    settings += ["trainer.max_steps=4", "trainer.checkpoint_every=2", "trainer.keep_checkpoints=2"]
    done = demo.run(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    assert "words have no vector" in done.stderr
    whole = demo.logged(tmp_path)
    encoder = load(tmp_path / "run" / "encoder")
    vectors = encoder.input["text"].vectors.weight
    for word, row in zip(("so", "and", "we"), glove.load(file, ("so", "and", "we")).matrix[1:], strict=True):
        assert vectors[encoder.words.index(word) + 1].tolist() == row.tolist()

    file.unlink()
    shutil.rmtree(tmp_path / "run" / "encoder")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    again = demo.run(tmp_path, *settings)
    assert again.returncode == 0, again.stderr
    assert demo.logged(tmp_path) == whole
