import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.reading import plan
from shards.reading.index import DamagedShard, ShardSet
from shards.reading.read import EvalLoader, StreamConfig, TrainLoader, check_shared_memory
from shards.record import ClipRecord
from triptych.batch import Batch
from triptych.config import UserError

FEATURES = FeaturesConfig(
    audio=AudioFeature(lfbe=LfbeConfig(bands=4)), video=VideoFeature(face_crops=FaceCropsConfig(size=8, rate_hz=5.0))
)
SOUND = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4)))
NUM_TRAIN = 23
REAL = Path(os.environ.get("TRIPTYCH_REAL_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


def train_loader(folder: Path, *, rank: int = 0, world: int = 1, **changes: Any) -> TrainLoader:
    keep = {name: changes.pop(name) for name in ("labels", "prepare", "features_given") if name in changes}
    settings = {"shards": str(folder), "features": FEATURES, "global_batch": 7, "micro_batch": 3, **changes}
    return TrainLoader(
        ShardSet(folder),
        StreamConfig(**settings),
        vocabulary=ShardSet(folder).vocabulary(),
        seed=1,
        rank=rank,
        world=world,
        **keep,
    )


def eval_loader(folder: Path, *, rank: int = 0, world: int = 1, **changes: Any) -> EvalLoader:
    settings = {"batch_size": 2, "vocabulary": ShardSet(folder).vocabulary(), **changes}
    return EvalLoader(ShardSet(folder), build(settings.pop("features", FEATURES)), rank=rank, world=world, **settings)


def keys_of(folder: Path, num_steps: int, *, world: int = 1, start: int = 0, **changes: Any) -> list[list[str]]:
    """The global batches of a world, each put together again in the order of the stream."""
    ranks = [train_loader(folder, rank=rank, world=world, **changes) for rank in range(world)]
    split, stream, num = ranks[0].clips.split, ranks[0].stream, ranks[0].num_micro_batches
    order = plan.Order(split.shard_sizes, ranks[0].seed, stream.global_batch, split.durations, stream.length_pool)
    steps = []
    for number, shares in enumerate(islice(zip(*(rank.steps(start) for rank in ranks)), num_steps), start):
        ids, epochs = order.step(number)
        keys = [""] * len(ids)
        for batches, dealt in zip(shares, plan.deal(split.durations[ids], num, world), strict=True):
            for batch, places in zip(batches, dealt, strict=True):
                assert batch.epochs == tuple(epochs[places])
                for key, place in zip(batch.keys, places, strict=True):
                    keys[place] = key
        steps.append(keys)
    return steps


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_order_is_the_same_for_every_world_and_worker_count(
    tiny_shards: Callable[..., Path], world: int, workers: int
) -> None:
    folder, num_steps = tiny_shards(), 7
    steps = keys_of(folder, num_steps, world=world, workers=workers)
    assert steps == keys_of(folder, num_steps, micro_batch=7)
    stream = [key for step in steps for key in step]
    assert set(Counter(stream[:NUM_TRAIN]).values()) == {1}
    assert set(Counter(stream[NUM_TRAIN : 2 * NUM_TRAIN]).values()) == {1}
    assert stream[:NUM_TRAIN] != stream[NUM_TRAIN : 2 * NUM_TRAIN]


def test_with_a_pool_batches_are_of_like_length(tiny_shards: Callable[..., Path]) -> None:
    """The 23 clips have five lengths."""
    folder = tiny_shards()

    def num_lengths(length_pool: int) -> float:
        batches = keys_of(folder, 3, length_pool=length_pool, global_batch=5, micro_batch=5)
        return float(np.mean([len({int(key[-2:]) % 5 for key in batch}) for batch in batches]))

    assert num_lengths(10) <= 2 < num_lengths(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_is_the_tail_of_the_uninterrupted_one(tiny_shards: Callable[..., Path], workers: int) -> None:
    folder = tiny_shards()
    whole = list(islice(train_loader(folder).steps(0), 6))
    tail = list(islice(train_loader(folder, workers=workers).steps(3), 3))
    for expected, batch in zip(
        (b for step in whole[3:] for b in step), (b for step in tail for b in step), strict=True
    ):
        assert (batch.keys, batch.epochs) == (expected.keys, expected.epochs)
        for name, track in batch.tracks.items():
            for part in ("values", "mask", "times"):
                assert torch.equal(getattr(track, part), getattr(expected.tracks[name], part))


def test_all_ranks_take_equally_many_micro_batches_and_the_epoch_travels_with_the_clip(
    tiny_shards: Callable[..., Path],
) -> None:
    folder = tiny_shards()
    for rank in range(3):
        steps = list(islice(train_loader(folder, rank=rank, world=3, micro_batch=2).steps(0), 4))
        assert [len(step) for step in steps] == [2] * 4
    (fourth,) = next(train_loader(folder, micro_batch=7).steps(3))  # positions 21 to 27 of epochs of 23
    assert fourth.epochs == (0, 0, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_the_global_random_numbers_alone(tiny_shards: Callable[..., Path], workers: int) -> None:
    """Else dropout after a resume, or after an evaluation, would differ from the uninterrupted run's."""
    folder = tiny_shards()
    before = torch.get_rng_state()
    list(islice(train_loader(folder, workers=workers).steps(0), 1))
    list(eval_loader(folder, workers=workers).batches())
    assert torch.equal(torch.get_rng_state(), before)


def test_stored_and_computed_features_are_the_same_numbers(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    stored = list(eval_loader(folder, features=SOUND).batches())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "features": []}))
    computed = list(eval_loader(folder, features=SOUND).batches())
    for one, other in zip(stored, computed, strict=True):
        assert one.tracks["audio"].values.abs().sum() > 0
        assert torch.equal(one.tracks["audio"].values, other.tracks["audio"].values)


@pytest.mark.real
def test_real_clips_give_the_same_numbers_stored_and_computed_in_workers(shard_set_of: Callable[..., Path]) -> None:
    """Real sound and picture, decoded in forked workers too."""
    if not (REAL / "grid_vox2").is_dir():
        pytest.skip("real samples not found: set TRIPTYCH_REAL_DATA")
    wanted = FeaturesConfig(
        audio=AudioFeature(lfbe=LfbeConfig()), video=VideoFeature(face_crops=FaceCropsConfig(size=16))
    )
    features = build(wanted)
    contents = []
    for video in sorted((REAL / "grid_vox2/dev/mp4").rglob("*.mp4"))[:6]:
        media = {"mp4": video.read_bytes()}
        media["m4a"] = Path(str(video).replace("/mp4/", "/aac/")).with_suffix(".m4a").read_bytes()
        record = ClipRecord(
            key=f"{video.parent.name}/{video.stem}",
            speaker="id90001",
            split="valid",
            duration_s=3.0,
            has_audio=True,
            has_video=True,
            words=None,
            source={},
            labels={},
        )
        stored = {f"{one.spec.name}.npy": npy_bytes(one.compute(media)) for one in features.values()}
        contents.append((record, {"json": json.dumps(record.to_json()).encode(), **media, **stored}))
    folder = shard_set_of(contents, features=[one.spec.to_json() for one in features.values()])
    from_disk = list(eval_loader(folder, features=wanted, vocabulary=None).batches())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "features": []}))
    for workers in (0, 2):
        computed = list(eval_loader(folder, features=wanted, vocabulary=None, workers=workers).batches())
        for one, other in zip(from_disk, computed, strict=True):
            assert one.keys == other.keys
            for modality, rate in (("audio", 20), ("video", 25)):
                assert one.tracks[modality].mask.sum() > 2.8 * rate * len(one)
                assert torch.equal(one.tracks[modality].values, other.tracks[modality].values)


