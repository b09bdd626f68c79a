"""Real clips in every form of transcript and storage, from the raw files to the batches that a run reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from shards import check, show
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.features.config import build
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import RawClip, Word
from shards.write import WriteConfig, write
from triptych.batch import Batch
from triptych.config import config_folder, load

pytestmark = [pytest.mark.real, pytest.mark.slow]

NUM_CLIPS = 12
STORED = {
    "original": [],
    "frames": ["store.media=frames", "store.size=[112,112]"],
}


def as_ctm(said: Mapping[str, Sequence[Word]], folder: Path) -> Path:
    lines = [f"{key} 1 {w.start_s} {w.end_s - w.start_s} {w.text}" for key, words in said.items() for w in words]
    (folder / "words.ctm").write_text("\n".join(lines) + "\n")
    return folder / "words.ctm"


def as_textgrids(said: Mapping[str, Sequence[Word]], folder: Path) -> Path:
    """The long form."""
    for key, words in said.items():
        end = words[-1].end_s
        rows = [
            f"        intervals [{n}]:\n            xmin = {w.start_s}\n            xmax = {w.end_s}\n"
            f'            text = "{w.text}"'
            for n, w in enumerate(words, start=1)
        ]
        head = (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
            f"xmin = 0\nxmax = {end}\ntiers? <exists>\nsize = 1\n"
            'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n'
            f"        xmax = {end}\n        intervals: size = {len(words)}\n"
        )
        put(folder / "long" / f"{key}.TextGrid", head + "\n".join(rows) + "\n")
    return folder / "long"


def as_short_textgrids(said: Mapping[str, Sequence[Word]], folder: Path) -> Path:
    for key, words in said.items():
        end = words[-1].end_s
        rows = "".join(f'{w.start_s}\n{w.end_s}\n"{w.text}"\n' for w in words)
        head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n{end}\n<exists>\n1\n'
        put(folder / "short" / f"{key}.TextGrid", f'{head}"IntervalTier"\n"words"\n0\n{end}\n{len(words)}\n{rows}')
    return folder / "short"


def as_whisper(said: Mapping[str, Sequence[Word]], folder: Path) -> Path:
    for key, words in said.items():
        fields = [{"word": f" {w.text}", "start": w.start_s, "end": w.end_s, "probability": 0.9} for w in words]
        put(folder / "json" / f"{key}.json", json.dumps({"language": "en", "segments": [{"words": fields}]}))
    return folder / "json"


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture(scope="session")
def grid_clips(real_data: Path) -> list[RawClip]:
    """As the corpus' own transcript has them."""
    root = real_data / "grid_vox2"
    clips = VoxCeleb2Config(root=str(root), transcripts=["transcripts.ctm"]).clips()
    return sorted(clips, key=lambda clip: clip.key)[: 10 * NUM_CLIPS : 10]


@pytest.fixture
def some_of_grid(grid_clips: list[RawClip], tmp_path: Path) -> Path:
    """The clips in a folder of their own, without transcripts."""
    for clip in grid_clips:
        for kind, path in (("mp4", clip.video), ("aac", clip.audio)):
            assert path is not None
            link = tmp_path / "raw" / "dev" / kind / clip.key
            link.parent.mkdir(parents=True, exist_ok=True)
            link.with_suffix(path.suffix).symlink_to(path.resolve())
    return tmp_path / "raw"


def stream(folder: Path, config: WriteConfig) -> Batch:
    """The training split as one batch."""
    shard_set = ShardSet(folder)
    num = len(shard_set.split("train"))
    loader = EvalLoader(
        shard_set,
        build(config.features),
        vocabulary=shard_set.vocabulary() if shard_set.manifest.counts["words"] else None,
        batch_size=num,
        rank=0,
        world=1,
        split="train",
    )
    (batch,) = loader.batches()
    return batch


@pytest.mark.parametrize("transcribe", [as_ctm, as_textgrids, as_short_textgrids, as_whisper])
@pytest.mark.parametrize("form", STORED)
def test_grid_goes_from_files_to_batches(
    grid_clips: list[RawClip],
    some_of_grid: Path,
    tmp_path: Path,
    form: str,
    transcribe: Callable[[Mapping[str, Sequence[Word]], Path], Path],
) -> None:
    said = {clip.key: clip.words for clip in grid_clips if clip.words}
    out = tmp_path / "out"
    overrides = [
        f"corpus.voxceleb2.root={some_of_grid}",
        f"corpus.voxceleb2.transcripts=[{transcribe(said, tmp_path)}]",
        "corpus.voxceleb2.metadata=null",
        f"out={out}",
        *STORED[form],
    ]
    config = load(WriteConfig, config_folder() / "shards" / "grid.yaml", overrides)

    manifest = write(config)

    assert (manifest.found, manifest.written, manifest.quarantined) == (NUM_CLIPS, NUM_CLIPS, {})
    assert manifest.counts["words"] == 6 * NUM_CLIPS
    assert check.run(str(out)) == 0
    assert show.run(str(out), ["num=2"]) == 0
    assert (out / "contact_sheet.png").stat().st_size > 10_000
    batch = stream(out, config)
    words = ShardSet(out).vocabulary().words
    for row, key in enumerate(batch.keys):
        track = batch.tracks["text"]
        spoken = [words[index - 1] for index in track.values[row][track.mask[row]].tolist()]
        assert spoken == [word.text.lower() for word in said[key]]
        starts = track.times[row][track.mask[row]][:, 0].numpy()
        np.testing.assert_allclose(starts, [word.start_s for word in said[key]], atol=2e-6)
    assert batch.tracks["audio"].mask.sum(dim=1).min() >= 55  # 3 s at 20 steps a second
    assert batch.tracks["video"].mask.sum(dim=1).min() >= 70  # and at 25


@pytest.mark.parametrize("form", STORED)
def test_clips_of_different_people_go_from_files_to_batches(real_data: Path, tmp_path: Path, form: str) -> None:
    overrides = [f"corpus.voxceleb2.root={real_data / 'vox2_form_clips'}", f"out={tmp_path / 'out'}", *STORED[form]]
    config = load(WriteConfig, config_folder() / "shards" / "voxceleb2.yaml", overrides)

    manifest = write(config)

    assert (manifest.found, manifest.written, manifest.quarantined) == (7, 7, {})
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    assert check.run(str(tmp_path / "out")) == 0
    assert show.run(str(tmp_path / "out"), ["num=1"]) == 0
    batch = stream(tmp_path / "out", config)
    assert batch.tracks["audio"].present.all()
    assert batch.tracks["video"].present.all()
