from dataclasses import replace

import pytest
import torch

from triptych import config as configs
from triptych.batch import Batch, Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door

SPEC = FeatureSpec(
    name="audio_sequence", modality="audio", version=1, rate_hz=None, shape=(4,), dtype="float16", max_length=7,
    settings=(("encoder", "ab" * 32), ("has_cls", False)),
)  # fmt: skip
WITH_CLS = replace(SPEC, settings=(("encoder", "ab" * 32), ("has_cls", True)))


def build(spec, width=0):
    system = {"pairwise": {"width": width, "audio": {"stored": {}}}}
    return door.build(configs.load(door.SystemConfig, system), {"audio": spec}, ())


@pytest.mark.parametrize("spec", [SPEC, WITH_CLS])
def test_it_gives_what_it_reads_and_the_mean_of_the_steps_in_time(spec):
    encoder, batch = build(spec), fake_batch({"audio": spec}, num_clips=3, num_words=4, absent={"audio": (1,)})
    said = encoder.encode(batch)
    track = batch.tracks["audio"]
    assert torch.equal(said.towers["audio"].sequence, track.values)
    assert torch.equal(said.towers["audio"].mask, track.mask)
    first = 1 if spec is WITH_CLS else 0
    torch.testing.assert_close(said.pooled["audio"][0], track.values[0, first:4].mean(dim=0))
    torch.testing.assert_close(said.pooled["audio"][2], track.values[2, first:2].mean(dim=0))
    assert said.pooled["audio"][1].tolist() == [0, 0, 0, 0]
    assert encoder.modalities_with_cls == (("audio",) if spec is WITH_CLS else ())
    assert encoder.most_steps("audio") == 7


def test_a_removed_modality_and_a_hidden_step_are_zeros():
    encoder, batch = build(SPEC), fake_batch({"audio": SPEC}, num_clips=2, num_words=4)
    assert not encoder.encode(batch.keep(())).towers["audio"].sequence.any()
    hidden = torch.zeros_like(batch.tracks["audio"].mask)
    hidden[0, 2] = True
    masked = replace(batch, tracks={"audio": replace(batch.tracks["audio"], hidden=hidden)})
    sequence = encoder.encode(masked).towers["audio"].sequence
    assert not sequence[0, 2].any()
    assert torch.equal(sequence[1], batch.tracks["audio"].values[1])


def test_it_is_saved_and_loaded_without_weights(tmp_path):
    door.save_encoder(build(WITH_CLS), tmp_path / "encoder")
    again = door.load(tmp_path / "encoder")
    assert again.inputs["audio"] == WITH_CLS
    assert list(again.parameters()) == []


def test_media_and_a_layer_behind_the_mean_are_refused():
    with pytest.raises(UserError, match=r"audio.stored: reads what .* waveform is made from a clip's media"):
        build(replace(SPEC, name="waveform", settings=()))
    with pytest.raises(UserError, match="no layer to width 8; set width: 0"):
        build(SPEC, width=8)


@pytest.mark.parametrize("step_samples", [40, 160, 800])
def test_towers_over_samples_say_how_many_steps_they_give_at_most(step_samples):
    spec = FeatureSpec(
        name="waveform", modality="audio", version=1, rate_hz=16000 / step_samples, shape=(step_samples,),
        dtype="float16", max_length=2400 // step_samples, settings=(("sample_rate_hz", 16000),),
    )  # fmt: skip
    system = {"pairwise": {"width": 0, "audio": {"wav2vec_large": {"weights": "none"}}}}
    encoder = door.build(configs.load(door.SystemConfig, system), {"audio": spec}, ()).eval()
    mask = torch.ones(1, spec.max_length, dtype=torch.bool)
    track = Track(values=torch.zeros(*mask.shape, step_samples), mask=mask, times=torch.zeros(*mask.shape, 2))
    with torch.no_grad():
        said = encoder.encode(Batch(keys=("longest",), epochs=(0,), tracks={"audio": track}))
    steps = said.towers["audio"].sequence.shape[1]
    assert 0 < steps <= encoder.most_steps("audio")
    assert encoder.most_steps("audio") >= spec.max_length
