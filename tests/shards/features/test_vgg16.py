import hashlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from shards.features import vgg16_weights
from shards.features.config import BatchedFeature, FeaturesConfig, build
from shards.features.recover import features_of
from shards.features.vgg16 import Vgg16, Vgg16Config, fc7
from shards.media.decode import decode_video
from triptych.config import UserError, load


class Tiny(nn.Module):
    """Stands for the network: 4096 weighted sums of 8x8 patch means of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.last = nn.Linear(3 * 28 * 28, 4096)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pool(x).flatten(1)).relu()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    vgg16_weights.network.cache_clear()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg16_weights, "_up_to_fc7", Tiny)


def weights_of(feature: Any) -> str:
    return str(dict(feature.spec.settings)["weights"])


def test_weights_that_differ_are_features_that_differ(tmp_path: Path) -> None:
    """The path does not count, the content does."""
    one, copy, other = (tmp_path / f"{name}.pth" for name in ("one", "copy", "other"))
    one.write_bytes(b"a")
    copy.write_bytes(b"a")
    other.write_bytes(b"b")

    specs = [Vgg16(Vgg16Config(weights=str(path))).spec for path in (one, copy, other)]

    assert specs[0] == specs[1] != specs[2]
    assert Vgg16(Vgg16Config()).spec != specs[0]
    assert Vgg16(Vgg16Config(weights="random:1")).spec != Vgg16(Vgg16Config(weights="random:2")).spec
    one.write_bytes(b"new")
    assert Vgg16(Vgg16Config(weights=str(one))).spec != specs[0]


def test_a_downloaded_file_is_the_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "anything.pth"
    file.write_bytes(b"as if downloaded")
    monkeypatch.setitem(vgg16_weights.PUBLISHED, "IMAGENET1K_V1", hashlib.sha256(b"as if downloaded").hexdigest()[:8])

    assert Vgg16(Vgg16Config(weights=str(file))).spec == Vgg16(Vgg16Config()).spec


def test_torchvision_still_publishes_what_the_name_means() -> None:
    for name, start in vgg16_weights.PUBLISHED.items():
        assert models.VGG16_Weights[name].url.endswith(f"vgg16-{start}.pth")


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("IMAGENET1K_V2", "Did you mean IMAGENET1K_V1"),
        ("random", "random:SEED"),
        ("random:x", "random:SEED"),
        ("sha256:123", "64 hexadecimal"),
        ("no/such/file.pth", "no file"),
    ],
)
def test_weights_that_are_not_there_are_refused(weights: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(load(FeaturesConfig, {"video": {"vgg16": {"weights": weights}}}))


def test_an_encoder_needs_no_weights_where_the_feature_is_stored(tmp_path: Path, make_clip) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"a")
    stored = Vgg16(Vgg16Config(weights=str(file), rate_hz=5)).spec
    file.unlink()

    recovered = features_of({"video": stored})["video"]

    assert recovered.spec == stored
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.4).read_bytes()
    with pytest.raises(UserError, match="hash does not say where"):
        recovered.compute({"mp4": clip})


def test_a_spec_does_not_load_torch() -> None:
    code = (
        "import sys; from shards.features.vgg16 import *; from shards.features.config import *; "
        "Vgg16(Vgg16Config(weights='random:0')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_files_weights_are_used(suffix: str, make_clip, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, path = Tiny(), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict() | {"classifier.6.bias": torch.zeros(7)}, path)
    else:
        save_file(model.state_dict(), path)
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.4, size=224).read_bytes()
    frames = decode_video(clip, 25)
    assert frames is not None

    feature = Vgg16(Vgg16Config(weights=str(path)))
    values = feature.compute({"mp4": clip})

    assert values is not None
    assert (values.dtype, values.shape) == (np.float16, (10, *feature.spec.shape))
    np.testing.assert_array_equal(values, fc7(model, frames))
    assert values.std() > 0


@pytest.mark.usefixtures("tiny")
def test_many_clips_at_once_give_each_its_own_numbers(make_clip, tmp_path: Path) -> None:
    feature = Vgg16(Vgg16Config(weights="random:0", rate_hz=12.5))
    seconds = (1.0, 0.4, 2.7)  # 12 + 5 + 33 frames: batches straddle clips
    clips = [{"mp4": make_clip(tmp_path / f"{s}.mp4", seconds=s).read_bytes()} for s in seconds]
    mute = {"wav": make_clip(tmp_path / "a.wav").read_bytes()}

    many = feature.compute_many([clips[0], mute, *clips[1:]])

    assert isinstance(feature, BatchedFeature)
    assert many[1] is None
    for values, clip in zip([many[0], *many[2:]], clips, strict=True):
        alone = feature.compute(clip)
        assert values is not None
        assert alone is not None
        np.testing.assert_allclose(values, alone, rtol=2**-10, atol=2**-14)
    assert feature.compute_many([mute]) == [None]


def test_frames_are_scaled_as_torchvisions_weights_want_them() -> None:
    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    preset = models.VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=224, resize_size=224)

    ours = fc7(Echo(), frame[None])[0].reshape(3, 224, 224)

    np.testing.assert_allclose(ours, preset(Image.fromarray(frame)).numpy(), atol=2e-3)


@pytest.mark.usefixtures("tiny")
def test_the_middle_square_of_a_wide_frame_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((1, 90, 160, 3), dtype=np.uint8)
    wide[:, :, 35:125] = 200
    monkeypatch.setattr("shards.features.vgg16.decode_video", lambda data, rate_hz: wide)
    square = np.full((1, 224, 224, 3), 200, dtype=np.uint8)

    values = Vgg16(Vgg16Config(weights="random:0")).compute({"mp4": b""})

    assert values is not None
    np.testing.assert_array_equal(values, fc7(vgg16_weights.network("random:0", "random:0"), square))


@pytest.mark.usefixtures("tiny")
def test_numbers_beyond_float16_are_refused(make_clip, tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    save_file({name: value * 1e7 for name, value in Tiny().state_dict().items()}, path)
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.4).read_bytes()

    with pytest.raises(UserError, match="beyond float16"):
        Vgg16(Vgg16Config(weights=str(path))).compute({"mp4": clip})


class Trap:
    """Unpickling it runs code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("kind", ["code", "rubbish.pth", "rubbish.safetensors", "cut", "other network", "list"])
