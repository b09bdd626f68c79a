"""Trained runs on other transcripts of the same clips."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import train
from finetune.config import FinetuneConfig
from finetune.plan import make_plan
from finetune.train import run
from shards.reading.index import ShardSet
from shards.record import SPLITS, ClipRecord, Word
from shards.transcripts.recognised import ClipFacts, write_chunk
from shards.writing.tar import ShardWriter
from triptych import config as configs
from triptych.config import UserError
from triptych.evaluation import figures, predictions
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig

MISHEARD, LOST = "speaker12/clip24", "speaker13/clip27"
OPPOSITE = {"bad": "good", "good": "bad", "fine": "bad"}


def rewritten(moods: Path, folder: Path, change: Callable[[ClipRecord], ClipRecord | None]) -> str:
    """A shard set of the same clips without any media, each as `change` makes it; None leaves it out."""
    given = ShardSet(moods / "shards")
    folder.mkdir()
    for name in ("vocabulary.txt", *(f"{split}.durations.npy" for split in SPLITS)):
        (folder / name).write_bytes((moods / "shards" / name).read_bytes())
    infos = []
    for name in SPLITS:
        shard, split = ShardWriter(folder, f"{name}-000000", name), given.split(name)
        records = [change(split.record(number)) for number in range(len(split))]
        for record in filter(None, records):
            shard.add(record.key, {"json": json.dumps(record.to_json()).encode()})
        infos += [info for info in [shard.finish()] if info is not None]
    manifest = replace(given.manifest, shards=infos, features=[])
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return str(folder)


def recognised(record: ClipRecord) -> ClipRecord:
    if record.key == MISHEARD:
        return replace(record, words=tuple(Word(OPPOSITE[one.text], one.start_s, one.end_s) for one in record.words))
    return replace(record, words=None) if record.key == LOST else record


@pytest.fixture(scope="module")
def asr(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return rewritten(moods, tmp_path_factory.mktemp("transcripts") / "asr", recognised)


def config(moods: Path, out: Path, **settings) -> FinetuneConfig:
    given = {
        "encoder": str(moods / "encoder"),
        "shards": str(moods / "shards"),
        "protocol": "synthetic",
        "classes": ["happy", "sad"],
        "inputs": "text",
        "seeds": [0],
        "missing": False,
        "global_batch": 8,
        "num_resamples": 20,
        "optimizer": OptimizerConfig(lr=0.03),
        "trainer": TrainerConfig(
            max_steps=10, log_every=10, evaluate_every=10, checkpoint_every=10, keep_checkpoints=1
        ),
    }
    return FinetuneConfig(out=str(out), **{**given, **settings})


@pytest.fixture(scope="module")
def out(moods: Path, asr: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of words alone, so that what is heard decides."""
    folder = tmp_path_factory.mktemp("transcripts") / "out"
    same = str(moods / "shards")
    assert run(config(moods, folder, init=["frozen", "pretrained"], transcripts={"asr": asr, "same": same})) == 0
    return folder


def test_every_row_is_scored_on_every_transcript_with_intervals_and_paired_differences(out: Path):
    numbers = json.loads((out / "results.json").read_text())
    own = {row["system"]: row["metrics"] for row in numbers["systems"]}
    found = numbers["transcripts"]
    scores = {row["system"]: row["metrics"]["WA"] for row in found["systems"]}
    rows = ["frozen", "frozen, asr words", "frozen, same words"]
    rows += ["fine-tuned", "fine-tuned, asr words", "fine-tuned, same words"]
    assert list(scores) == rows
    assert scores["fine-tuned"]["value"] == own["fine-tuned"]["WA"]["value"] == 1
    assert scores["fine-tuned, same words"] == scores["fine-tuned"] == own["fine-tuned"]["WA"]
    assert scores["fine-tuned, asr words"]["value"] < 1
    assert scores["fine-tuned, asr words"]["low"] < scores["fine-tuned, asr words"]["value"]
    pairs = [(row["first"], row["second"]) for row in found["differences"]]
    assert pairs[2:] == [(f"fine-tuned, {name} words (text)", "fine-tuned (text)") for name in ("asr", "same")]
    change = found["differences"][2]["metrics"]["WA"]
    assert change["value"] == pytest.approx(scores["fine-tuned, asr words"]["value"] - 1)
    assert change["low"] <= change["value"] <= change["high"]


