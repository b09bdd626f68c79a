import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.features.config import FeaturesConfig, build
from shards.media.decode import DecodeError
from shards.reading.npy import from_bytes
from shards.writing import compute
from shards.writing.compute import Media, compute_all
from shards.writing.pool import Failure
from triptych.config import load

SETTINGS = {"workers": 1, "timeout_s": 60.0, "batch_clips": 2}


class Network:
    """Stands for a network's feature: the clip's number, and how many clips it was seen with."""

    spec = build(load(FeaturesConfig, {"video": {"landmarks": {}}}))["video"].spec

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        return self.compute_many([members])[0]

    def compute_many(self, clips: Sequence[Mapping[str, bytes]]) -> list[np.ndarray | None]:
        if any(members.get("mp4") == b"damaged" for members in clips):
            raise DecodeError("no picture can be read")
        return [np.array([int(members["mp4"]), len(clips)]) if "mp4" in members else None for members in clips]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FeaturesConfig:
    """A config whose one feature is the network, where there is a GPU."""
    monkeypatch.setattr(compute, "build", lambda config: {"video": Network()})
    monkeypatch.setattr(compute, "_has_gpu", lambda: True)
    return FeaturesConfig()


def clips(shard: str, *pictures: bytes | None) -> list[Media]:
    return [Media(shard, {} if picture is None else {"mp4": picture}) for picture in pictures]


def values(results: Iterator[tuple[Media, Any]]) -> list[Any]:
    name = f"{Network.spec.name}.npy"
    return [
        computed if isinstance(computed, Failure) else name in computed and from_bytes(computed[name]).tolist()
        for _, computed in results
    ]


def test_batches_end_with_their_shard(network: FeaturesConfig) -> None:
    """Else a part that begins at another shard would round other numbers."""
    given = clips("a", b"1", b"2", b"3") + clips("b", b"4", b"5")

    results = list(compute_all(iter(given), network, **SETTINGS))

    assert [clip for clip, _ in results] == given
    assert values(iter(results)) == [[1, 2], [2, 2], [3, 1], [4, 2], [5, 2]]


def test_a_clip_without_the_medium_has_no_feature(network: FeaturesConfig) -> None:
    assert values(compute_all(clips("a", b"1", None), network, **SETTINGS)) == [[1, 2], False]


def test_a_damaged_clip_costs_no_other_of_its_batch(network: FeaturesConfig) -> None:
    given = clips("a", b"1", b"damaged", b"3")

    assert values(compute_all(given, network, **SETTINGS)) == [[1, 1], Failure("no picture can be read"), [3, 1]]


@pytest.mark.slow
def test_a_child_that_takes_too_long_costs_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_compute", slow)
    settings = {**SETTINGS, "timeout_s": 1.0}

    assert values(compute_all(clips("a", b"1", b"2"), FeaturesConfig(), **settings)) == [
        Failure("not done after 1 s of a processor, or 10 times that by the clock"),
        False,
    ]


def slow(clip: Media, features: FeaturesConfig) -> dict[str, bytes]:
    """In a child."""
    time.sleep(60 if clip.files["mp4"] == b"1" else 0)
    return {}


@pytest.mark.slow
def test_vgg16_in_batches_is_vgg16_alone(make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the rounding that the feature states; the real network of random weights, on two frames a clip."""
    monkeypatch.setattr(compute, "_has_gpu", lambda: True)
    features = load(FeaturesConfig, {"video": {"vgg16": {"weights": "random:0", "rate_hz": 5}}})
    media = [make_clip(tmp_path / f"{number}.mp4", seconds=0.4, fps=10 + number).read_bytes() for number in range(2)]

    results = list(compute_all(clips("a", *media), features, **SETTINGS))

    for clip, computed in results:
        assert not isinstance(computed, Failure)
        alone = build(features)["video"].compute(clip.files)
        assert alone is not None
        np.testing.assert_allclose(from_bytes(computed["vgg16.npy"]), alone, rtol=2**-10, atol=1e-6)
