from dataclasses import replace

import pytest
import torch

from linear_probe.features import extract, input_features, pooled_features
from triptych.batch import UNLABELLED, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoded, Encoder

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="bands", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32", mean=2.0),
}


class MeanEncoder(Encoder):
    """Pools audio by its mean; "fused" is there only where the batch has words."""

    inputs = SPECS
    words = ("a",)
    widths = {"audio": 3, "fused": 2}  # noqa: RUF012

    def encode(self, batch):
        audio = batch.tracks["audio"]
        pooled = {"audio": (audio.values * audio.mask[..., None]).sum(1)}
        present = {"audio": audio.present}
        if batch.tracks["text"].present.any():
            pooled["fused"] = torch.ones(len(batch), 2)
            present["fused"] = batch.tracks["text"].present
        return Encoded(pooled=pooled, present=present)


def labelled(classes, **settings):
    batch = fake_batch(SPECS, num_clips=len(classes), **settings)
    return replace(batch, labels={"emotion": torch.tensor(classes)})


def test_clips_without_the_label_are_left_out_and_counted():
    batches = [labelled([0, UNLABELLED, 1]), labelled([UNLABELLED, UNLABELLED])]
    split = extract(batches, {"x": pooled_features(MeanEncoder(), ("audio",), ("text", "audio"))}, "emotion")
    assert split.keys == ("clip-0000", "clip-0002")
    assert split.labels.tolist() == [0, 1]
    assert split.features["x"].shape == (2, 3)
    assert split.left_out == 3
    with pytest.raises(UserError, match="no clip has the label 'emotion'"):
        extract(batches[1:], {}, "emotion")


def test_an_absent_pooled_output_is_zeros():
    batch = labelled([0, 1])
    everything = pooled_features(MeanEncoder(), ("audio", "fused"), ("text", "audio"))(batch)
    without_words = pooled_features(MeanEncoder(), ("audio", "fused"), ("audio",))(batch)
    assert everything[:, 3:].eq(1).all()
    assert without_words[:, 3:].eq(0).all()
    assert torch.equal(everything[:, :3], without_words[:, :3])


def test_input_features_are_means_over_real_steps_and_word_counts():
    batch = labelled([0, 1, 0], absent={"audio": (2,)})
    rows = input_features(SPECS, ("text", "audio"))(batch)
    counts, means = rows[:, :-3], rows[:, -3:]
    assert counts.sum(1).tolist() == batch.tracks["text"].mask.sum(1).tolist()
    audio = batch.tracks["audio"]
    assert torch.allclose(means[1], audio.values[1][audio.mask[1]].mean(0) - 2)
    assert means[2].eq(0).all()
