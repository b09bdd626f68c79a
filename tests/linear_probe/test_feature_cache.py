import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from linear_probe import feature_cache
from linear_probe.feature_cache import FeatureCache, digest
from triptych.config import UserError

IDENTITY = {"of": {"weights": "a1"}, "shown": ("text", "audio")}
ARRAY = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    cache = FeatureCache(tmp_path / "cache")
    cache.put(IDENTITY, ARRAY)
    return cache


def test_what_was_put_comes_back_and_nothing_else_does(cache):
    assert np.array_equal(cache.get(IDENTITY), ARRAY)
    assert cache.get({**IDENTITY, "shown": ("text",)}) is None
    names = {path.name for path in cache.folder.iterdir()}
    assert names == {f"{digest(IDENTITY)}.npy", f"{digest(IDENTITY)}.json", "lock"}


def test_the_description_has_the_whole_identity(cache):
    described = json.loads((cache.folder / f"{digest(IDENTITY)}.json").read_text())
    assert described["identity"]["of"] == IDENTITY["of"]


def test_another_format_is_another_array(cache, monkeypatch):
    monkeypatch.setattr(feature_cache, "FORMAT_VERSION", feature_cache.FORMAT_VERSION + 1)
    assert cache.get(IDENTITY) is None


@pytest.mark.parametrize("place", [3, 70, -1], ids=["magic", "header", "numbers"])
def test_a_flipped_byte_is_refused_and_the_file_named(cache, place):
    path = cache.folder / f"{digest(IDENTITY)}.npy"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name}: .*SHA-256.*remove it and {path.stem}\.json"):
        cache.get(IDENTITY)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (lambda told: {**told, "identity": {**told["identity"], "of": {"weights": "b2"}}}, "of something else"),
        (lambda told: {"identity": told["identity"]}, "sha256"),
        (lambda told: [], "cannot be trusted"),
    ],
)
def test_an_array_of_something_else_is_refused(cache, described, message):
    path = cache.folder / f"{digest(IDENTITY)}.json"
    path.write_text(json.dumps(described(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        cache.get(IDENTITY)


def test_a_missing_array_and_half_a_description_are_refused(cache):
    path = cache.folder / f"{digest(IDENTITY)}.npy"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="remove it"):
        cache.get(IDENTITY)
    path.write_bytes(content)
    description = path.with_suffix(".json")
    description.write_text(description.read_text()[:20])
    with pytest.raises(UserError, match="remove it"):
        cache.get(IDENTITY)


def test_an_array_without_its_description_was_never_written(cache):
    (cache.folder / f"{digest(IDENTITY)}.json").unlink()
    assert cache.get(IDENTITY) is None
    cache.put(IDENTITY, ARRAY + 1)
    assert np.array_equal(cache.get(IDENTITY), ARRAY + 1)


def put(folder: Path, number: int) -> None:
    FeatureCache(folder).put(IDENTITY, np.full((200, 500), number, dtype=np.float32))


def test_of_two_probes_at_once_one_is_kept_whole(tmp_path: Path):
    started = [multiprocessing.get_context("fork").Process(target=put, args=(tmp_path, one)) for one in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    kept = FeatureCache(tmp_path).get(IDENTITY)
    assert kept is not None
    assert kept.min() == kept.max()


def killed(folder: Path) -> None:
    """Ends by SIGKILL between the array and its description."""
    feature_cache.write_atomically = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    put(folder, 1)


def test_a_kill_while_writing_leaves_nothing_that_is_taken_for_whole(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = FeatureCache(tmp_path)
    assert cache.get(IDENTITY) is None
    put(tmp_path, 2)
    assert cache.get(IDENTITY).max() == 2


def test_a_folder_that_cannot_be_used_and_a_full_disk_are_told(cache, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        FeatureCache(tmp_path / "file")
    with pytest.raises(UserError, match="GiB of features are wanted"):
        cache.check_room(2**60)
    with pytest.raises(ValueError, match="allow_pickle"):
        cache.put({"other": 1}, np.array([{}], dtype=object))
