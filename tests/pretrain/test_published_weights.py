"""When a run wants the published weights that its encoder starts from."""

import pytest

from pretrain.config import PretrainConfig
from pretrain.train import pretrain
from triptych import config as configs
from triptych.config import UserError
from triptych.models.encoder import Encoder


@pytest.mark.slow
def test_they_are_wanted_before_anything_is_written_and_never_after_a_checkpoint(demo, tmp_path, monkeypatch):
    def start(encoder):
        raise UserError("the weights are not there")

    monkeypatch.setattr(Encoder, "start", start)
    name, *overrides = demo.arguments(tmp_path)
    config = configs.load(PretrainConfig, configs.find(name, "pretrain"), overrides)
    with pytest.raises(UserError, match="the weights are not there"):
        pretrain(config)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "checkpoints" / "step-4").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no config\.yaml"):  # past the weights
        pretrain(config)
