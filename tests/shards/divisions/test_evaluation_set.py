"""The one door to an evaluation: clips, division and shut labels, and what is said of the encoders on them."""

import json
import shutil
from pathlib import Path

import pytest

from shards.divisions.evaluation_set import EvaluationSet
from shards.divisions.pretrained_on import PretrainedOn
from shards.reading.cache import CacheConfig
from triptych.config import UserError


def opened(shards: Path, split: str = "", classes: tuple[str, ...] = ("happy", "sad")) -> EvaluationSet:
    return EvaluationSet.open(str(shards), CacheConfig(), "ravdess", classes, split=split, listed="")


def test_clips_are_divided_by_the_rule_and_no_label_is_read(tones: Path):
    data = opened(tones / "shards", "leave_one_actor_out")
    assert [len(one.keys["test"]) for one in data.divisions] == [4] * 6
    assert data.rule == "ravdess/leave_one_actor_out"
    assert opened(tones / "shards").rule == ""
    assert data.protocol.classes == ("happy", "sad")
    assert not data.truth.read


def test_mistakes_are_found_before_anything_is_encoded(tones: Path):
    with pytest.raises(UserError, match="classes: ravdess has no 'odd'"):
        opened(tones / "shards", classes=("odd",))
    with pytest.raises(UserError, match="no 'leave_one_actor_ou'"):
        opened(tones / "shards", "leave_one_actor_ou")
    with pytest.raises(UserError, match="nowhere: no encoder"):
        opened(tones / "shards").open_encoder("nowhere")


def test_facts_name_the_encoder_without_the_disk_and_say_which_clips_it_has_not_seen(
    tones: Path, tmp_path: Path, caplog
):
    data, run = opened(tones / "shards"), tmp_path / "home" / "runs" / "mine"
    shutil.copytree(tones / "encoder", run / "encoder")
    (run / "data.json").write_text(json.dumps(data.shard_set.identity))
    encoder = data.open_encoder(str(run / "encoder"))
    facts = data.facts_of(str(run / "encoder"), encoder, encoder.encoder.inputs, "the encoder")
    assert facts.identity == f"`runs/mine/encoder`, model SHA-256 `{encoder.sha256}`"
    assert facts.pretrained_on.startswith("the training split of this shard set")
    assert facts.suits == {}
    assert caplog.text == ""


def test_what_may_spoil_the_scores_is_warned_of(tones: Path, caplog, monkeypatch):
    data = opened(tones / "shards")
    encoder = data.open_encoder(str(tones / "encoder"))
    seen = PretrainedOn(known=True, shared=("clip",), told="ravdess: 1 of 8 clips")
    monkeypatch.setattr("shards.divisions.evaluation_set.compare", lambda *_: seen)
    inputs = {"audio": encoder.encoder.inputs["audio"], "video": encoder.encoder.inputs["audio"]}
    facts = data.facts_of("x", encoder, inputs, "encoder mine")
    assert facts.suits == {"absent": "no clip has video"}
    assert facts.pretrained_on == "ravdess: 1 of 8 clips"
    assert "no clip has video; the encoder is used to more" in caplog.text
    assert "encoder mine was pretrained on clips that are scored here: ravdess: 1 of 8 clips" in caplog.text
