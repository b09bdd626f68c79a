"""Every objective of the house keeps the rules that docs/extending.md asks of a new one."""

from dataclasses import fields

import pytest
from objective_rules import MOODS, check_losses, check_prepare, check_weights, make_task

from pretrain.config import ObjectivesConfig
from pretrain.masking import MaskConfig
from pretrain.objectives.contrastive import ContrastiveConfig, HeadConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.reconstruction import ReconstructionConfig
from pretrain.objectives.weak_labels import WeakLabelsConfig
from pretrain.windows import WindowsConfig
from triptych.models.autoencoder import AutoencoderConfig
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig

TINY = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
CROSS_MODAL = SystemConfig(cross_modal=CrossModalConfig(transformer=TINY))
AUTOENCODER = SystemConfig(autoencoder=AutoencoderConfig(first_channels=2, code_channels=2, word_width=4))
WINDOWS = WindowsConfig(seconds=1.0)
CASES = {
    "masked_lm": (CROSS_MODAL, MaskedLMConfig(mask=MaskConfig(rate=0.5))),
    "contrastive": (CROSS_MODAL, ContrastiveConfig(head=HeadConfig(hidden=8, width=4), windows=WINDOWS)),
    "weak_labels": (CROSS_MODAL, WeakLabelsConfig(labels={"mood": list(MOODS)})),
    "reconstruction": (AUTOENCODER, ReconstructionConfig()),
}


def test_no_objective_is_forgotten() -> None:
    assert set(CASES) == {objective.name for objective in fields(ObjectivesConfig)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_depends_on_the_clip_alone(name: str) -> None:
    check_prepare(make_task(CASES[name][0], name, CASES[name][1]), name)


@pytest.mark.parametrize("name", CASES)
def test_counts_and_names_are_those_of_the_forward_whatever_clips_lack(name: str) -> None:
    check_losses(make_task(CASES[name][0], name, CASES[name][1]), name)


@pytest.mark.parametrize("name", ["masked_lm", "weak_labels", "reconstruction"])
def test_every_weight_takes_part(name: str) -> None:
    """Of `contrastive` on this system the fusion does not: the run needs stage 0 or 1."""
    check_weights(make_task(CASES[name][0], name, CASES[name][1]))
