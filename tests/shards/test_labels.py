"""Labels of all forms on their way from a corpus to a batch."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shards import check
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.merge import merge
from shards.reading.index import ShardSet, load_manifest
from shards.reading.read import EvalLoader
from shards.record import Manifest, RawClip
from shards.write import WriteConfig, write, write_part
from triptych.config import UserError, load
from triptych.labels import Number, Series

LABELS: list[dict[str, Any]] = [
    {"emotion": "sad", "sentiment": -1.5, "arousal": {"rate_hz": 10.0, "values": [0.1, 0.2]}},
    {"emotion": "happy", "sentiment": 2, "arousal": {"rate_hz": 10.0, "values": [-0.5, 0.25, 0.5, 1.0]}},
    {"sentiment": 1 / 3},
    {},
]


@pytest.fixture
def config(
    make_corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., WriteConfig]:
    """Four clips, one a shard, with the labels given."""
    root, found = make_corpus(clips=1), VoxCeleb2Config.clips

    def make(labels: list[dict[str, Any]] = LABELS, **changes: Any) -> WriteConfig:
        def labelled(corpus: VoxCeleb2Config) -> Iterator[RawClip]:
            for clip, given in zip(found(corpus), labels, strict=True):
                yield replace(clip, labels=given)

        monkeypatch.setattr(VoxCeleb2Config, "clips", labelled)
        split = {"train": 1.0, "valid": 0.0, "test": 0.0}
        corpus = {"voxceleb2": {"root": str(root)}}
        fields = {"corpus": corpus, "out": str(tmp_path / "out"), "split": split, "samples_per_shard": 1, "workers": 1}
        return load(WriteConfig, {**fields, **changes})

    return make


def test_labels_of_all_forms_go_from_a_corpus_to_the_manifest_and_a_batch(
    config: Callable[..., WriteConfig], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for part in ("2/2", "1/2"):
        write_part(config(part=part))
    manifest = merge(out)

    assert manifest.labels == {"emotion": {"happy": 1, "sad": 1}}
    figures = {
        name: [listed[figure] for figure in ("rate_hz", "clips", "values", "min", "max", "histogram")]
        for name, listed in manifest.numbers.items()
    }
    assert figures == {
        "sentiment": [None, 3, 3, -1.5, 2, {"-1.5": 1, "0.333": 1, "2": 1}],
        "arousal": [10.0, 2, 6, -0.5, 1.0, {"-0.5": 1, "0.1": 1, "0.2": 1, "0.25": 1, "0.5": 1, "1": 1}],
    }
    assert check.inspect(out, manifest, quiet=True).problems == []
    asked = {"emotion": ("happy", "sad"), "sentiment": Number(), "arousal": Series(10.0)}
    loader = EvalLoader(ShardSet(out), {}, vocabulary=None, batch_size=4, rank=0, world=1, split="train", labels=asked)
    (batch,) = loader.batches()
    rows = {key: {name: values[row] for name, values in batch.labels.items()} for row, key in enumerate(batch.keys)}
    first, second, third, none = (rows[key] for key in sorted(rows))
    assert (first["emotion"], second["emotion"], third["emotion"], none["emotion"]) == (1, 0, -1, -1)
    assert (first["sentiment"], second["sentiment"]) == (-1.5, 2.0)
    assert none["sentiment"].isnan()
    torch.testing.assert_close(second["arousal"], torch.tensor([-0.5, 0.25, 0.5, 1.0]))
    assert first["arousal"].isnan().tolist() == [False, False, True, True]
    assert third["arousal"].isnan().all()


def test_a_contradiction_is_refused_before_anything_is_opened(
    config: Callable[..., WriteConfig], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="label sentiment is a class, and a number in other clips"):
        write(config([*LABELS[:3], {"sentiment": "good"}]))
    assert not (tmp_path / "out" / "work").exists()


def test_a_manifest_that_says_other_numbers_is_found(config: Callable[..., WriteConfig], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(config())
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    fields["numbers"]["sentiment"]["max"] = 3.0
    path.write_text(json.dumps(fields))
    assert problems(folder) == ["numbers: sentiment: max 3.0, the clips have 2"]
    del fields["numbers"]["arousal"]
    path.write_text(json.dumps(fields))
    assert problems(folder)[0] == "numbers: arousal is in the clips only"


def problems(folder: Path) -> list[str]:
    return [problem.what for problem in check.inspect(folder, load_manifest(folder), quiet=True).problems]


def test_sets_with_classes_alone_are_as_they_were(tiny_shards: Callable[..., Path]) -> None:
    manifest = load_manifest(tiny_shards())
    assert manifest.numbers == {}
    assert "numbers" not in manifest.to_json()
    assert Manifest.from_json(manifest.to_json()) == manifest
