"""A run with the words of `python -m shards vocabulary` in place of its shard set's own."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain.build import choose_vocabulary
from pretrain.check import check
from pretrain.config import PretrainConfig
from triptych import config
from triptych.config import UserError
from triptych.models.load import load


def configured(vocabulary: Path, *overrides: str) -> PretrainConfig:
    file = config.find("demo", "pretrain")
    return config.load(PretrainConfig, file, ["stream.shards=not-here", f"stream.vocabulary={vocabulary}", *overrides])


def test_check_counts_the_weights_and_the_arithmetic_of_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters, arithmetic = [], []
    for number in (100, 200):
        (tmp_path / f"{number}.txt").write_text("".join(f"word{index} 5\n" for index in range(number)))
        figures = check(configured(tmp_path / f"{number}.txt"), world=1)
        parameters.append(figures["encoder_parameters"])
        arithmetic.append(figures["petaflop_run"])
    assert parameters[1] - parameters[0] == 100 * 64  # word_width of the demo
    assert arithmetic[1] > arithmetic[0]  # of the output layer
    assert "made up" not in capsys.readouterr().out


def test_words_of_another_language_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("le 3\nchat 1\n")
    shards = SimpleNamespace(word_counts=lambda: {"the": 5})
    with pytest.raises(UserError, match=r"words\.txt has none of the words of not-here"):
        choose_vocabulary(configured(tmp_path / "words.txt"), shards)  # type: ignore[arg-type]
    no_text = configured(tmp_path / "words.txt", "stream.text=false", "objectives={masked_lm: null, contrastive: {}}")
    assert choose_vocabulary(no_text, shards).words == ("le", "chat")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_exports_these_words_and_is_not_resumed_with_others(demo, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("the 9\nhappy 3\nabsent 1\n")
    settings = [f"stream.vocabulary={file}", "trainer.max_steps=2", "trainer.evaluate_every=2"]

    done = demo.run(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "run" / "encoder").words == ("the", "happy", "absent")

    file.write_text("happy 9\nthe 3\nabsent 1\n")
    again = demo.run(tmp_path, *settings)
    assert again.returncode != 0
    assert "the run began with other words" in again.stderr
