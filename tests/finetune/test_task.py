from dataclasses import replace

import torch
from torch import nn

from finetune import losses
from finetune.heads.linear import LinearConfig
from finetune.task import FinetuneTask
from triptych.batch import UNLABELLED, fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoded, Encoder
from triptych.protocols import registry

SPECS = {"audio": FeatureSpec(name="b", modality="audio", version=1, rate_hz=10, shape=(3,), dtype="float32")}
PROTOCOL = registry.find("synthetic", ("happy", "sad", "neutral"))


class TinyEncoder(Encoder):
    """A linear layer over the mean; says "fused" never, as without an anchor."""

    def __init__(self):
        super().__init__()
        self.inputs, self.words, self.widths = SPECS, (), {"audio": 4, "fused": 2}
        self.linear = nn.Linear(3, 4)

    def encode(self, batch, *, fuse=True, layers=False):
        audio = batch.tracks["audio"]
        pooled = self.linear(audio.values.mean(1)) * audio.present[:, None]
        return Encoded(pooled={"audio": pooled}, present={"audio": audio.present})


def task(dropout=0.0):
    torch.manual_seed(0)
    encoder = TinyEncoder()
    head = LinearConfig(dropout=dropout).build(encoder, ("audio",), 3, None)
    return FinetuneTask(encoder, head, losses.build("", PROTOCOL, None))


def labelled(*classes):
    return replace(fake_batch(SPECS, num_clips=len(classes)), labels={"emotion": torch.tensor(classes)})


def test_the_loss_counts_labelled_clips_only():
    whole, part = task()(labelled(0, 1, UNLABELLED, UNLABELLED)), task()(labelled(0, 1, 2, UNLABELLED))
    assert (whole.losses["emotion"].count, part.losses["emotion"].count) == (2, 3)
    assert part.losses["emotion"].sum > whole.losses["emotion"].sum
    assert task().counts(labelled(0, UNLABELLED)) == {"emotion": 1}


def test_a_micro_batch_without_labels_has_a_zero_loss_that_can_be_backpropagated():
    output = task()(labelled(UNLABELLED, UNLABELLED))
    output.losses["emotion"].sum.backward()
    assert output.losses["emotion"].sum.item() == 0


def test_the_encoder_trains_too():
    trained = task()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.05)
    batch = labelled(0, 1, 2, 0)
    before = trained.encoder.linear.weight.clone()
    for _ in range(60):
        optimizer.zero_grad()
        trained(batch).losses["emotion"].sum.backward()
        optimizer.step()
    assert not torch.equal(before, trained.encoder.linear.weight)
    assert trained(batch).report["accuracy"].sum == 4


def test_dropout_is_off_in_evaluation():
    trained, batch = task(dropout=0.5), labelled(0, 1)
    assert not torch.equal(trained.outputs(batch), trained.outputs(batch))
    trained.eval()
    assert torch.equal(trained.outputs(batch), trained.outputs(batch))
