"""What is learnt from which labels, over tables of made-up features: no encoder, no media."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from linear_probe.blocks import Block
from linear_probe.config import ProbeConfig
from linear_probe.heads.config import HeadsConfig, Ridge
from linear_probe.held_out import Said, open_labels
from linear_probe.held_out import splits as splits_of
from linear_probe.rows import Row, View, features, subsets
from linear_probe.study import Study
from linear_probe.table import Table
from shards.divisions.divisions import divisions
from shards.divisions.truth import Truth
from triptych.config import UserError
from triptych.evaluation import results
from triptych.protocols import registry
from triptych.protocols.mosei import EMOTIONS as MOSEI

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
BLOCKS = {name: Block(output=name, shown=("audio", "video")) for name in ("audio", "video")}
VIEW = View(name="pooled", blocks=tuple(BLOCKS.values()))
CPU = torch.device("cpu")
ROW = Row(system="made up", inputs="audio+video", sources=("a",), views=(VIEW,))


def features_of(records, noise: float) -> Table:
    """Sound that tells the emotion, as far as noise lets it, and a picture that is all noise; without the sound, zeros
    in its place."""
    drawn = np.random.default_rng(0).normal(size=(len(records), 2, 8)).astype(np.float32)
    told = np.eye(8, dtype=np.float32)[[EMOTIONS.index(record.labels["emotion"]) for record in records]]
    blocks = {BLOCKS["audio"]: told + noise * drawn[:, 0], BLOCKS["video"]: drawn[:, 1]}
    for name in ("audio", "video"):
        for shown in (("audio",), ("video",)):
            whole = blocks[BLOCKS[name]]
            blocks[replace(BLOCKS[name], shown=shown)] = whole if name in shown else np.zeros_like(whole)
    offsets = np.arange(len(records) + 1)
    return Table(keys=tuple(record.key for record in records), offsets=offsets, blocks=blocks, present={})


@pytest.fixture
def study_of(ravdess, by_actor, written):
    """`study_of(relabel, split, noise)`: eight clips each of six actors; 5 validates and 6 tests unless a rule
    divides."""

    def make(relabel=lambda record: record, split="", noise=0.0, **settings) -> Study:
        records = by_actor(ravdess(range(1, 7)), valid=[5], test=[6])
        shard_set = written([relabel(record) for record in records])
        protocol = registry.find("ravdess")
        table = features_of(records, noise)
        parts = divisions(shard_set, protocol, split)
        return Study(ProbeConfig(**settings), protocol, parts, Truth(shard_set, protocol), {"a": table}, CPU)

    return make


def mislabel(actor: int):
    """All clips of an actor are sad."""
    return lambda record: replace(record, labels={"emotion": "sad"}) if record.key.endswith(f"-{actor:02d}") else record


def test_no_label_of_a_held_out_clip_is_read_before_the_choice(study_of):
    study = study_of()
    study.outputs(study.learn(ROW))
    assert study.truth.read.isdisjoint(study.test_keys)
    open_labels(study)
    assert study.truth.read >= set(study.test_keys)


@pytest.mark.parametrize("split", ["", "leave_one_actor_out"])
def test_labels_of_the_held_out_clips_change_nothing_that_is_said_of_them(study_of, split):
    said = []
    for relabel in (lambda record: record, mislabel(6)):
        study = study_of(relabel, split, noise=0.7)
        learnt = study.learn(ROW)
        held_out = study.test_keys.index("03-01-01-01-01-01-06")
        division = len(study.divisions) - 1 if split else 0
        own = [name for name, part in enumerate(study.divisions) if "03-01-01-01-01-01-06" in part.keys["test"]]
        said.append((learnt.chosen[0][own[0]].trial, study.outputs(learnt)[:, held_out : held_out + 8]))
        assert own == [division]
    assert said[0][0] == said[1][0]
    assert torch.equal(said[0][1], said[1][1])


def test_folds_hold_every_clip_out_once_and_labels_that_tell_all_are_found(study_of):
    study = study_of(split="leave_one_actor_out")
    learnt = study.learn(ROW)
    held_out = open_labels(study)
    assert len(held_out.split.keys) == len(set(held_out.split.keys)) == 48
    assert set(held_out.split.folds) == {f"ravdess/leave_one_actor_out/{fold}" for fold in range(1, 7)}
    said = Said(name="made up", inputs="audio+video", learnt=learnt, outputs=study.outputs(learnt))
    system = held_out.system(said)
    assert (system.predictions[0] == held_out.split.truth).all()
    assert system.probabilities.shape == (1, 48, 8)
    assert list(splits_of(study, held_out)) == ["test"]


def test_constants_come_from_the_training_clips(study_of):
    held_out = open_labels(study_of(relabel=mislabel(6)))
    assert held_out.split.truth.tolist() == [EMOTIONS.index("sad")] * 8
    constant = held_out.trivial()[0].predictions[0]
    assert len(set(constant.tolist())) == 1
    assert constant[0] == EMOTIONS.index("neutral")


def test_shuffled_labels_leave_nothing_to_learn(study_of):
    study = study_of(noise=0.1)
    outputs = study.outputs(study.learn_shuffled(ROW, seeds=range(40)))
    assert len(outputs) == 40
    truth = open_labels(study).split.truth
    hits = (outputs.argmax(dim=-1).numpy() == truth).mean()
    assert hits == pytest.approx(1 / 8, abs=0.06)
    assert (study.outputs(study.learn(ROW)).argmax(dim=-1).numpy() == truth).all()


def test_a_removed_modality_is_removed_from_what_the_same_heads_see(study_of):
    study = study_of()
    learnt = study.learn(ROW)
    truth = open_labels(study).split.truth
    right = {
        shown: float((study.outputs(learnt, shown).argmax(dim=-1).numpy() == truth).mean()) for shown in subsets(ROW)
    }
    assert right == {("audio",): 1.0, ("video",): pytest.approx(0.125, abs=0.2)}
    assert (features(study.table, VIEW.shown(("video",)))[:, :8] == 0).all()


def test_a_share_of_the_labels_trains_on_that_share(study_of):
    study = study_of()
    _, whole = study._lessons(study.learning[1], 1.0)
    _, half = study._lessons(study.learning[1], 0.5)
    assert len(whole[0].train) == 32
    assert len(half[0].train) == 16
    assert set(half[0].train) < set(whole[0].train)
    assert (half[0].valid == whole[0].valid).all()


def test_trained_heads_are_as_many_runs_as_seeds_and_others_repeat(study_of):
    study = study_of(seeds=[0, 1, 2], noise=0.5)
    runs = study.outputs(study.learn(ROW))
    assert len(runs) == 3
    assert torch.equal(runs[0], runs[1])


def numbers_of(kind: str, place: int):
    """A clip's labels: what its place in the list says."""
    if kind == "mosei_emotion":
        return {name: float(place % (2 + index) == 0) for index, name in enumerate(MOSEI)}
    if kind == "mosi":
        return {"sentiment": (place % 7) - 3.0}
    steps = np.sin(np.arange(20) / 3 + place)
    return {
        name: {"rate_hz": 10.0, "values": (sign * steps).round(3).tolist()}
        for name, sign in (("arousal", 1), ("valence", -1), ("liking", 0.5))
    }


