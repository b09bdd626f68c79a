import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchvision.models import resnet18

from shards.reading.encoders import EncoderConfig, _inputs, open_encoder
from shards.words.words import Vocabulary
from triptych import config as configs
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.models.load import save_encoder

WORDS = ("happy", "sad")
SHARDS = SimpleNamespace(vocabulary=lambda: Vocabulary(WORDS))
SHIPPED = sorted((configs.config_folder() / "encoder").glob("*.yaml"))


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A config of a small image network and a file of its weights."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(7)
    save_file(resnet18().state_dict(), folder / "weights.safetensors")
    write(folder / "small.yaml", weights=folder / "weights.safetensors")
    return folder / "small.yaml"


def write(file: Path, weights: Path | str, width: int = 0, **features) -> Path:
    image = {"library": "torchvision", "model": "resnet18", "weights": str(weights)}
    features = {"video": {"face_crops": {"size": 16}}, **features}
    system = {"pairwise": {"width": width, "video": {"image": image}}}
    file.write_text(yaml.safe_dump({"system": system, "features": features}))
    return file


@torch.no_grad()
def test_a_config_gives_an_encoder_with_its_weights_and_its_saved_folder_the_same(given, tmp_path):
    opened = open_encoder(str(given), SHARDS)
    assert opened.folder is None
    assert opened.encoder.inputs["video"].shape == (16, 16)
    batch = fake_batch(opened.encoder.inputs, num_clips=2)
    pooled = opened.encoder.encode(batch).pooled["video"]
    save_encoder(opened.encoder, tmp_path / "encoder")
    again = open_encoder(str(tmp_path / "encoder"), SHARDS)
    assert again.folder == tmp_path / "encoder"
    assert torch.equal(again.encoder.encode(batch).pooled["video"], pooled)
    assert again.identity == opened.identity


def test_the_identity_is_of_weights_settings_and_inputs(given, tmp_path):
    opened = open_encoder(str(given), SHARDS)
    state = resnet18().state_dict()  # other weights under the same name
    moved = tmp_path / "small.yaml"
    shutil.copy(given, moved)
    kept = given.with_name("weights.safetensors").read_bytes()
    try:
        save_file(state, given.with_name("weights.safetensors"))
        other = open_encoder(str(moved), SHARDS)
    finally:
        given.with_name("weights.safetensors").write_bytes(kept)
    assert other.architecture == opened.architecture
    assert other.sha256 != opened.sha256
    assert other.identity != opened.identity
    larger = write(tmp_path / "larger.yaml", given.with_name("weights.safetensors"), video={"face_crops": {"size": 20}})
    larger = open_encoder(str(larger), SHARDS)
    assert larger.sha256 == opened.sha256
    assert larger.architecture != opened.architecture


def test_the_same_untrained_is_of_its_seed(given):
    opened = open_encoder(str(given), SHARDS)
    first, again, second = (opened.untrained(seed) for seed in (0, 0, 1))
    weights = [next(encoder.parameters()) for encoder in (first, again, second, opened.encoder)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert not first.training
    assert opened.untrained_identity(0) not in (opened.identity, opened.untrained_identity(1))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_config_uses_all_that_it_says(file):
    assert _inputs(configs.load(EncoderConfig, file), file)


def test_mistakes_are_told_in_one_message(tmp_path):
    unread = {"audio": {"waveform": {}}}
    for given, message in (
        ("wav2vec", r"wav2vec: no encoder: neither a folder with config\.json .* Did you mean wav2vec2\?"),
        (write(tmp_path / "a.yaml", "published", width=8), "`pairwise` with `width: 0`"),
        (write(tmp_path / "b.yaml", "published", **unread), "features: audio has no tower in system.pairwise"),
        (write(tmp_path / "c.yaml", "nowhere.pth"), r"c\.yaml: .*'nowhere\.pth' is no file"),
    ):
        with pytest.raises(UserError, match=message):
            open_encoder(str(given), SHARDS)
