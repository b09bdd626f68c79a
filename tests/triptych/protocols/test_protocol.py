from dataclasses import replace

import pytest
import torch

from triptych.batch import UNLABELLED, fake_batch
from triptych.config import UserError
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
    index = [protocol.corpus_classes.index(name) for name in ("neutral", "sad", "angry")]
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
