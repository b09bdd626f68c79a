"""Another start of a command: what was said before is not asked again, and what is missing is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune import train
from finetune.config import FinetuneConfig
from finetune.engine import EngineConfig
from triptych.config import UserError
from triptych.evaluation import figures
from triptych.models.load import load, save_encoder
from triptych.training.engine import Engine
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

TRAINER = TrainerConfig(max_steps=2, log_every=2, evaluate_every=1, checkpoint_every=2, keep_checkpoints=1)


def config(moods: Path, out: Path, **settings) -> FinetuneConfig:
    return FinetuneConfig(
        shards=str(moods / "shards"),
        out=str(out),
        num_resamples=20,
        global_batch=8,
        trainer=TRAINER,
        optimizer=OptimizerConfig(lr=0.03),
        **{"encoder": str(moods / "encoder"), "protocol": "avec2017", "seeds": [0], **settings},
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was done since the list was last cleared: "step" of training, or the modalities shown to a trained run."""
    done: list[object] = []
    predict, train_step = train.predict, Engine.train_step

    def noted(engine, loader, shown=None):
        done.append(shown)
        return predict(engine, loader, shown)

    def stepped(self, *arguments):
        done.append("step")
        return train_step(self, *arguments)

    monkeypatch.setattr(figures, "draw", lambda *arguments: {})  # half of the time, and not what is asked here
    monkeypatch.setattr(train, "predict", noted)
    monkeypatch.setattr(Engine, "train_step", stepped)
    return done


@pytest.fixture
def again(moods: Path, tmp_path: Path, asked: list[object]) -> Callable[..., str]:
    """`again(**settings)` starts the command without its report and gives its results.json."""

    def start(**settings) -> str:
        (tmp_path / "report.md").unlink(missing_ok=True)
        (tmp_path / "results.json").unlink(missing_ok=True)
        asked.clear()
        assert train.run(config(moods, tmp_path, **settings)) == 0
        return (tmp_path / "results.json").read_text()

    return start


def test_a_finished_run_is_not_asked_again_and_nothing_is_built_for_it(again, asked, monkeypatch):
    before = again()  # series, which are of several lengths
    assert asked == ["step", "step", None, ("text",), ("audio",)]
    with monkeypatch.context() as patch:
        patch.setattr(EngineConfig, "build", None)
        assert again() == before
    assert asked == []


def test_only_what_is_added_is_done(again, asked):
    again(missing=False)
    assert asked == ["step", "step", None]
    again()
    assert asked == [("text",), ("audio",)]
    one_seed = json.loads(again())
    two_seeds = json.loads(again(seeds=[0, 1]))
    assert asked == ["step", "step", None, ("text",), ("audio",)]
    first, both = (numbers["systems"][-1]["metrics"]["CCC"]["runs"] for numbers in (one_seed, two_seeds))
    assert both[:1] == first
    again(init=["random", "pretrained"], missing=False)
    assert asked == ["step", "step", None]


def test_what_is_damaged_is_told_and_asked_again(again, asked, tmp_path, caplog):
    before = again()
    folder = tmp_path / "runs" / "pretrained-seed-0" / "predictions"
    whole = (folder / "all.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"values.npy") + 300] ^= 1
    (folder / "all.npz").write_bytes(flipped)
    (folder / "text.npz").write_bytes(whole[:200])
    (folder / "audio.npz").write_bytes(b"")
    assert again() == before
    assert asked == [None, ("text",), ("audio",)]
    assert caplog.text.count("is damaged") >= 3
    assert again() == before
    assert asked == []


def test_what_another_step_said_is_not_taken(again, asked, tmp_path):
    again(missing=False)
    best = tmp_path / "runs" / "pretrained-seed-0" / "best.json"
    told = json.loads(best.read_text())
    best.write_text(json.dumps({**told, "value": told["value"] - 1}))
    again(missing=False)
    assert asked == [None]


def test_a_run_does_not_go_on_with_another_encoder(again, tmp_path_factory, moods):
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    encoder = load(moods / "encoder")
    save_encoder(encoder, folder)
    again(encoder=str(folder), missing=False)
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    shutil.rmtree(folder)
    save_encoder(encoder, folder)
    with pytest.raises(UserError, match=r"encoder\.json: the run began with another encoder"):
        again(encoder=str(folder), missing=False)
