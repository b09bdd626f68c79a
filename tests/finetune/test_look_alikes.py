"""Shipped configs on their corpora, from files in the corpus' own layout to the report."""

import json
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from finetune.train import run
from shards.look_alike import make
from shards.write import WriteConfig, write
from triptych import config

SPLITS = {
    "mosi": ["split.by=source", "corpus.mosi.folds={raw}/cmu_mosi_std_folds.py"],
    "mosei": ["split.by=source", "corpus.mosei.folds={raw}/cmu_mosei_std_folds.py"],
    "meld": [],
    "iemocap": [],
    "avec2017": ["split.by=source"],
}
SHORT = ["seeds=[0]", "inputs=audio", "global_batch=2", "micro_batch=2", "num_resamples=100"]
SHORT += [
    "trainer.max_steps=2",
    "trainer.evaluate_every=1",
    "trainer.checkpoint_every=1",
    "optimizer.schedule.warmup_steps=0",
    "best_of=0",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sse_ft_mosi", "sse_ft_mosei", "sse_ft_meld", "sse_ft_iemocap", "khare_mosei", "avec2017"]
)
def test_a_config_trains_evaluates_and_reports_on_a_corpus_of_its_layout(name: str, tones: Path, tmp_path: Path):
    corpus = name.rpartition("_")[2]
    raw = tmp_path / "raw"
    make(corpus, raw)
    overrides = [f"corpus.{corpus}.root={raw}", f"out={tmp_path / 'shards'}", "max_quarantined_share=0.5"]
    overrides += ["features.audio=null", "features.video=null", *(one.format(raw=raw) for one in SPLITS[corpus])]
    write(config.load(WriteConfig, config.find(corpus, "shards"), overrides))

    given = [f"encoder={tones / 'encoder'}", f"shards={tmp_path / 'shards'}", f"out={tmp_path / 'out'}", *SHORT]
    assert run(config.load(FinetuneConfig, config.find(name, "finetune"), given)) == 0
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    last = numbers["systems"][-1]
    assert last["inputs"] == "audio"
    assert set(last["metrics"]) == set(numbers["protocol"]["metrics"])
    assert numbers["protocol"]["splits"]["test"]["clips"] > 0
    assert (tmp_path / "out" / "report.md").is_file()