def test_files_that_hold_no_vgg16_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / (kind if kind.startswith("rubbish") else f"{kind}.pth")
    if kind == "code":
        path.write_bytes(pickle.dumps({"features.0.weight": Trap()}, protocol=2))
    elif kind.startswith("rubbish"):
        path.write_bytes(b"<html>not found</html>" * 9)
    else:
        torch.save([1] if kind == "list" else {"weight": torch.zeros(300)}, path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:500])
    which = vgg16_weights.identity(str(path))

    with pytest.raises(UserError, match=path.name):
        vgg16_weights.network(str(path), which)
    assert not (tmp_path / "sprung").exists()


def test_without_a_network_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **settings: Any) -> None:
        assert settings["check_hash"]
        assert settings["weights_only"]
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)

    with pytest.raises(UserError, match=r"vgg16-397923af\.pth.*vgg16\.weights="):
        vgg16_weights.network("IMAGENET1K_V1", "IMAGENET1K_V1")


@pytest.mark.slow
def test_it_is_torchvisions_vgg16(make_clip, tmp_path: Path) -> None:
    """At full size, 0.5 GB of random weights in a file with the classes on top, as published ones are."""
    torch.manual_seed(0)
    whole, path = models.vgg16(), tmp_path / "vgg16.safetensors"
    save_file(whole.state_dict(), path)
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.2, size=224).read_bytes()
    frames = decode_video(clip, 5)
    assert frames is not None
    preset = models.VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=224, resize_size=224)
    whole.eval()
    seen: list[torch.Tensor] = []
    whole.classifier[4].register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.inference_mode():
        whole(torch.stack([preset(Image.fromarray(frame)) for frame in frames]))

    values = Vgg16(Vgg16Config(weights=str(path), rate_hz=5)).compute({"mp4": clip})

    assert values is not None
    assert (values > 0).any()
    np.testing.assert_allclose(values, seen[0].numpy(), rtol=2**-10, atol=1e-4)
    path.unlink()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    network = vgg16_weights.network("random:0", "random:0")
    assert next(network.parameters()).is_cuda
    on_gpu = fc7(network, frames)

    np.testing.assert_allclose(on_gpu, fc7(network.cpu(), frames), rtol=2**-9, atol=2**-12)
