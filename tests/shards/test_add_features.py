import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from shards import add_features, check, merge
from shards.add_features import AddFeaturesConfig
from shards.corpora.config import CorpusConfig
from shards.corpora.ravdess import RavdessConfig
from shards.divisions.split import SplitConfig
from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.reading.index import DamagedShard, ShardSet
from shards.reading.npy import from_bytes
from shards.reading.read import StreamConfig, TrainLoader
from shards.write import WriteConfig, write
from shards.writing.pool import ChildPool, Failure
from triptych.config import UserError, load

ROOT = Path(__file__).parents[2]
LFBE = "features.audio.lfbe.bands=8"


@pytest.fixture(scope="module")
def plain(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips in 9 shards, without features; `with_lfbe` beside it holds them with LFBE, as `write` computes it."""
    folder = tmp_path_factory.mktemp("sets")
    for name, features in {
        "plain": FeaturesConfig(),
        "with_lfbe": FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=8))),
    }.items():
        write(
            WriteConfig(
                corpus=CorpusConfig(ravdess=RavdessConfig(root=str(tones / "raw"))),
                out=str(folder / name),
                split=SplitConfig(train=0.4, valid=0.3, test=0.3),
                features=features,
                samples_per_shard=3,
                workers=2,
            )
        )
    return folder / "plain"


def config(shards: Path, out: Path, *overrides: str) -> AddFeaturesConfig:
    return load(AddFeaturesConfig, {"shards": str(shards), "out": str(out), "workers": 1}, overrides)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_set_is_the_one_that_write_makes_with_the_feature(plain: Path, tmp_path: Path) -> None:
    before, whole = files(plain), files(plain.with_name("with_lfbe"))

    manifest = add_features.add_features(config(plain, tmp_path / "out", LFBE, "workers=2"))

    assert files(tmp_path / "out") == whole
    assert check.inspect(tmp_path / "out", manifest, quiet=True).problems == []
    assert files(plain) == before


@pytest.mark.slow
def test_a_set_behind_a_url_gives_the_same(plain: Path, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(plain))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        given = [f"out={tmp_path}/out", LFBE, "workers=1", f"cache.folder={tmp_path}/cache"]
        assert add_features.run(url, [*given, "part=1/2"]) == 0
        assert add_features.run(str(tmp_path / "out" / "work" / "config.yaml")) == 0
        server.shutdown()

    assert files(tmp_path / "out") == files(plain.with_name("with_lfbe"))


@pytest.mark.slow
def test_parts_in_any_order_give_the_bytes_of_one_process(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert add_features.run(str(plain), [f"out={out}", LFBE, "part=2/2", "workers=1"]) == 0
    with pytest.raises(UserError, match=r"5 of 9 shards are missing: .*shards features .*work/config.yaml"):
        merge.run(str(out))
    assert add_features.run(str(out / "work" / "config.yaml"), ["part=1/2"]) == 0  # what that command would do
    merge.run(str(out))

    assert files(out) == files(plain.with_name("with_lfbe"))


@pytest.mark.slow
def test_a_second_feature_joins_the_first_and_one_that_is_there_is_left_alone(
    tiny_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny set's face crops are random numbers: computed again, they would be others."""
    folder = tiny_shards()
    both = ["features.video.face_crops.size=8", "features.video.face_crops.rate_hz=5", "drop=[lfbe.npy]"]

    manifest = add_features.add_features(config(folder, tmp_path / "out", *both, "features.audio.log_mel={}"))

    before, after = ShardSet(folder), ShardSet(tmp_path / "out")
    assert [spec["name"] for spec in manifest.features] == ["log_mel", "face_crops"]
    assert (manifest.found, manifest.quarantined) == (before.manifest.found, before.manifest.quarantined)
    for name in ("train", "valid"):
        assert after.split(name).keys == before.split(name).keys
        np.testing.assert_array_equal(after.split(name).durations, before.split(name).durations)
        for sample_id in range(len(before.split(name))):
            old, new = before.split(name).read(sample_id), after.split(name).read(sample_id)
            assert ("log_mel.npy" in new) == ("wav" in old)
            old.pop("lfbe.npy", None), new.pop("log_mel.npy", None)
            assert new == old


@pytest.mark.slow
def test_a_dropped_feature_gives_way_to_one_of_its_name(plain: Path, tmp_path: Path) -> None:
    source = plain.with_name("with_lfbe")
    with pytest.raises(UserError, match=r"lfbe that differs in shape, settings.*drop=\[lfbe.npy\]"):
        add_features.add_features(config(source, tmp_path / "out", "features.audio.lfbe.bands=4"))
    assert not (tmp_path / "out").exists()

    replaced = config(source, tmp_path / "out", "features.audio.lfbe.bands=4", "drop=[lfbe.npy, wav]")
    manifest = add_features.add_features(replaced)

    split = ShardSet(tmp_path / "out").split("train")
    members = split.read(0)
    assert set(members) == {"json", "lfbe.npy"}
    assert from_bytes(members["lfbe.npy"]).shape[1:] == build(replaced.features)["audio"].spec.shape
    assert check.inspect(tmp_path / "out", manifest, quiet=True).problems == []


@pytest.mark.slow
def test_a_run_takes_the_stored_numbers(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_features.add_features(config(plain, tmp_path / "out", LFBE, "drop=[wav]"))
    features = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=8)))

    def batch(folder: Path) -> Any:
        stream = StreamConfig(shards=str(folder), features=features, global_batch=4, micro_batch=4, text=False)
        loader = TrainLoader(ShardSet(folder), stream, vocabulary=None, seed=0, rank=0, world=1)
        return next(iter(loader.steps(0)))[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = batch(tmp_path / "out")
    assert build(features)["audio"].compute({}) is None  # there is nothing left to compute it from
    on_the_fly = batch(plain)
    assert stored.keys == on_the_fly.keys
    assert (stored.tracks["audio"].values == on_the_fly.tracks["audio"].values).all()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "nothing to add: give features.audio.NAME"),
        ([LFBE, "drop=[json]"], "drop: the json says what a clip is"),
        ([LFBE, "drop=[wave]"], r"no clip has a file 'wave'. Did you mean wav\?"),
        (["features.video.face_crops.size=8", "drop=[wav]"], "nothing of audio would be left .* features.audio.NAME"),
        ([LFBE, "part=3/2"], "expected i/n"),
        ([LFBE, "max_quarantined_share=2"], "expected 0 to 1"),
        ([LFBE, "workers=0"], "workers: 0; expected 1 or more"),
        ([LFBE, "timeout_s=0"], "expected more than 0"),
        ([LFBE, "out=SHARDS"], "the shard set itself, which stays as it is"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    plain: Path, tmp_path: Path, overrides: list[str], says: str
) -> None:
    given = [override.replace("SHARDS", str(plain)) for override in (f"out={tmp_path}/out", *overrides)]
    before = files(plain)
    with pytest.raises(UserError, match=says):
        add_features.run(str(plain), given)
    assert not (tmp_path / "out" / "work").exists()
    assert files(plain) == before


