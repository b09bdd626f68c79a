"""What each clip costs the stages of docs/voxceleb2.md: `python benchmarks/scale.py VOX2_ROOT`.

VOX2_ROOT holds a few real clips in VoxCeleb2's layout; `writer` and `stored` use each of them COPIES times. Every
stage runs in a process of its own and in one thread:

    scan    `write ... check=true` of made-up trees (empty files and a CTM), and its memory, from the difference of two
    merge   of SHARDS written shards with real indexes and empty tars
    writer  the CPU time of the process that collects what its children opened
    stored  lfbe and face_crops from the shards to batches
    fetch   a shard of 256 MB over HTTP into the cache, its SHA-256 compared
    vgg16   fc7 of a clip, with random weights
"""

import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from shards.corpora.config import CorpusConfig
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.counts.summary import Tally
from shards.divisions.split import SplitConfig
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.features.vgg16 import Vgg16, Vgg16Config
from shards.merge import merge
from shards.reading import plan
from shards.reading.cache import CacheConfig
from shards.reading.clips import Clips, MicroBatch
from shards.reading.index import ShardSet
from shards.reading.storage import storage_of
from shards.record import Member, ShardIndex, ShardInfo
from shards.write import WriteConfig, prepare, write
from shards.writing.work_folder import Plan, PlannedShard, Report, Work

COPIES = 40
TREES = (10_000, 50_000)
WORDS = 20
SHARDS, PER_SHARD = 50, 1000
FETCHED = 256 * 10**6
VOCABULARY = [f"word{number}" for number in range(20_000)]


def scan(num_clips: int, folder: Path) -> dict[str, float]:
    """Time and peak memory of planning; run once for each of TREES."""
    draw = random.Random(0)
    with (folder / "words.ctm").open("w") as ctm:
        for clip in range(num_clips):
            key = f"id{clip % 6000:05d}/video{clip // 8:08d}/{clip:06d}"
            for kind, suffix in (("mp4", "mp4"), ("aac", "m4a")):
                path = folder / "dev" / kind / f"{key}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            for word in range(WORDS):
                ctm.write(f"{key} 1 {0.35 * word:.2f} 0.30 {draw.choice(VOCABULARY)} 0.90\n")
    start = time.perf_counter()
    corpus = VoxCeleb2Config(root=str(folder), transcripts=["words.ctm"])
    made = prepare(WriteConfig(corpus=CorpusConfig(voxceleb2=corpus), out=str(folder / "out"), min_confidence=0.3))
    assert made.num_clips == num_clips
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"s": time.perf_counter() - start, "peak_bytes": peak}


def merging(folder: Path) -> dict[str, float]:
    """The merge of written shards."""
    work = Work(folder)
    work.folder.mkdir()
    draw = random.Random(0)
    shards = [PlannedShard(name=f"train-{number:06d}", split="train", num_clips=PER_SHARD) for number in range(SHARDS)]
    planned = Plan(
        identity={},
        corpus="made up",
        split={},
        features=[],
        max_quarantined_share=0.01,
        found=SHARDS * PER_SHARD,
        filtered={},
        shards=shards,
    )
    (work.folder / "plan.json").write_text(json.dumps(asdict(planned)))
    for shard in shards:
        samples = {
            f"id00012/abcdefghijk/{shard.name}{clip:05d}": {
                extension: Member(clip * 500_000, 400_000, 123_456_789) for extension in ("json", "mp4", "m4a")
            }
            for clip in range(PER_SHARD)
        }
        index = json.dumps(ShardIndex(shard=f"{shard.name}.tar", samples=samples).to_json()).encode()
        (work.folder / f"{shard.name}.index.json").write_bytes(index)
        (work.folder / f"{shard.name}.tar").touch()
        tally = Tally(
            durations=[7.81] * PER_SHARD,
            speakers={f"id{draw.randrange(6000):05d}" for _ in range(PER_SHARD)},
            vocabulary=Counter(draw.choices(VOCABULARY, k=WORDS * PER_SHARD)),
        )
        info = ShardInfo(
            name=f"{shard.name}.tar",
            split="train",
            num_samples=PER_SHARD,
            size=0,
            sha256="0" * 64,
            index=f"{shard.name}.index.json",
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        work.save_report(shard, Report(info=info, quarantined={}, tally=tally, created_by="benchmarks/scale.py"))
    start = time.perf_counter()
    merge(folder)
    return {"us a clip": 1e6 * (time.perf_counter() - start) / (SHARDS * PER_SHARD)}


def _features() -> FeaturesConfig:
    return FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig()), video=VideoFeature(face_crops=FaceCropsConfig()))


