"""A head on what a frozen encoder said, out of the shards, learns what it learns on the frozen encoder."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.evaluation import predict
from finetune.heads.config import HeadConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from finetune.plan import make_plan
from finetune.train import run
from shards import add_features
from shards.reading.index import ShardSet
from triptych.config import UserError
from triptych.training.distributed import Distributed
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

SSE_FT = HeadConfig(sse_ft=SseFtHeadConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8))


@pytest.fixture(scope="module")
def stored(moods: Path, over_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`frozen`, the encoder; sets of what it says: `float32`, `float16`."""
    root = tmp_path_factory.mktemp("stored")
    for dtype in ("float32", "float16"):
        given = [f"encoder={over_roberta}", f"out={root / dtype}", f"dtype={dtype}", "workers=1"]
        add_features.run(str(moods / "shards"), given)
    return {"frozen": over_roberta, **{name: root / name for name in ("float32", "float16")}}


def config(encoder: Path, shards: Path, out: Path, **settings) -> FinetuneConfig:
    common = FinetuneConfig(
        encoder=str(encoder),
        shards=str(shards),
        out=str(out),
        protocol="mosei_sentiment",
        head=SSE_FT,
        init=["frozen"],
        seeds=[0],
        global_batch=8,
        micro_batch=4,
        optimizer=OptimizerConfig(lr=0.01),
        trainer=TrainerConfig(max_steps=4, log_every=1, evaluate_every=4, checkpoint_every=4, keep_checkpoints=1),
        num_resamples=20,
        missing=False,
    )
    return replace(common, **settings)


def losses(out: Path) -> list[float]:
    lines = (out / "runs" / "frozen-seed-0" / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_a_training_on_stored_sequences_has_the_losses_of_the_frozen_encoder(moods, stored, tmp_path):
    sets = {"frozen": (stored["frozen"], moods / "shards")}
    sets["float32"] = (stored["float32"] / "encoder", stored["float32"])
    for name, (encoder, shards) in sets.items():
        assert run(config(encoder, shards, tmp_path / name)) == 0

    found = {name: losses(tmp_path / name) for name in sets}
    assert len(found["frozen"]) == 4
    np.testing.assert_allclose(found["float32"], found["frozen"], rtol=1e-5)
    reports = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in sets}
    scores = {name: [system["metrics"] for system in report["systems"]] for name, report in reports.items()}
    for ours, theirs in zip(scores["float32"], scores["frozen"], strict=True):
        for metric, figures in theirs.items():
            assert ours[metric]["value"] == pytest.approx(figures["value"], abs=1e-5)
    facts = {name: report["protocol"]["facts"]["encoder"] for name, report in reports.items()}
    sha256 = facts["frozen"].split("SHA-256 `")[1][:64]
    assert sha256 in facts["float32"]


@pytest.mark.parametrize(("protocol", "head"), [("mosei_sentiment", SSE_FT), ("avec2017", HeadConfig())])
def test_a_head_says_the_same_of_stored_sequences(protocol, head, moods, stored, tmp_path):
    """Of a clip, and of each step of a series, whose times are stored too."""

    def outputs(encoder: Path, shards: Path) -> dict:
        plan = make_plan(config(encoder, shards, tmp_path, protocol=protocol, head=head))
        (part,) = plan.parts[1.0]
        alone = Distributed(rank=0, world=1, local_rank=0, device=torch.device("cpu"), backend="gloo")
        engine = SimpleNamespace(task=plan.task(part, "frozen", 0), device=alone.device, distributed=alone)
        return dict(predict(engine, plan.eval_loader(part, "test", alone)))

    frozen = outputs(stored["frozen"], moods / "shards")
    for dtype, atol in (("float32", 1e-6), ("float16", 2e-3)):
        read = outputs(stored[dtype] / "encoder", stored[dtype])
        assert frozen.keys() == read.keys()
        for key, said in frozen.items():
            np.testing.assert_allclose(read[key], said, rtol=0, atol=atol)


def test_only_the_head_can_train(moods, stored, tmp_path):
    for init in ("pretrained", "random"):
        with pytest.raises(UserError, match=r"init: .*encoder has no weights.*init=\[frozen\]"):
            make_plan(config(stored["float32"] / "encoder", stored["float32"], tmp_path, init=["frozen", init]))


def test_shards_and_encoder_that_do_not_belong_together_are_refused_before_training(moods, stored, tmp_path):
    for shards, says in ((moods / "shards", "holds none"), (stored["float16"], "holds another.* dtype")):
        with pytest.raises(UserError, match=f"{says}.*text_sequence"):
            make_plan(config(stored["float32"] / "encoder", shards, tmp_path))


def test_of_other_words_they_are_those_of_a_set_that_has_these_words(moods, over_roberta, tmp_path):
    """And once a set holds what was said of the clips' own words, others come too late."""
    own = ShardSet(moods / "shards")
    records = [own.split(name).record(number) for name in own.splits for number in range(len(own.split(name)))]
    opposite = {"bad": "good", "good": "bad", "fine": "fine"}
    lines = [f"{record.key} 1 {w.start_s} 0.2 {opposite[w.text]}" for record in records for w in record.words]
    (tmp_path / "asr.ctm").write_text("\n".join(lines))
    asr, encoder = f"transcripts={tmp_path / 'asr.ctm'}", f"encoder={over_roberta}"
    for name, source, given in (
        ("heard", moods / "shards", [asr]),
        ("then", tmp_path / "heard", [encoder]),
        ("at_once", moods / "shards", [asr, encoder]),
    ):
        add_features.run(str(source), [*given, f"out={tmp_path / name}", "workers=1"])

    then, at_once = (
        [split.read(number) for split in map(given.split, given.splits) for number in range(len(split))]
        for given in map(ShardSet, (tmp_path / "then", tmp_path / "at_once"))
    )
    assert then == at_once
    assert {"text_sequence.npy", "audio_sequence.npy"} <= then[0].keys()
    assert json.loads(at_once[0]["json"])["words"][0]["text"] == opposite[records[0].words[0].text]
    with pytest.raises(UserError, match=r"transcripts: .*then holds text_sequence"):
        add_features.run(str(tmp_path / "then"), [asr, f"out={tmp_path / 'late'}"])
