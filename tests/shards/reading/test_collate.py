from typing import Any

import numpy as np
import pytest
import torch

from shards.features.words import WORDS
from shards.reading.collate import Sample, Steps, collate, cut, feature_steps, text_steps
from shards.record import ClipRecord, Word
from shards.words.words import Vocabulary
from triptych.batch import UNLABELLED
from triptych.config import UserError
from triptych.labels import LabelSpec, Number, Series
from triptych.modalities import FeatureSpec

SOUND = FeatureSpec(
    name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(3,), dtype="float16", support_s=(0.0, 0.065)
)
PICTURE = FeatureSpec(name="crops", modality="video", version=1, rate_hz=5.0, shape=(2, 2), dtype="uint8")
SPECS = {"text": WORDS, "audio": SOUND, "video": PICTURE}


def sample(key: str, *, epoch: int = 0, labels: dict[str, Any] | None = None, **steps: Steps) -> Sample:
    record = ClipRecord(
        key=key,
        speaker="s",
        split="train",
        duration_s=1.0,
        has_audio=True,
        has_video=True,
        words=None,
        source={},
        labels=labels or {},
    )
    return Sample(record=record, epoch=epoch, steps=steps)


def sound(length: int) -> Steps:
    return feature_steps(np.ones((length, 3), dtype=np.float16), SOUND)


def test_ragged_clips_are_padded_with_zeros_and_masked() -> None:
    batch = collate([sample("a", audio=sound(2)), sample("b", epoch=3, audio=sound(4))], SPECS, {})
    track = batch.tracks["audio"]
    assert (batch.keys, batch.epochs) == (("a", "b"), (0, 3))
    assert track.values.shape == (2, 4, 3)
    assert track.values.dtype == torch.float32
    assert track.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert track.values[0, 2:].abs().sum() == 0
    assert track.times[0, 2:].abs().sum() == 0


def test_steps_carry_the_time_that_they_were_computed_from() -> None:
    times = sound(3).times
    np.testing.assert_allclose(times, [[0.0, 0.065], [0.05, 0.115], [0.1, 0.165]], atol=1e-6)


def test_words_become_ids_with_their_own_times() -> None:
    steps = text_steps([Word("Red", 0.1, 0.3), Word("zebra", 0.4, 0.9)], Vocabulary(("set", "red")))
    assert steps.values.tolist() == [2, 0]
    np.testing.assert_allclose(steps.times, [[0.1, 0.3], [0.4, 0.9]], atol=1e-6)
    track = collate([sample("a", text=steps)], SPECS, {}).tracks["text"]
    assert track.values.dtype == torch.int64
    assert track.mask.all()  # an unknown word is a word


def test_pictures_stay_bytes() -> None:
    steps = feature_steps(np.full((2, 2, 2), 200, dtype=np.uint8), PICTURE)
    track = collate([sample("a", video=steps)], SPECS, {}).tracks["video"]
    assert track.values.dtype == torch.uint8
    assert track.values.max() == 200


def test_a_missing_modality_is_an_absent_row_and_never_an_empty_axis() -> None:
    batch = collate([sample("a", audio=sound(2)), sample("b")], SPECS, {})
    assert batch.tracks["audio"].present.tolist() == [True, False]
    assert batch.tracks["video"].values.shape == (2, 1, 2, 2)
    assert batch.tracks["video"].present.tolist() == [False, False]
    assert batch.tracks["text"].values.shape == (2, 1)


def test_cutting_keeps_the_first_steps() -> None:
    spec = FeatureSpec(name="x", modality="audio", version=1, rate_hz=20.0, shape=(3,), dtype="float16", max_length=2)
    steps = cut(sound(5), spec)
    assert len(steps.values) == len(steps.times) == 2
    assert steps.times[0, 0] == 0


def test_labels_are_indices_and_a_clip_without_one_is_unlabelled() -> None:
    labels = {"emotion": ("happy", "sad")}
    batch = collate([sample("a", labels={"emotion": "sad"}), sample("b")], SPECS, labels)
    assert batch.labels["emotion"].tolist() == [1, UNLABELLED]
    with pytest.raises(UserError, match="clip c: emotion is 'furious', which is none of happy, sad"):
        collate([sample("c", labels={"emotion": "furious"})], SPECS, labels)


def test_numbers_are_floats_and_absent_ones_nan() -> None:
    batch = collate(
        [sample("a", labels={"sentiment": -1.5}), sample("b"), sample("c", labels={"sentiment": 2})], {}, MOOD
    )
    values = batch.labels["sentiment"]
    assert values.dtype == torch.float32
    assert values[[0, 2]].tolist() == [-1.5, 2.0]
    assert values.isnan().tolist() == [False, True, False]


def series(*values: float, rate_hz: float = 10.0) -> dict[str, Any]:
    return {"arousal": {"rate_hz": rate_hz, "values": list(values)}}


def test_series_are_padded_with_nan_to_the_longest() -> None:
    clips = [sample("a", labels=series(0.5)), sample("b"), sample("c", labels=series(0.25, 0.0, -1.0))]
    values = collate(clips, {}, AROUSAL).labels["arousal"]
    assert values.dtype == torch.float32
    assert values.isnan().tolist() == [[False, True, True], [True] * 3, [False] * 3]
    assert values[2].tolist() == [0.25, 0.0, -1.0]
    assert collate(clips[1:2], {}, AROUSAL).labels["arousal"].shape == (1, 1)


MOOD: dict[str, LabelSpec] = {"sentiment": Number()}
AROUSAL: dict[str, LabelSpec] = {"arousal": Series(10.0)}


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        ({"sentiment": 1.5}, {"sentiment": ("sad",)}, "clip c: sentiment is a number, and is asked for as a class"),
        ({"sentiment": "sad"}, MOOD, "clip c: sentiment is a class, and is asked for as a number"),
        ({"sentiment": float("nan")}, MOOD, "clip c: sentiment: 'nan' is no class .* leave the label out"),
        (series(0.1), {"arousal": Number()}, "clip c: arousal is a series at 10 Hz, and is asked for as a number"),
        (
            series(0.1, rate_hz=25.0),
            AROUSAL,
            "clip c: arousal is a series at 25 Hz, and is asked for as a series at 10 Hz",
        ),
    ],
)
def test_a_label_of_another_form_is_named(labels: Any, asked: dict[str, LabelSpec], message: str) -> None:
    with pytest.raises(UserError, match=message):
        collate([sample("c", labels=labels)], {}, asked)