def _write(root: Path, folder: Path) -> WriteConfig:
    """Each clip COPIES times, as links of other names, so that the writer has something to do."""
    for path in [found for kind in ("mp4", "m4a") for found in root.rglob(f"*.{kind}")]:
        for copy in range(COPIES):
            there = folder / "raw" / path.relative_to(root).parent / f"{path.stem}{copy:03d}{path.suffix}"
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(path.resolve())
    corpus = CorpusConfig(voxceleb2=VoxCeleb2Config(root=str(folder / "raw")))
    split = SplitConfig(train=1.0, valid=0.0, test=0.0)
    return WriteConfig(corpus=corpus, out=str(folder / "out"), features=_features(), split=split, samples_per_shard=100)


def writer(root: Path, folder: Path) -> dict[str, float]:
    """CPU time of the writing process, children not counted."""
    config = _write(root, folder)
    start = time.process_time()
    manifest = write(config)
    cpu_s = time.process_time() - start
    size = sum(info.size for info in manifest.shards)
    return {"ms a clip": 1e3 * cpu_s / manifest.written, "MB a clip": size / manifest.written / 1e6}


def stored(root: Path, folder: Path) -> dict[str, float]:
    """Clips a second of one core, in batches of 16, after one pass that fills the page cache."""
    write(_write(root, folder))
    shard_set = ShardSet(folder / "out")
    split = shard_set.split("train")
    clips = Clips(shard_set, "train", features=build(_features()), vocabulary=None, labels={}, prepare=None)
    for epoch in range(11):
        if epoch == 1:
            start = time.perf_counter()
        order = plan.epoch_order(split.shard_sizes, 0, epoch)
        for batch in range(0, len(order), 16):
            ids = order[batch : batch + 16].tolist()
            clips[MicroBatch(ids, (epoch,) * len(ids))]
    return {"clips/s": 10 * len(split) / (time.perf_counter() - start)}


def fetch(folder: Path) -> dict[str, float]:
    """CPU time of a process that downloads, proves and keeps one shard; Python's own server is a process beside it."""
    content = random.Random(0).randbytes(FETCHED)
    (folder / "remote").mkdir()
    (folder / "remote" / "train-000000.tar").write_bytes(content)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]
    server = subprocess.Popen(
        [*command, str(folder / "remote")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    url = server.stdout.readline().partition("(")[2].partition("/)")[0]
    info = ShardInfo(
        name="train-000000.tar",
        split="train",
        num_samples=1,
        size=FETCHED,
        sha256=hashlib.sha256(content).hexdigest(),
        index="train-000000.index.json",
        index_sha256="0" * 64,
    )
    start, cpu = time.perf_counter(), time.process_time()
    try:
        storage_of(url, CacheConfig(folder=str(folder / "cache"), gib=1.0)).open(info).close()
    finally:
        server.kill()
    return {"s": time.perf_counter() - start, "CPU s": time.process_time() - cpu}


def vgg16(root: Path) -> dict[str, float]:
    """fc7 of one clip on one core."""
    import torch

    torch.set_num_threads(1)
    feature = Vgg16(Vgg16Config(weights="random:0"))
    clip = {"mp4": min(root.rglob("*.mp4")).read_bytes()}
    start = time.perf_counter()
    values = feature.compute(clip)
    assert values is not None
    return {"s a clip": time.perf_counter() - start, "ms a frame": 1e3 * (time.perf_counter() - start) / len(values)}


def _apart(stage: str, root: Path) -> dict[str, float]:
    """A stage in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(root), stage, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{stage}: failed\n{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures


def main(root: Path) -> None:
    """Measure all and print a table."""
    print("| stage | figure | |\n|---|---|---:|")
    small, large = (_apart(f"scan:{number}", root) for number in TREES)
    added = TREES[1] - TREES[0]
    print(f"| scan | ms a clip | {1e3 * (large['s'] - small['s']) / added:.3g} |")
    print(f"| scan | kB a clip | {(large['peak_bytes'] - small['peak_bytes']) / added / 1e3:.3g} |", flush=True)
    for stage in ("merge", "writer", "stored", "fetch", "vgg16"):
        for name, value in _apart(stage, root).items():
            print(f"| {stage} | {name} | {value:.3g} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    elif len(sys.argv) == 4:
        given, wanted, place = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
        stages: dict[str, Callable[[], dict[str, float]]] = {
            "merge": lambda: merging(place),
            "writer": lambda: writer(given, place),
            "stored": lambda: stored(given, place),
            "fetch": lambda: fetch(place),
            "vgg16": lambda: vgg16(given),
        }
        print(json.dumps(scan(int(wanted[5:]), place) if wanted.startswith("scan:") else stages[wanted]()))
    else:
        sys.exit(__doc__)
