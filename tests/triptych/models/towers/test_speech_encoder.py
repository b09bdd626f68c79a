"""Tiny speech models of the classes that are published, saved to disk as they are."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from triptych import config as configs
from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.towers.hub_model import hub_models

STEP = 40
SPEC = FeatureSpec(
    name="waveform", modality="audio", version=1, rate_hz=400.0, shape=(STEP,), dtype="float16",
    settings=(("max_s", 60.0), ("sample_rate_hz", 16000), ("step_samples", STEP)),
)  # fmt: skip
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 8,
}  # fmt: skip


def kinds():
    """Architecture and whether its feature extractor normalises; a group norm over time is the hard case."""
    from transformers import Data2VecAudioConfig, HubertConfig, Wav2Vec2Config, WavLMConfig

    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    return {
        "wav2vec2": (Wav2Vec2Config(feat_extract_norm="group", **SHAPE), True),
        "wav2vec2-large": (Wav2Vec2Config(**large, **SHAPE), True),
        "hubert": (HubertConfig(feat_extract_norm="group", **SHAPE), True),
        "wavlm": (WavLMConfig(feat_extract_norm="group", **SHAPE), False),
        "data2vec": (Data2VecAudioConfig(**SHAPE), True),
    }


KINDS = ("wav2vec2", "wav2vec2-large", "hubert", "wavlm", "data2vec")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from transformers import AutoModel, Wav2Vec2FeatureExtractor

    root = tmp_path_factory.mktemp("speech")
    for name, (config, normalize) in kinds().items():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.2)
        model.save_pretrained(root / name)
        Wav2Vec2FeatureExtractor(do_normalize=normalize, sampling_rate=16000).save_pretrained(root / name)
    return root


def build(folder, spec=SPEC, width=0):
    system = {"pairwise": {"width": width, "audio": {"encoder": {"model": str(folder)}}}}
    encoder = door.build(configs.load(door.SystemConfig, system), {"audio": spec}, ()).eval()
    encoder.start()
    return encoder


def batch(*lengths, hidden=None):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = 0.2 * torch.randn(*mask.shape, STEP, generator=generator) + 0.1
    values[~mask] = 0.3  # what lies in the padding is nobody's
    track = Track(values=values.half(), mask=mask, times=torch.zeros(*mask.shape, 2), hidden=hidden)
    return Batch(keys=tuple(map(str, lengths)), epochs=(0,) * len(lengths), tracks={"audio": track})


def by_hand(folder, samples):
    """All of a clip's hidden states and the last one, as transformers' own extractor and model give them."""
    from transformers import AutoFeatureExtractor, AutoModel

    read = AutoFeatureExtractor.from_pretrained(folder)(np.float32(samples), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        said = AutoModel.from_pretrained(folder).eval()(read["input_values"], output_hidden_states=True)
    return said.hidden_states, said.last_hidden_state[0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_clip_is_as_transformers_gives_it_whatever_it_is_batched_with(models, kind):
    encoder, together = build(models / kind), batch(12, 7, 0, 12)
    encoded = encoder.encode(together, layers=True)
    output, layers = encoded.towers["audio"], encoded.layers["audio"]
    assert output.mask.sum(dim=1).tolist()[2] == 0
    assert torch.equal(layers[-1].sequence, output.sequence)
    for clip, length in ((0, 12), (1, 7), (3, 12)):
        samples = together.tracks["audio"].values[clip, :length].flatten()
        states, last = by_hand(models / kind, samples)
        assert last.std() > 0.1  # else anything would be close to it
        assert output.mask[clip].sum() == len(last)
        torch.testing.assert_close(output.sequence[clip, : len(last)], last, rtol=0, atol=1e-4)
        torch.testing.assert_close(encoded.pooled["audio"][clip], last.mean(dim=0), rtol=0, atol=1e-4)
        assert len(layers) == len(states) == 3
        for layer, state in zip(layers[:-1], states[:-1], strict=True):
            torch.testing.assert_close(layer.sequence[clip, : len(last)], state[0], rtol=0, atol=1e-4)
    assert torch.all(output.sequence[~output.mask] == 0)
    assert torch.all(encoded.pooled["audio"][2] == 0)
    assert encoder.widths == {"audio": 16}


@torch.no_grad()
def test_a_batch_without_sound_and_a_clip_shorter_than_the_first_filter(models):
    encoder = build(models / "wav2vec2", width=6)
    nothing = encoder.encode(batch(3, 2).keep(()), layers=True)
    assert [layer.sequence.shape[::2] for layer in nothing.layers["audio"]] == [(2, 16)] * 3
    assert not any(layer.mask.any() for layer in nothing.layers["audio"])
    assert torch.equal(nothing.pooled["audio"], torch.zeros(2, 6))
    tiny = replace(SPEC, shape=(4,), settings=(("max_s", 1.0), ("sample_rate_hz", 16000), ("step_samples", 4)))
    short = batch(1).tracks["audio"]
    clip = Batch(keys=("a",), epochs=(0,), tracks={"audio": replace(short, values=short.values[..., :4])})
    assert build(models / "wav2vec2", tiny).encode(clip).towers["audio"].mask.tolist() == [[True]]


@torch.no_grad()
def test_nothing_tells_of_hidden_samples(models):
    encoder = build(models / "wav2vec2")
    hidden = torch.zeros(1, 9, dtype=torch.bool)
    hidden[0, 3:5] = True
    one = batch(9, hidden=hidden)
    values = one.tracks["audio"].values.clone()
    values[0, 3:5] = 0.7
    other = replace(one, tracks={"audio": replace(one.tracks["audio"], values=values)})
    assert torch.equal(encoder.encode(one).pooled["audio"], encoder.encode(other).pooled["audio"])
    assert not torch.equal(encoder.encode(one).pooled["audio"], encoder.encode(batch(9)).pooled["audio"])


@torch.no_grad()
def test_a_saved_encoder_needs_nothing_of_the_model_that_it_came_from(models, tmp_path):
    folder = shutil.copytree(models / "wavlm", tmp_path / "wavlm")
    encoder, clips = build(folder), batch(8, 5)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    door.save_encoder(encoder.train(), tmp_path / "encoder")
    shutil.rmtree(folder)
    pooled = encoder.encode(clips).pooled["audio"]
    assert torch.equal(door.load(tmp_path / "encoder").encode(clips).pooled["audio"], pooled)
    assert not torch.equal(door.untrained(tmp_path / "encoder", 0).encode(clips).pooled["audio"], pooled)
    (tmp_path / "encoder" / "speech_model.json").write_text("{}")
    with pytest.raises(UserError, match=r"speech_model\.json: missing or damaged"):
        door.load(tmp_path / "encoder")


def test_weights_in_pytorchs_file_are_read_without_running_code_from_it(models, tmp_path):
    from transformers import AutoModel

    class Planted:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    folder = shutil.copytree(models / "hubert", tmp_path / "hubert")
    state = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    clips = batch(6)
    pooled = build(folder).encode(clips).pooled["audio"]
    torch.testing.assert_close(pooled, build(models / "hubert").encode(clips).pooled["audio"])
    torch.save({**state, "planted": Planted()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"audio\.encoder\.model: .*hubert: its weights cannot be loaded"):
        build(folder)
    assert not (tmp_path / "ran").exists()


def test_mistakes_are_told_in_one_message(models, text_models, tmp_path):
    lfbe = FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16")
    other_rate = replace(SPEC, settings=(("max_s", 60.0), ("sample_rate_hz", 22050), ("step_samples", STEP)))
    partial = shutil.copytree(models / "wav2vec2", tmp_path / "partial")
    from transformers import AutoModel

    model = AutoModel.from_pretrained(partial)
    model.save_pretrained(partial, state_dict={k: v for k, v in model.state_dict().items() if "layers.1" not in k})
    for folder, spec, message in (
        (models / "wav2vec2", lfbe, r"audio\.encoder: takes waveform, not lfbe"),
        (models / "wav2vec2", other_rate, "was trained on 16000 samples a second, and .* is 22050"),
        (tmp_path / "nowhere", SPEC, r"nowhere is no folder here, and its config and feature extractor"),
        (text_models / "bert", SPEC, r"bert: its config and feature extractor cannot be loaded"),
        (partial, SPEC, r"partial lacks \d+ weights of its own architecture, first: encoder\.layers\.1"),
    ):
        with pytest.raises(UserError, match=message):
            build(folder, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_let_train_all_but_its_convolutions_learn(models, kind):
    encoder, clips = build(models / kind), batch(12, 7, 0)
    (tower,) = hub_models(encoder)
    frozen = encoder.train().encode(clips).pooled["audio"]
    assert not frozen.requires_grad
    assert not any(module.training for module in tower.model.modules())

    tower.let_train()
    assert torch.equal(encoder.eval().encode(clips).pooled["audio"], frozen)
    encoder.train()
    assert tower.model.encoder.training
    assert not tower.model.feature_extractor.training
    torch.manual_seed(0)
    encoder.encode(clips).towers["audio"].sequence.square().sum().backward()
    still = {name.partition(".")[0] for name, weight in tower.model.named_parameters() if weight.grad is None}
    assert still == {"feature_extractor"}
    assert any(weight.grad.any() for weight in tower.model.encoder.layers[0].parameters())

    tower.let_train(from_scratch=True)
    encoder.train().encode(clips).towers["audio"].sequence.square().sum().backward()
    assert all(weight.grad is not None for weight in tower.model.feature_extractor.parameters())


def test_activation_checkpointing_changes_no_gradient(models):
    def gradients(checkpointing: bool) -> list:
        encoder = build(models / "wav2vec2")
        (tower,) = hub_models(encoder)
        tower.let_train()
        tower.activation_checkpointing = checkpointing
        assert any(getattr(part, "gradient_checkpointing", False) for part in tower.model.modules()) == checkpointing
        torch.manual_seed(0)
        encoder.train().encode(batch(12, 7)).towers["audio"].sequence.square().sum().backward()
        return [weight.grad for weight in tower.model.encoder.parameters()]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other)
