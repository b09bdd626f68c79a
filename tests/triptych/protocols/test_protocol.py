from dataclasses import replace

import pytest
import torch

from triptych.batch import UNLABELLED, fake_batch
from triptych.config import UserError
from triptych.evaluation import conventions, predictions
from triptych.labels import Number, Series
from triptych.modalities import FeatureSpec
from triptych.protocols import registry

SPECS = {"audio": FeatureSpec(name="b", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32")}


def test_ravdess_has_eight_emotions_in_the_order_of_its_codes():
    protocol = registry.find("ravdess")
    assert protocol.classes[0] == "neutral"
    assert len(protocol.classes) == 8


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean ravdess"):
        registry.find("ravdes")
    with pytest.raises(UserError, match="Did you mean happy"):
        registry.find("ravdess", ("hapy", "sad"))
    with pytest.raises(UserError, match="two or more different"):
        registry.find("ravdess", ("sad", "sad"))


def test_a_class_left_out_becomes_unlabelled():
    protocol = registry.find("ravdess", ("sad", "neutral"))
    index = [protocol.labels[protocol.label].index(name) for name in ("neutral", "sad", "angry")]
    batch = replace(fake_batch(SPECS), labels={"emotion": torch.tensor([*index, UNLABELLED])})
    assert protocol.relabel(batch).labels["emotion"].tolist() == [1, 0, UNLABELLED, UNLABELLED]
    whole = registry.find("ravdess")
    assert whole.relabel(batch).labels["emotion"].tolist() == [*index, UNLABELLED]


def test_a_fold_is_found_by_its_name_and_mistakes_are_told_with_the_nearest():
    assert registry.find_fold("ravdess/hicmae_6fold/2").name == "ravdess/hicmae_6fold/2"
    assert registry.find_fold("ravdess/mpuc").name == "ravdess/mpuc"
    for name, told in (
        ("ravdes/hicmae_6fold/2", "Did you mean ravdess"),
        ("ravdess/hicmae_6folds/2", "Did you mean hicmae_6fold"),
        ("ravdess/hicmae_6fold", "give one; it has folds 1 to 6"),
        ("ravdess/hicmae_6fold/7", "no fold 7"),
        ("ravdess/hicmae_6fold/x", "is no number"),
    ):
        with pytest.raises(UserError, match=told):
            registry.find_fold(name)


METRIC_NAMES = {
    "classes": {column.name for column in (*conventions.CLASSES, *conventions.TWO_WAY)},
    "emotions": {column.name for column in conventions.EMOTIONS},
    "sentiment": {column.name for sheet in conventions.SENTIMENT.values() for column in sheet},
    "series": {column.name for column in conventions.SERIES},
}
"""What the score command prints for each kind of predictions."""


@pytest.mark.parametrize("protocol", registry.PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_every_protocol_speaks_of_scores_classes_and_splits_that_there_are(protocol):
    assert protocol.kind in predictions.KINDS
    assert protocol.select in protocol.metrics
    assert set(protocol.metrics) <= METRIC_NAMES[protocol.kind]
    assert set(protocol.metrics) <= set(conventions.by_name(protocol.kind))
    for target in protocol.targets:
        if isinstance(target.form, tuple):
            assert len(set(target.form)) == len(target.form)
            assert {target.class_of(said) for said in target.form} - {None} == set(target.classes)
    rules = {rule.name.split("/", 1)[1] for rule in protocol.splits}
    for row in protocol.published:
        assert row.grade in ("A", "B", "C")
        for metric in row.scores:
            target = metric.split(" ", 1)[0]
            known = {target.label for target in protocol.targets} | {c for t in protocol.targets for c in t.classes}
            name = metric.split(" ", 1)[1] if target in known else metric
            assert name in METRIC_NAMES[protocol.kind], metric
        assert row.split in rules or " " in row.split or row.split == "none", row


def test_labels_are_asked_for_in_their_forms():
    assert registry.find("mosei_emotion").labels == dict.fromkeys(
        ("happy", "sad", "anger", "surprise", "disgust", "fear"), Number()
    )
    assert registry.find("avec2017").labels["arousal"] == Series(rate_hz=10.0)
    assert registry.find("meld").labels["emotion"][:3] == ("neutral", "surprise", "fear")


@pytest.mark.parametrize(
    ("name", "classes", "counted"),
    [
        ("iemocap", ("angry", "happy", "neutral", "sad"), {"excited": "happy", "frustrated": None, "sad": "sad"}),
        ("iemocap_happy", ("neutral", "happy", "sad", "angry"), {"excited": None, "happy": "happy"}),
        ("ravdess_7", None, {"calm": "neutral", "neutral": "neutral", "disgust": "disgust"}),
        ("ravdess_6", None, {"calm": None, "neutral": None, "surprised": "surprised"}),
    ],
)
def test_class_maps(name, classes, counted):
    (target,) = registry.find(name).targets
    assert {said: target.class_of(said) for said in counted} == counted
    assert classes in (None, target.classes)


def test_merged_classes_get_one_index_and_can_be_restricted():
    protocol = registry.find("iemocap")
    asked = protocol.labels[protocol.label]
    index = [asked.index(name) for name in ("happy", "excited", "sad", "undecided")]
    batch = replace(fake_batch(SPECS), labels={"emotion": torch.tensor([*index, UNLABELLED])})
    assert protocol.relabel(batch).labels["emotion"].tolist() == [1, 1, 3, UNLABELLED, UNLABELLED]
    two = protocol.restricted(("sad", "happy"))
    assert two.relabel(batch).labels["emotion"].tolist() == [1, 1, 0, UNLABELLED, UNLABELLED]
    with pytest.raises(UserError, match="iemocap has no 'excited'"):
        protocol.restricted(("sad", "excited"))


def test_an_emotion_is_present_above_zero_and_unknown_stays_unknown():
    values = {name: torch.tensor([0.0, 1 / 3, 3.0, float("nan")]) for name in registry.find("mosei_emotion").labels}
    values["sentiment"] = torch.tensor([-3.0, 0.0, 1.0, 2.0])
    batch = replace(fake_batch(SPECS), labels=values)
    said = registry.find("mosei_emotion").relabel(batch).labels
    assert said["fear"].tolist()[:3] == [0.0, 1.0, 1.0]
    assert said["fear"][3].isnan()
    assert said["sentiment"] is values["sentiment"]


def test_a_protocol_of_numbers_says_so_where_classes_are_wanted():
    with pytest.raises(UserError, match=r"mosei_emotion: predicts emotions \(happy, sad, .*one of a choice of classes"):
        registry.find("mosei_emotion").classes  # noqa: B018
