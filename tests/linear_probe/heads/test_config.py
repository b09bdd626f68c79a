import pytest

from linear_probe.heads.config import HeadsConfig
from triptych import config
from triptych.config import UserError


def test_several_heads_with_their_grids() -> None:
    heads = config.load(HeadsConfig, {"logistic": {"c": [1]}, "mlp": {"lr": [0.1], "optimizer": "sgd"}})
    assert list(heads.given()) == ["logistic", "mlp"]
    assert heads.given()["logistic"].c == [1.0]
    assert (heads.given()["mlp"].lr, heads.given()["mlp"].hidden) == ([0.1], 1024)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "heads: give one or more of logistic, ridge, linear, mlp"),
        ({"logistic": {"c": []}}, r"logistic\.c: a list of positive numbers"),
        ({"logistic": {"c": [0.0]}}, r"logistic\.c: a list of positive numbers"),
        ({"ridge": {"alpha": [1.0, 1.0]}}, r"ridge\.alpha: a number is there twice"),
        ({"linear": {"weight_decay": [-1.0]}}, "weight_decay: a list of numbers from 0"),
        ({"linear": {"epochs": 0}}, "epochs: 1 or more"),
        ({"linear": {"step_epochs": 5}}, "step_epochs: belongs to step and only to it"),
        ({"linear": {"schedule": "step"}}, "step_epochs: belongs to step and only to it"),
        ({"linear": {"schedule": "step", "step_epochs": 0}}, "step_epochs: 1 or more"),
        ({"mlp": {"hidden": 0}}, "hidden: 1 or more"),
        ({"linear": {"loss": "mae"}}, "loss"),
    ],
)
def test_mistakes_are_told(given, message) -> None:
    with pytest.raises(UserError, match=message):
        config.load(HeadsConfig, given)