def test_word_error_rates_are_told(out: Path):
    words = json.loads((out / "results.json").read_text())["transcripts"]["words"]
    assert words["asr"]["word_error_rate"] == 4 / 16  # two words misheard, and two lost
    assert words["asr"]["clips_without_words"] == 1
    assert words["same"]["word_error_rate"] == 0
    report = (out / "report.md").read_text()
    assert "## Other transcripts at test time" in report
    assert "asr: word error rate 25.0 %, 4 errors in 16 words, clips with none left: 1;" in report


def test_predictions_that_change_are_listed_and_all_are_kept_by_clip(out: Path):
    flips = list(csv.DictReader((out / "flips_transcripts.csv").open()))
    changed = {row["key"] for row in flips if row["system"] == "fine-tuned" and row["transcript"] == "asr"}
    assert {MISHEARD} <= changed <= {MISHEARD, LOST}
    assert all(row["transcript"] == "asr" for row in flips)
    (told,) = (row for row in flips if row["system"] == "fine-tuned" and row["key"] == MISHEARD)
    assert (told["truth"], told["own words"], told["other words"]) == ("sad", "sad", "happy")
    assert told["word errors"] == "2"
    given = predictions.read(out / "predictions_transcripts.csv", kind="classes", classes=("happy", "sad"))
    place = given.keys.index(MISHEARD)
    said = {title: ("happy", "sad")[int(runs[0, place])] for title, runs in given.systems.items()}
    assert said["fine-tuned (text)"] == said["fine-tuned, same words (text)"] == "sad"
    assert said["fine-tuned, asr words (text)"] == "happy"


def test_nothing_but_words_is_read_from_a_transcript(moods: Path, asr: str, tmp_path: Path):
    run(config(moods, tmp_path, inputs="text+audio", transcripts={"asr": asr}))  # where no clip has sound
    given = predictions.read(tmp_path / "predictions_transcripts.csv", kind="classes", classes=("happy", "sad"))
    own, other = (runs[0] for runs in given.systems.values())
    heard_the_same = [key not in (MISHEARD, LOST) for key in given.keys]
    assert (own[heard_the_same] == other[heard_the_same]).all()


def test_a_transcript_may_be_added_later_and_is_asked_again_only_with_other_words(moods, asr, tmp_path, monkeypatch):
    asked, predict = [], train.predict
    monkeypatch.setattr(train, "predict", lambda *arguments: asked.append(arguments) or predict(*arguments))
    monkeypatch.setattr(figures, "draw", lambda *arguments: {})
    told = []
    for transcripts in ({}, {"asr": asr}, {"asr": asr}, {"asr": str(moods / "shards")}):
        asked.clear()
        run(config(moods, tmp_path / "out", transcripts=transcripts))
        numbers = json.loads((tmp_path / "out" / "results.json").read_text())
        told.append((len(asked), numbers.get("transcripts", {}).get("words", {}).get("asr", {}).get("word_errors")))
        (tmp_path / "out" / "report.md").unlink()
    assert told == [(1, None), (1, 4), (0, 4), (1, 0)]


