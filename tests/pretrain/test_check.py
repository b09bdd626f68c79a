from pathlib import Path

import pytest

from pretrain.check import check
from pretrain.config import PretrainConfig
from triptych import config

FILES = sorted((Path(__file__).parents[2] / "configs" / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.slow
def test_every_shipped_config_builds_and_takes_a_step_on_made_up_clips(file, capsys):
    figures = check(config.load(PretrainConfig, file, ["stream.shards=not-here"]), world=2)
    assert figures["parameters"] > figures["encoder_parameters"] > 0
    assert figures["activations_gib"] > 0
    assert figures["petaflop_run"] > 0
    assert "nothing trained" in capsys.readouterr().out


@pytest.mark.slow
def test_the_papers_size_is_what_zero_shares_out():
    file = next(file for file in FILES if file.stem == "khare")
    one, many = (check(config.load(PretrainConfig, file, ["stream.shards=not-here"]), world) for world in (1, 512))
    assert one["state_gib"] == pytest.approx(16 * one["parameters"] / 2**30)
    assert many["state_gib"] == pytest.approx(4 * one["parameters"] / 2**30, rel=0.01)  # stage 1 shares out 12 of 16
    assert one["micro_batches"] == 32
    assert many["micro_batches"] == 1
