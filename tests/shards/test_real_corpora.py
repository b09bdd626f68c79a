"""On the real samples: layouts and media that no test file imitates well enough."""

from collections import Counter
from pathlib import Path

import pytest

from shards.corpora.ravdess import RavdessConfig
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.split import SplitConfig, draw
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
def test_clips_of_different_people_with_sound_inside(real_data: Path, tmp_path: Path) -> None:
    overrides = [f"corpus.voxceleb2.root={real_data / 'vox2_form_clips'}", f"out={tmp_path / 'out'}", "workers=1"]

    manifest = write(load(WriteConfig, config_folder() / "shards" / "voxceleb2.yaml", overrides))

    assert (manifest.found, manifest.written, manifest.quarantined) == (7, 7, {})
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    assert manifest.counts["seconds"] == 48


def test_ravdess_labels(real_data: Path) -> None:
    clips = list(RavdessConfig(root=str(real_data / "ravdess")).clips())

    assert Counter(clip.source["modality"] for clip in clips) == {"audio": 480, "av": 4}
    assert Counter(clip.labels["emotion"] for clip in clips if clip.audio) == {
        "neutral": 32,
        **dict.fromkeys(("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 64),
    }
    assert len({clip.speaker for clip in clips}) == 8
