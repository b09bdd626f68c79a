"""How much each objective counts, and when."""

import pytest

from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import ObjectiveConfig
from triptych import config
from triptych.config import UserError


def test_a_weight_is_linear_between_its_points_and_constant_outside():
    objective = ObjectiveConfig(weight=2.0, weight_at={110: 1.0, 10: 0.5, 120: 0.0})
    found = [objective.weight_of(step) for step in (0, 10, 60, 110, 115, 120, 10**6)]
    assert found == pytest.approx([1.0, 1.0, 1.5, 2.0, 1.0, 0.0, 0.0], abs=1e-12)
    assert {ObjectiveConfig(weight=0.3).weight_of(step) for step in (0, 7, 10**6)} == {0.3}


def test_points_come_from_yaml_and_from_overrides_and_survive_the_saved_config(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("weight: 0.5\nweight_at: {0: 0.1, 1000: 1}\n")
    loaded = config.load(MaskedLMConfig, file, ["weight_at={500: 0.2}"])
    assert loaded.weight_at == {0: 0.1, 500: 0.2, 1000: 1.0}
    assert loaded.weight_of(750) == pytest.approx(0.5 * 0.6)
    config.save(loaded, file)
    assert config.load(MaskedLMConfig, file) == loaded


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("weight=-1", "weight: -1.0 must be"),
        ("weight=.nan", "weight: nan must be"),
        ("weight_at={-5: 1}", "weight_at: -5: 1.0; steps and factors"),
        ("weight_at={5: -1}", "weight_at: 5: -1.0; steps and factors"),
        ("weight_at={5: .inf}", "weight_at: 5: inf; steps and factors"),
        ("weight_at={0: 0, 5: 0}", "every factor is 0"),
        ("weight_at={soon: 1}", r"weight_at.soon: Key soon \(str\) is incompatible"),
    ],
)
def test_points_that_mean_nothing_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        config.load(MaskedLMConfig, {}, [given])