def npy_bytes(values: np.ndarray | None) -> bytes:
    content = io.BytesIO()
    assert values is not None
    np.save(content, values, allow_pickle=False)
    return content.getvalue()


def test_a_stored_feature_with_other_settings_is_not_used(
    tiny_shards: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_shards()
    wanted = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=6)))
    batch = next(eval_loader(folder, features=wanted).batches())
    assert "lfbe differs in shape, settings" in caplog.text
    assert batch.tracks["audio"].values.shape[-1] == 30


def test_text_can_be_left_out_and_then_needs_no_vocabulary(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    assert set(next(train_loader(folder, text=False).steps(0))[0].tracks) == {"audio", "video"}
    assert set(next(eval_loader(folder, vocabulary=None).batches()).tracks) == {"audio", "video"}
    with pytest.raises(UserError, match="text: true needs a vocabulary"):
        TrainLoader(ShardSet(folder), train_loader(folder).stream, vocabulary=None, seed=0, rank=0, world=1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_reads_every_clip_once_as_of_epoch_0(
    tiny_shards: Callable[..., Path], world: int, workers: int
) -> None:
    folder = tiny_shards()
    ranks = [list(eval_loader(folder, rank=rank, world=world, workers=workers).batches()) for rank in range(world)]
    keys = [key for batches in ranks for batch in batches for key in batch.keys]
    assert keys == ShardSet(folder).split("valid").keys
    assert {len(batches) for batches in ranks} == {eval_loader(folder, world=world).num_batches}
    assert {epoch for batches in ranks for batch in batches for epoch in batch.epochs} == {0}


def test_masks_are_drawn_by_the_given_function(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    loader = train_loader(folder, workers=1, prepare=lambda batch: batch.keep(("text",)))
    batch = next(loader.steps(0))[0]
    assert not batch.tracks["audio"].mask.any()


def flip(folder: Path, shard: str, key: str, extension: str, content: bytes | None = None) -> int:
    """Damage a member's middle byte, or replace its payload; returns its offset."""
    index = json.loads((folder / f"{shard}.index.json").read_text())
    offset, size, _ = index["samples"][key][extension]
    tar = bytearray((folder / f"{shard}.tar").read_bytes())
    if content is None:
        tar[offset + size // 2] ^= 1
    else:
        tar[offset : offset + size] = content * size
    (folder / f"{shard}.tar").write_bytes(tar)
    return offset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("content", "how"), [(None, "CRC-32 differs"), (b"\0", "all bytes are zero")])
def test_damaged_bytes_are_named_in_one_message(
    tiny_shards: Callable[..., Path], workers: int, content: bytes | None, how: str
) -> None:
    folder = tiny_shards()
    offset = flip(folder, "valid-000001", "valid-speaker1/clip06", "lfbe.npy", content)
    with pytest.raises(DamagedShard) as caught:
        list(eval_loader(folder, workers=workers).batches())
    message = str(caught.value)
    assert "valid-000001.tar: valid-speaker1/clip06.lfbe.npy" in message
    assert f"at byte {offset}: damaged, {how}" in message
    assert "Traceback" not in message
    assert "\n" not in message


def test_a_member_that_nobody_asked_for_is_not_read(tiny_shards: Callable[..., Path]) -> None:
    """With stored features, the media stay on disk; so does a damage of theirs."""
    folder = tiny_shards()
    flip(folder, "valid-000001", "valid-speaker1/clip06", "wav")
    assert sum(len(batch) for batch in eval_loader(folder).batches()) == 7


def test_media_that_cannot_be_decoded_are_named(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards(features=[])

    class Broken:
        spec = build(SOUND)["audio"].spec

        def compute(self, members: Any) -> None:
            from shards.media.decode import DecodeError

            raise DecodeError("the audio stream is empty")

    loader = EvalLoader(ShardSet(folder), {"audio": Broken()}, vocabulary=None, batch_size=2, rank=0, world=1)
    with pytest.raises(
        UserError, match="clip valid-speaker0/clip00: lfbe cannot be computed: the audio stream is empty"
    ):
        list(loader.batches())


def test_a_longer_clip_is_cut_and_the_first_one_is_named(
    tiny_shards: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    folder = tiny_shards(features=[])
    feature = build(SOUND)["audio"]
    feature.spec = replace(feature.spec, max_length=3)
    loader = EvalLoader(ShardSet(folder), {"audio": feature}, vocabulary=None, batch_size=4, rank=0, world=1)
    batches = list(loader.batches())
    assert "is cut to 3" in caplog.text
    assert caplog.text.count("is cut to 3") == 1
    assert {batch.tracks["audio"].values.shape[1] for batch in batches} == {3}


def test_a_scheduler_signal_does_not_end_the_workers(tiny_shards: Callable[..., Path]) -> None:
    """Slurm signals every process of a step; the run still has a checkpoint to save and batches to read."""
    import multiprocessing

    folder = tiny_shards()
    steps = train_loader(folder, workers=2).steps(0)
    next(steps)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(worker.pid or 0, number)
    assert len(list(islice(steps, 5))) == 5
    steps.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "raise ValueError"])
@pytest.mark.slow
def test_a_run_that_ends_in_the_middle_of_an_epoch_takes_its_workers_along(
    tiny_shards: Callable[..., Path], ending: str
) -> None:
    """Workers that ignore the scheduler's SIGTERM must not keep a crashed rank, and with it the job, alive."""
    folder = tiny_shards()
    script = f"""
from pathlib import Path
from shards.features.config import FeaturesConfig
from shards.reading.read import ShardSet, StreamConfig, TrainLoader
folder = Path({str(folder)!r})
stream = StreamConfig(shards="", features=FeaturesConfig(), global_batch=4, micro_batch=4, workers=2)
shard_set = ShardSet(folder)
steps = TrainLoader(shard_set, stream, vocabulary=shard_set.vocabulary(), seed=0, rank=0, world=1).steps(0)
next(steps)
{ending}
"""
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True)
    assert ended.returncode == {"": 0, "raise SystemExit(3)": 3, "raise ValueError": 1}[ending], ended.stderr


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"global_batch": 24}, 1, "has 23 clips and global_batch is 24"),
        ({"global_batch": 2}, 4, "less than the number of ranks"),
        ({"micro_batch": 1}, 2, "raise micro_batch to 2"),
    ],
)
def test_a_share_that_cannot_be_is_refused_before_the_first_step(
    tiny_shards: Callable[..., Path], changes: dict[str, int], world: int, message: str
) -> None:
    folder = tiny_shards()
    with pytest.raises(UserError, match=message):
        train_loader(folder, world=world, **changes)


def test_labels_become_class_indices(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    batches = list(eval_loader(folder, labels={"emotion": ("happy", "sad")}).batches())
    assert torch.cat([batch.labels["emotion"] for batch in batches]).tolist() == [0, 1, 0, 1, -1, 1, 0]
    with pytest.raises(UserError, match="clip valid-speaker0/clip01: emotion is 'sad', which is none of happy, calm"):
        list(eval_loader(folder, labels={"emotion": ("happy", "calm")}, workers=1).batches())


def test_a_batch_is_quiet(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches: list[Batch] = list(eval_loader(folder).batches())
    assert len(batches) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is elsewhere")
def test_workers_without_shared_memory_are_refused_before_they_wait_for_ever(monkeypatch, tmp_path: Path) -> None:
    check_shared_memory(2, tmp_path)
    check_shared_memory(0, tmp_path / "missing")
    with pytest.raises(UserError, match=r"stream\.workers: 2 workers .* is missing or read-only .* stream\.workers=0"):
        check_shared_memory(2, tmp_path / "missing")
    monkeypatch.setattr("shards.reading.read.shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(UserError, match=r"which has 1\.0 MiB free here: mount it larger"):
        check_shared_memory(2, tmp_path)
