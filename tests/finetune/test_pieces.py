"""A published encoder that reads the text as it is written, from a config of a few lines to the reports."""

import json
from pathlib import Path

import numpy as np
import pytest

from finetune.config import FinetuneConfig
from finetune.heads.config import HeadConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from finetune.train import run
from linear_probe import probe
from linear_probe.config import BaselinesConfig, ProbeConfig
from shards import add_features
from triptych.models import load
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig


@pytest.fixture(scope="module")
def roberta(text_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By what it reads: a file for `encoder=`."""
    root, files = tmp_path_factory.mktemp("roberta"), {}
    for unit in ("word", "piece"):
        files[unit] = root / f"{unit}.yaml"
        encoder = f"{{model: {text_models / 'roberta'}, cls: true, unit: {unit}}}"
        files[unit].write_text(f"system:\n  pairwise:\n    width: 0\n    text: {{encoder: {encoder}}}\n")
    return files


def config(encoder: Path, shards: Path, out: Path, **settings) -> FinetuneConfig:
    return FinetuneConfig(
        encoder=str(encoder),
        shards=str(shards),
        out=str(out),
        protocol="synthetic",
        classes=["happy", "sad"],
        head=HeadConfig(sse_ft=SseFtHeadConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8)),
        seeds=[0],
        global_batch=8,
        micro_batch=4,
        optimizer=OptimizerConfig(lr=0.01),
        trainer=TrainerConfig(max_steps=10, log_every=1, evaluate_every=10, checkpoint_every=10, keep_checkpoints=1),
        num_resamples=20,
        missing=False,
        **settings,
    )


def losses(out: Path, name: str) -> list[float]:
    lines = (out / "runs" / f"{name}-seed-0" / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_it_is_fine_tuned_stored_and_tested_on_other_words(moods: Path, roberta, tmp_path: Path):
    same = {"transcripts": {"same": str(moods / "shards")}}
    given = config(roberta["piece"], moods / "shards", tmp_path / "run", init=["frozen", "pretrained"], **same)
    assert run(given) == 0
    numbers = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {row["system"]: row["metrics"]["WA"]["value"] for row in numbers["systems"]}["fine-tuned"] == 1
    assert not any(name.startswith("known words") for name in numbers["protocol"]["facts"])
    heard = numbers["transcripts"]["words"]["same"]
    assert heard["word_error_rate"] == 0
    assert "known_share" not in heard
    assert "the encoder knows" not in (tmp_path / "run" / "report.md").read_text()
    tuned = load.load(tmp_path / "run" / "runs" / "pretrained-seed-0" / "encoder")
    assert (tuned.inputs["text"].is_pieces, tuned.words) == (True, ())

    stored = tmp_path / "stored"
    add_features.run(str(moods / "shards"), [f"encoder={roberta['piece']}", f"out={stored}", "workers=1"])
    assert run(config(stored / "encoder", stored, tmp_path / "stored_run", init=["frozen"])) == 0
    found = losses(tmp_path / "stored_run", "frozen")
    assert len(found) == 10
    np.testing.assert_allclose(found, losses(tmp_path / "run", "frozen"), rtol=1e-5)


def test_it_is_probed_beside_one_that_reads_words(moods: Path, roberta, tmp_path: Path):
    """Each with its own ids, in passes of their own; what is counted without an encoder are words for both."""
    numbers = probe.run(
        ProbeConfig(
            encoders={name: str(file) for name, file in roberta.items()},
            shards=str(moods / "shards"),
            protocol="synthetic",
            classes=["happy", "sad"],
            baselines=BaselinesConfig(untrained=[0]),
            out=str(tmp_path),
            num_resamples=20,
        )
    )
    ua = {row["system"]: row["metrics"]["UA"]["value"] for row in numbers["systems"]}
    assert ua["input means"] == 1
    assert sum(name.startswith("input means") for name in ua) == 1
    assert (ua["word"], ua["piece"]) == (1, 1)
    facts = numbers["protocol"]["facts"]
    assert "known words for word" in facts
    assert "known words for piece" not in facts
