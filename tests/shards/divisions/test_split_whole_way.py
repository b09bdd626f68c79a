"""A known split, from the files of a corpus to the manifest."""

import wave
from pathlib import Path

import pytest

from shards.check import inspect
from shards.corpora.config import CorpusConfig
from shards.corpora.mosi import MosiConfig
from shards.corpora.ravdess import RavdessConfig
from shards.divisions.split import SplitConfig
from shards.reading.index import ShardSet
from shards.write import WriteConfig, write
from triptych.config import UserError


@pytest.fixture(scope="module")
def ravdess(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """A tenth of a second of silence for each of 24 actors, spoken, and one song."""
    root = tmp_path_factory.mktemp("ravdess")
    for name in (*(f"03-01-03-01-01-01-{actor:02d}" for actor in range(1, 25)), "03-02-03-01-01-01-01"):
        with wave.open(str(root / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(bytes(3200))
    return CorpusConfig(ravdess=RavdessConfig(root=str(root)))


def test_a_protocols_fold_is_written_and_checked(ravdess: CorpusConfig, tmp_path: Path) -> None:
    split = SplitConfig(by="protocol:ravdess/emobox_6fold/1")

    manifest = write(WriteConfig(corpus=ravdess, out=str(tmp_path / "set"), split=split, workers=1))

    assert len(manifest.split["sha256"]) == 64
    assert (manifest.found, manifest.written) == (25, 24) or manifest.found == manifest.written == 24  # song by flag
    shard_set = ShardSet(tmp_path / "set")
    assert {key[-2:] for key in shard_set.split("test").keys} == {"01", "11", "20", "21"}
    assert {key[-2:] for key in shard_set.split("valid").keys} == {"04", "10", "12", "14"}
    assert inspect(tmp_path / "set", manifest, quiet=True).problems == []


def test_a_split_that_uses_clips_twice_is_refused_before_anything_is_written(
    ravdess: CorpusConfig, tmp_path: Path
) -> None:
    split = SplitConfig(by="protocol:ravdess/hicmae_6fold_valid_is_test/1")

    with pytest.raises(UserError, match="in valid and test; a shard set holds a clip once"):
        write(WriteConfig(corpus=ravdess, out=str(tmp_path / "set"), split=split, workers=1))

    assert not list(tmp_path.rglob("*.tar"))


@pytest.mark.real
def test_mosis_real_labels_on_the_standard_folds(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "mosi"
    corpus = MosiConfig(root=str(folder), folds=str(folder / "standard_folds.json"), media=False)
    split = SplitConfig(by="protocol:mosi/standard")

    manifest = write(WriteConfig(corpus=CorpusConfig(mosi=corpus), out=str(tmp_path / "set"), split=split, workers=1))

    assert manifest.split["note"] == "the standard folds, 52 / 10 / 31 videos"
    assert manifest.written == 2199
    shard_set = ShardSet(tmp_path / "set")
    assert [len(shard_set.split(name)) for name in ("train", "valid", "test")] == [1284, 229, 686]