@pytest.mark.parametrize(
    ("protocol", "metric", "perfect"), [("mosei_emotion", "w-ACC", 1.0), ("mosi", "mae", 0.0), ("avec2017", "CCC", 1.0)]
)
def test_every_kind_goes_the_whole_way_and_what_is_told_is_found(record, written, protocol, metric, perfect, tmp_path):
    """The features are the labels, and a seventh of the clips has none."""
    splits = ["train"] * 28 + ["valid"] * 14 + ["test"] * 14
    records = [
        record(f"clip-{place:02d}", f"speaker {split}", split, numbers_of(protocol, place) if place % 7 != 6 else {})
        for place, split in enumerate(splits)
    ]
    told, shard_set = registry.find(protocol), written(records, {"by": "speaker"})
    rows = 20 if told.kind == "series" else 1
    block = Block(output="audio", shown=("audio",), rate_hz=10.0 if rows > 1 else None)
    x = np.zeros((len(records) * rows, len(told.targets)), dtype=np.float32)
    for place in range(len(records)):
        for column, label in enumerate(numbers_of(protocol, place).values()):
            x[place * rows : (place + 1) * rows, column] = label["values"] if rows > 1 else label
    offsets = np.arange(0, len(x) + 1, rows)
    table = Table(keys=tuple(one.key for one in records), offsets=offsets, blocks={block: x}, present={})
    config = ProbeConfig(heads=HeadsConfig(ridge=Ridge(alpha=[1e-3])))
    study = Study(config, told, divisions(shard_set, told, ""), Truth(shard_set, told), {"a": table}, CPU)
    row = Row(system="told", inputs="audio", sources=("a",), views=(View(name="pooled", blocks=(block,)),))
    learnt = study.learn(row)
    outputs = study.outputs(learnt)
    held_out = open_labels(study)
    assert (len(held_out.split.keys), held_out.split.left_out) == (12, 2)
    system = held_out.system(Said(name="told", inputs="audio", learnt=learnt, outputs=outputs))
    report = results.Evaluation(
        title="told",
        protocol=told,
        splits=splits_of(study, held_out),
        split_rule={},
        systems=[*held_out.trivial(), system],
        drawn=system.title,
        num_resamples=20,
    )
    entries = {one["system"]: one["metrics"][metric] for one in results.write(report, tmp_path)["systems"]}
    assert entries["told"]["value"] == pytest.approx(perfect, abs=0.02)
    constant = next(entry for name, entry in entries.items() if name != "told")
    assert abs(constant["value"] - perfect) > 0.4
    assert (tmp_path / "predictions.csv").is_file()


def test_no_labels_is_a_mistake_that_is_told(study_of):
    unlabelled = study_of(lambda record: replace(record, labels={}))
    with pytest.raises(UserError, match="none of the 40 clips to learn from has a label that ravdess scores: emotion"):
        unlabelled.learn(ROW)
    only_test = study_of(lambda record: record if not record.key.endswith("-06") else replace(record, labels={}))
    only_test.learn(ROW)
    with pytest.raises(UserError, match="none of the 8 held-out clips"):
        open_labels(only_test)
