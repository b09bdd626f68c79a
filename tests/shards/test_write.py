import errno
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.features.config import build
from shards.record import ClipRecord, Manifest
from shards.write import WriteConfig, prepare, run, write, write_part
from triptych.config import UserError, load
from triptych.modalities import FeatureSpec

FEATURES = {"audio": {"lfbe": {}}, "video": {"face_crops": {"size": 8}}}


def config(root: Path, out: Path, **changes: Any) -> WriteConfig:
    corpus = {"voxceleb2": {"root": str(root), "transcripts": ["transcripts.ctm"]}}
    shares = {"train": 0.5, "valid": 0.25, "test": 0.25}
    fields = {"corpus": corpus, "out": str(out), "split": shares, "samples_per_shard": 3, "workers": 1, **changes}
    return load(WriteConfig, fields)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_clip_is_accounted_for(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus()
    clips = sorted(root.glob("dev/mp4/*/*/*.mp4"))
    clips[0].write_bytes(clips[0].read_bytes()[:1500])
    clips[3].write_bytes(b"no video at all")

    manifest = write(config(root, tmp_path / "out", max_quarantined_share=0.5))

    assert manifest == Manifest.from_json(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert (manifest.found, manifest.written, manifest.filtered) == (8, 6, {})
    broken = ["/".join(path.with_suffix("").parts[-3:]) for path in (clips[0], clips[3])]
    assert list(manifest.quarantined) == broken
    assert all(manifest.quarantined.values())
    assert sum(shard.num_samples for shard in manifest.shards) == 6
    assert manifest.counts["words"] == 12
    assert manifest.counts["without_audio"] == manifest.counts["without_words"] == 0
    assert {shard.split for shard in manifest.shards} == {"train", "valid", "test"}


@pytest.mark.slow
def test_webdataset_reads_samples_with_unchanged_media(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    root = make_corpus()
    manifest = write(config(root, tmp_path / "out", features=FEATURES))
    shards = [str(tmp_path / "out" / shard.name) for shard in manifest.shards]

    found = {sample["__key__"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False)}

    assert len(found) == 8
    speakers: dict[str, set[str]] = {}
    for key, sample in found.items():
        record = ClipRecord.from_json(json.loads(sample["json"]))
        assert record.key == key
        assert sample["mp4"] == (root / "dev" / "mp4" / f"{key}.mp4").read_bytes()
        assert record.duration_s == pytest.approx(0.4, abs=0.08)
        assert record.has_audio
        assert record.has_video
        assert record.words is not None
        assert record.words[0].text == "hello"
        speakers.setdefault(record.split, set()).add(record.speaker)
    assert sum(map(len, speakers.values())) == 4  # no speaker on two sides


@pytest.mark.slow
def test_stored_features_equal_those_computed_on_the_fly(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    settings = config(make_corpus(), tmp_path / "out", features=FEATURES)
    manifest = write(settings)
    shards = [str(tmp_path / "out" / shard.name) for shard in manifest.shards]

    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        for feature in build(settings.features).values():
            stored = np.load(io.BytesIO(sample[f"{feature.spec.name}.npy"]), allow_pickle=False)
            computed = feature.compute({"mp4": sample["mp4"]})
            assert computed is not None
            assert stored.dtype == np.dtype(feature.spec.dtype)
            assert stored.shape[1:] == feature.spec.shape
            np.testing.assert_array_equal(stored, computed)
    specs = [feature.spec for feature in build(settings.features).values()]
    assert [FeatureSpec.from_json(fields) for fields in manifest.features] == specs


def test_the_same_corpus_gives_the_same_bytes(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus()
    write(config(root, tmp_path / "a", workers=1))
    write(config(root, tmp_path / "b", workers=2))

    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_clips_that_lack_something_are_kept_and_counted(
    make_corpus: Callable[..., Path], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_corpus()
    make_clip(root / "dev" / "mp4" / "id00000" / "video0" / "mute.mp4", seconds=0.4, audio=False)
    make_clip(root / "dev" / "aac" / "id00000" / "video0" / "sound.m4a", seconds=0.4)

    manifest = write(config(root, tmp_path / "out"))

    assert manifest.written == 10
    counts = manifest.counts
    assert (counts["without_audio"], counts["without_video"], counts["without_words"]) == (1, 1, 2)


def test_vocabulary_is_of_the_training_split(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    write(config(make_corpus(), tmp_path / "out"))

    assert (tmp_path / "out" / "vocabulary.txt").read_text() == "hello 4\nnumber0 2\nnumber1 2\n"


def test_filtered_clips_are_counted_with_their_reason(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus()

    manifest = write(config(root, tmp_path / "out", keep={"video": ["video0", "video1", "video3"]}))

    assert (manifest.found, manifest.written, manifest.filtered) == (8, 6, {"video=video2": 2})
    with pytest.raises(UserError, match=r"keep\.vide: no clip has this property; there are clip, set, video"):
        write(config(root, tmp_path / "b", keep={"vide": ["video0"]}))
    with pytest.raises(UserError, match="nothing is left of 8 clips"):
        write(config(root, tmp_path / "c", keep={"set": ["test"]}))


def test_too_many_broken_clips_stop_the_writing(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus()
    for path in sorted(root.glob("dev/mp4/*/*/*.mp4"))[::3]:
        path.write_bytes(b"broken")

    with pytest.raises(UserError, match=r"max_quarantined_share \(0.01\) of 8.*id0000"):
        write(config(root, tmp_path / "out"))

    (listed,) = (tmp_path / "out" / "work").glob("quarantined-*.json")
    assert json.loads(listed.read_text())
    assert not (tmp_path / "out" / "manifest.json").exists()
    manifest = write(config(root, tmp_path / "out", max_quarantined_share=0.5))  # in the same folder
    assert len(manifest.quarantined) == 3
    assert not (tmp_path / "out" / "work").exists()


def test_a_finished_shard_set_is_not_overwritten(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus()
    write(config(root, tmp_path / "out"))
    before = files(tmp_path / "out")

    with pytest.raises(UserError, match="there is a shard set already"):
        write(config(root, tmp_path / "out"))

    assert files(tmp_path / "out") == before


def test_a_second_writer_is_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    """It would do the same work again."""
    root, out = make_corpus(), tmp_path / "out"
    prepare(config(root, out))
    code = "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-c", code, str(out / "work" / "train-000001.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(UserError, match="another process is writing train-000001"):
            write(config(root, out))
        first.communicate("\n")
    assert write(config(root, out)).written == 8


def test_shards_that_are_done_stay(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    write_part(config(root, out, part="1/2"))
    before = {path.name: path.stat().st_mtime_ns for path in (out / "work").iterdir()}
    assert "train-000000.report.json" in before
    shutil.rmtree(root)  # opening their clips again would fail

    write_part(config(root, out, part="1/2"))

    assert {path.name: path.stat().st_mtime_ns for path in (out / "work").iterdir()} == before


def test_a_folder_half_written_with_another_config_is_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    (tmp_path / "list").write_text("video9\n")
    prepare(config(root, out, exclude=str(tmp_path / "list")))

    (tmp_path / "list").rename(tmp_path / "moved")  # it says the same, wherever it lies
    same = config(root, out, exclude=str(tmp_path / "moved"), workers=2, timeout_s=7.0, max_quarantined_share=0.5)
    assert prepare(same).filtered == {"excluded": 0}
    with pytest.raises(UserError, match=r"half written with samples_per_shard 3 \(now 4\), split.seed 0 \(now 1\); "):
        prepare(replace(same, samples_per_shard=4, split=replace(same.split, seed=1)))
    (tmp_path / "moved").write_text("video8\n")
    with pytest.raises(UserError, match="half written with exclude "):
        prepare(same)


def test_repaired_clips_come_in_when_tried_again(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    write(config(root, tmp_path / "whole"))
    path = root / "dev" / "mp4" / "id00001" / "video1" / "00000.mp4"
    content = path.read_bytes()
    path.write_bytes(b"broken")
    write_part(config(root, out, max_quarantined_share=0.5))
    path.write_bytes(content)

    write(config(root, out, retry=True))

    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_part_that_is_none_is_refused(part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected i/n with i from 1 to n, as in part=3/40"):
        config(tmp_path, tmp_path, part=part)


def test_a_check_plans_and_opens_nothing(
    make_corpus: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = make_corpus(), tmp_path / "out"
    overrides = [f"corpus.voxceleb2.root={root}", f"out={out}", "split.by=speaker", "samples_per_shard=4"]
    overrides += ["corpus.voxceleb2.metadata=null", "keep.video=[video0,video1,video2]"]

    assert run("grid", [*overrides, "check=true"]) == 0

    told = capsys.readouterr().out
    assert "found 8 = to write 6 + filtered 2" in told
    assert "filtered: 2 with video=video3" in told
    assert "0 of 3 shards are written" in told
    assert "judging by 2 clips" in told
    assert sorted(path.suffix for path in (out / "work").iterdir()) == [".json", *[".jsonl"] * 3, ".yaml"]


def test_a_full_disk_is_a_message(
    make_corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shards.writing.tar.write_atomically", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        write(config(make_corpus(), tmp_path / "out"))


def test_a_split_that_would_be_empty_is_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 groups cannot fill train, valid, test"):
        write(config(make_corpus(speakers=2), tmp_path / "out"))


def test_writing_without_features_loads_no_torch() -> None:
    code = "import sys, shards.write, shards.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.slow
def test_the_command_writes_and_prints_the_account(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root = make_corpus(speakers=3, clips=1)
    (tmp_path / "my.yaml").write_text("corpus:\n  voxceleb2:\n    root: ???\nout: nowhere\n")
    command = [sys.executable, "-m", "shards", "write", str(tmp_path / "my.yaml"), f"out={tmp_path / 'out'}"]

    missing = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    done = subprocess.run(
        [*command, f"corpus.voxceleb2.root={root}"], capture_output=True, text=True, timeout=120, check=False
    )

    assert missing.returncode == 2
    assert "required and not given: corpus.voxceleb2.root" in missing.stderr
    assert done.returncode == 0, done.stderr
    assert "found 3 = written 3 + filtered 0 + quarantined 0" in done.stdout
    assert (tmp_path / "out" / "manifest.json").exists()