def test_what_is_there_already_is_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds lfbe already"):
        add_features.add_features(config(plain.with_name("with_lfbe"), tmp_path / "out", LFBE))


@pytest.mark.slow
def test_another_config_or_another_set_in_the_same_folder_is_refused(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    add_features.add_part(config(plain, out, LFBE, "part=1/9"))

    with pytest.raises(UserError, match=r"features.audio.lfbe.bands 8 \(now 4\)"):
        add_features.add_part(config(plain, out, "features.audio.lfbe.bands=4"))
    with pytest.raises(UserError, match=r"half written with drop \[\] \(now \['wav'\]\)"):
        add_features.add_part(config(plain, out, LFBE, "drop=[wav]"))
    shutil.copytree(plain, tmp_path / "copy")
    add_features.add_part(config(tmp_path / "copy", out, LFBE, "part=2/9", "timeout_s=9"))  # the same, elsewhere
    manifest = tmp_path / "copy" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"corpus": "ravdess"', '"corpus": "other"'))
    with pytest.raises(UserError, match=r"half written with shards 'manifest "):
        add_features.add_part(config(tmp_path / "copy", out, LFBE))


@pytest.mark.slow
def test_a_clip_whose_feature_cannot_be_computed_is_quarantined(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = ShardSet(plain), ChildPool.run
    bad = source.split("valid").keys[1]

    def run(pool: Any, jobs: Any) -> Any:  # as a child that crashed
        for number, (job, result) in enumerate(real(pool, jobs)):
            yield job, Failure("died") if number == len(source.split("train")) + 1 else result

    monkeypatch.setattr(ChildPool, "run", run)
    with pytest.raises(UserError, match=rf"1 clips so far cannot be read.*{bad}: died"):
        add_features.add_features(config(plain, tmp_path / "out", LFBE))
    manifest = add_features.add_features(config(plain, tmp_path / "out2", LFBE, "max_quarantined_share=0.1"))

    assert manifest.quarantined == {bad: "died"}
    assert (manifest.found, manifest.written) == (24, 23)
    assert check.inspect(tmp_path / "out2", manifest, quiet=True).problems == []
    monkeypatch.undo()
    manifest = add_features.add_features(config(plain, tmp_path / "out", LFBE, "retry=true"))
    assert files(tmp_path / "out") == files(plain.with_name("with_lfbe"))


def test_damaged_shards_are_no_clips_to_leave_out(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "copy")
    tar = tmp_path / "copy" / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)

    with pytest.raises(DamagedShard, match=r"train-000001.tar: .*CRC-32 differs"):
        add_features.add_features(config(tmp_path / "copy", tmp_path / "out", LFBE, "max_quarantined_share=1"))


@pytest.mark.dist
@pytest.mark.slow
def test_after_kills_the_set_is_the_same_and_done_shards_stay(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shards", "features", str(plain), f"out={out}", LFBE, "workers=1"]
    for done in (0, 2, 5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(out.glob("work/*.report.json"))) <= done and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "manifest.json").exists()
    done_before = {path: path.stat().st_mtime_ns for path in out.glob("work/*.tar")}
    assert done_before

    assert subprocess.run(command, cwd=ROOT, check=False, timeout=120, capture_output=True).returncode == 0

    assert files(out) == files(plain.with_name("with_lfbe"))
    for path, written in done_before.items():
        assert (out / path.name).stat().st_mtime_ns == written


def test_features_that_clips_may_lack_are_counted(plain: Path, tmp_path: Path) -> None:
    """Sound alone has no picture in which a face could be missed."""
    manifest = add_features.add_features(config(plain, tmp_path / "out", "features.video.landmarks={}"))

    assert manifest.counts["without_landmarks"] == 0
    assert manifest.counts["without_video"] == 24
