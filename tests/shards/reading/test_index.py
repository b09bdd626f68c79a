"""A shard set, opened: what is refused, and that its tars are anybody's."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from shards.reading.index import ShardSet
from triptych.config import UserError


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json; a shard set is the folder that"),
        (lambda folder: (folder / "manifest.json").write_text("<html>"), "manifest.json: not JSON"),
        (lambda folder: (folder / "manifest.json").write_text('{"format_version": 9}'), "has format 9, this version"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format_version": 2}'),
            "fields are missing or unknown",
        ),
        (lambda folder: (folder / "train-000001.tar").unlink(), "train-000001.tar: the shard cannot be read"),
        (lambda folder: (folder / "train-000001.index.json").unlink(), "train-000001.index.json: the shard cannot"),
        (
            lambda folder: os.truncate(folder / "train-000001.tar", 1000),
            "cut short, 1000 bytes where the manifest says",
        ),
    ],
)
def test_a_damaged_set_is_refused_at_opening(
    tiny_shards: Callable[..., Path], damage: Callable[[Path], Any], message: str
) -> None:
    folder = tiny_shards()
    damage(folder)
    with pytest.raises(UserError, match=message):
        ShardSet(folder).split("train")


def test_a_split_that_is_not_there_names_those_that_are(tiny_shards: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="no clips in a split 'test'; it has train, valid"):
        ShardSet(tiny_shards()).split("test")


def test_webdataset_reads_the_same_bytes(tiny_shards: Callable[..., Path]) -> None:
    """Our tars are anybody's: the index only says where things lie."""
    folder = tiny_shards()
    split = ShardSet(folder).split("valid")
    theirs = webdataset.WebDataset(
        [str(folder / f"valid-{number:06d}.tar") for number in range(2)], shardshuffle=False, empty_check=False
    )
    for sample_id, sample in enumerate(theirs):
        ours = split.read(sample_id)
        assert sample["__key__"] == split.keys[sample_id]
        assert {name: value for name, value in sample.items() if not name.startswith("__")} == ours


def test_an_open_set_travels_to_a_spawned_process(tiny_shards: Callable[..., Path]) -> None:
    import pickle

    split = ShardSet(tiny_shards()).split("valid")
    content = split.read(3)
    assert pickle.loads(pickle.dumps(split)).read(3) == content
