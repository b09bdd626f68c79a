"""On the real samples: layouts and media that no test file imitates well enough."""

from collections import Counter
from pathlib import Path

import pytest

from shards.corpora.ravdess import RavdessConfig
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.counts import offsets
from shards.divisions.split import SplitConfig, draw
from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.write import WriteConfig, write
from triptych.config import config_folder, load

pytestmark = pytest.mark.real


def test_grid_is_whole_and_splits_by_prefix(real_data: Path) -> None:
    config = VoxCeleb2Config(
        root=str(real_data / "grid_vox2"), transcripts=["transcripts.ctm"], metadata="vox2_meta.csv"
    )

    clips = list(config.clips())

    assert len(clips) == 700
    assert all(clip.video and clip.audio and clip.words and len(clip.words) == 6 for clip in clips)
    assert {clip.source["gender"] for clip in clips} == {"m"}
    splits = draw(clips, SplitConfig(by="transcript_prefix:4"))
    sides: dict[tuple[str, ...], set[str]] = {}
    for clip in clips:
        sides.setdefault(tuple(word.text for word in (clip.words or ())[:4]), set()).add(splits[clip.key])
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(splits.values())["test"] == pytest.approx(70, abs=4)


@pytest.mark.slow
@pytest.mark.parametrize(("corpus", "by"), [("grid_vox2", "transcript_prefix:4"), ("vox2_14people", "speaker")])
def test_sound_mouth_and_words_agree_and_no_clip_is_named(
    real_data: Path, tmp_path: Path, corpus: str, by: str
) -> None:
    overrides = [f"corpus.voxceleb2.root={real_data / corpus}", "corpus.voxceleb2.transcripts=[transcripts.ctm]"]
    overrides += [f"out={tmp_path / 'out'}", "features.audio=null", "features.video=null", f"split.by={by}"]
    write(load(WriteConfig, config_folder() / "shards" / "voxceleb2.yaml", overrides))

    found = offsets.of_folder(tmp_path / "out", quiet=True)

    assert [offset.beside for offset in found] == ["mouth", "words"]
    for offset in found:
        assert offset.clips >= 100  # a few of the machine's transcripts are empty
        assert offset.seconds is not None
        assert abs(offset.seconds) < 0.1
        assert not offset.outliers


@pytest.mark.slow
def test_clips_of_different_people_with_sound_inside(real_data: Path, tmp_path: Path) -> None:
    overrides = [f"corpus.voxceleb2.root={real_data / 'vox2_form_clips'}", f"out={tmp_path / 'out'}", "workers=1"]

    manifest = write(load(WriteConfig, config_folder() / "shards" / "voxceleb2.yaml", overrides))

    assert (manifest.found, manifest.written, manifest.quarantined) == (7, 7, {})
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    assert manifest.counts["seconds"] == 48


EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def ravdess_shards(real_data: Path, out: Path, modality: str) -> ShardSet:
    overrides = [f"corpus.ravdess.root={real_data / 'ravdess'}", f"corpus.ravdess.modality={modality}"]
    overrides += [f"out={out}", "workers=1", "split.train=1", "split.valid=0", "split.test=0", "timeout_s=600"]
    overrides += ["features.audio=null", "features.video=null"]  # the stream computes them, with the same numbers
    write(load(WriteConfig, config_folder() / "shards" / "ravdess.yaml", overrides))
    return ShardSet(out)


def streamed(shard_set: ShardSet) -> Counter[str]:
    """Emotion -> clips that arrive in batches."""
    features = build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig())))
    loader = EvalLoader(
        shard_set,
        features,
        vocabulary=None,
        batch_size=32,
        rank=0,
        world=1,
        split="train",
        labels={"emotion": EMOTIONS},
    )
    return Counter(EMOTIONS[int(label)] for batch in loader.batches() for label in batch.labels["emotion"])


@pytest.mark.slow
def test_ravdess_sound_to_batches(real_data: Path, tmp_path: Path) -> None:
    shard_set = ravdess_shards(real_data, tmp_path / "out", "audio")

    manifest = shard_set.manifest
    assert (manifest.found, manifest.written, manifest.quarantined) == (480, 480, {})
    emotions = {
        "neutral": 32,
        "calm": 64,
        "happy": 64,
        "sad": 64,
        "angry": 64,
        "fearful": 64,
        "disgust": 64,
        "surprised": 64,
    }
    assert manifest.labels["emotion"] == emotions
    assert manifest.labels["intensity"] == {"normal": 256, "strong": 224}
    assert manifest.counts["without_video"] == 480
    assert streamed(shard_set) == emotions
    clips = RavdessConfig(root=str(real_data / "ravdess"), modality="audio").clips()
    assert Counter(clip.speaker for clip in clips) == {
        "actor-01": 60,
        "actor-02": 60,
        "actor-03": 60,
        "actor-04": 60,
        "actor-05": 60,
        "actor-06": 60,
        "actor-07": 60,
        "actor-08": 60,
    }


@pytest.mark.slow
def test_ravdess_av_to_batches(real_data: Path, tmp_path: Path) -> None:
    """The four are also among the 480 sounds: auto reads them once, with their picture."""
    shard_set = ravdess_shards(real_data, tmp_path / "out", "auto")

    manifest = shard_set.manifest
    assert (manifest.found, manifest.written, manifest.quarantined) == (4, 4, {})
    assert manifest.labels["emotion"] == {"disgust": 1, "surprised": 3}
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    assert streamed(shard_set) == {"disgust": 1, "surprised": 3}
    clips = list(RavdessConfig(root=str(real_data / "ravdess"), modality="all").clips())
    takes = Counter(clip.source["take"] for clip in clips)
    assert (len(clips), len(takes), sum(count == 2 for count in takes.values())) == (484, 480, 4)
    assert Counter(clip.speaker for clip in clips if clip.video) == {"actor-01": 1, "actor-06": 3}