def test_a_recognisers_files_do_as_well_as_a_shard_set(moods: Path, asr: str, tmp_path: Path):
    heard, lines = ShardSet(asr), []
    for record in (heard.split(name).record(number) for name in SPLITS for number in range(len(heard.split(name)))):
        said = [(word.start_s, word.end_s, word.text) for word in record.words or ()] or [(0, 1, "<silence>")]
        lines += [f"{record.key} 1 {start_s} {end_s - start_s} {text}" for start_s, end_s, text in said]
    (tmp_path / "asr.ctm").write_text("\n".join(lines))
    of_shards, of_files = (
        make_plan(config(moods, tmp_path / "out", transcripts={"asr": one})).transcripts["asr"]
        for one in (asr, str(tmp_path / "asr.ctm"))
    )
    assert of_files.words == {**of_shards.words, LOST: ()}
    (tmp_path / "asr.ctm").write_text("\n".join(line for line in lines if LOST not in line))
    with pytest.raises(UserError, match=rf"^transcripts.asr: .*asr.ctm: lacks 1 of 8 clips, first '{LOST}'"):
        make_plan(config(moods, tmp_path / "out", transcripts={"asr": str(tmp_path / "asr.ctm")}))
    with pytest.raises(UserError, match=r"^transcripts.asr: .*nowhere: is not there"):
        make_plan(config(moods, tmp_path / "out", transcripts={"asr": str(tmp_path / "nowhere")}))


def test_clips_that_the_recogniser_could_not_hear_have_no_words(moods: Path, tmp_path: Path):
    given = ShardSet(moods / "shards").split("test")
    said = {record.key: record.words for record in map(given.record, range(len(given))) if record.key != LOST}
    facts = [ClipFacts(key=key, seconds=1.0, words=2) for key in said] + [ClipFacts(key=LOST, failed="no sound")]
    write_chunk(tmp_path, 0, {"chunks": 1}, facts, said)
    found = make_plan(config(moods, tmp_path / "out", transcripts={"asr": str(tmp_path)})).transcripts["asr"]
    assert [key for key, words in found.words.items() if words is None] == [LOST]
    assert len(found.words) == 8
    (tmp_path / "000000.clips.jsonl").unlink()  # as of a chunk that was not finished
    with pytest.raises(UserError, match=f"lacks 1 of 8 clips, first '{LOST}'"):
        make_plan(config(moods, tmp_path / "out", transcripts={"asr": str(tmp_path)}))


def without(key: str) -> Callable[[ClipRecord], ClipRecord | None]:
    return lambda record: None if record.key == key else record


def relabelled(record: ClipRecord) -> ClipRecord:
    return replace(record, labels={**record.labels, "emotion": "anger"}) if record.key == LOST else record


def moved(record: ClipRecord) -> ClipRecord:
    return replace(record, split="train") if record.key == LOST else record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(LOST), f"lacks 1 of 8 clips, first '{LOST}'"),
        (relabelled, f"1 of 8 clips .*'{LOST}' has another label emotion"),
        (moved, f"1 of 8 clips .*'{LOST}' is in train and not in test"),
    ],
)
def test_a_transcript_of_other_clips_is_refused_before_anything_is_trained(moods, tmp_path, change, message):
    other = rewritten(moods, tmp_path / "other", change)
    with pytest.raises(UserError, match=rf"^transcripts\.asr: .*other: {message}"):
        run(config(moods, tmp_path / "out", transcripts={"asr": other}))
    assert not (tmp_path / "out").exists()


def test_clips_that_are_never_tested_may_be_missing(moods: Path, tmp_path: Path):
    other = rewritten(moods, tmp_path / "other", lambda record: record if record.split == "test" else None)
    assert len(make_plan(config(moods, tmp_path / "out", transcripts={"asr": other})).transcripts["asr"].words) == 8


def test_transcripts_are_given_on_the_command_line(asr: str):
    required = {"encoder": "e", "shards": "s", "out": "o", "trainer": {"max_steps": 1}}
    given = configs.load(FinetuneConfig, required, [f"transcripts.asr={asr}"])
    assert given.transcripts == {"asr": asr}


def test_transcripts_need_words_and_plain_names(moods: Path, asr: str, tmp_path: Path):
    with pytest.raises(UserError, match="transcripts: the encoder is shown audio, and no words"):
        make_plan(config(moods, tmp_path, inputs="audio", transcripts={"asr": asr}))
    with pytest.raises(ValueError, match=r"'\.\./asr' names files"):
        config(moods, tmp_path, transcripts={"../asr": asr})
