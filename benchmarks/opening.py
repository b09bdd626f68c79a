"""How long it takes to open a set of a million clips: `python benchmarks/opening.py FOLDER` makes one, then opens it.

1,100 shards of 1,000 clips with four files each; the indexes are real, the tars sparse.
"""

import hashlib
import json
import resource
import sys
import time
from pathlib import Path

from shards.reading.index import ShardSet
from shards.record import Manifest, ShardInfo

NUM_SHARDS, PER_SHARD = 1100, 1000
SIZES = {"json": 1_500, "lfbe.npy": 60_000, "m4a": 60_000, "mp4": 180_000}


def make(folder: Path) -> None:
    """Write the set; no sample can be read from it."""
    folder.mkdir(parents=True)
    shards = []
    for number in range(NUM_SHARDS):
        samples: dict[str, dict[str, list[int]]] = {}
        offset = 512
        for clip in range(PER_SHARD):
            members = samples.setdefault(f"id{number:05d}/v{number:010d}/{clip:05d}", {})
            for extension, size in SIZES.items():
                members[extension] = [offset, size, number * PER_SHARD + clip]
                offset += 512 + -(-size // 512) * 512
        stem = f"train-{number:06d}"
        with (folder / f"{stem}.tar").open("wb") as tar:
            tar.truncate(offset)
        index = json.dumps({"shard": f"{stem}.tar", "samples": samples}).encode()
        (folder / f"{stem}.index.json").write_bytes(index)
        shards.append(
            ShardInfo(
                name=f"{stem}.tar",
                split="train",
                num_samples=PER_SHARD,
                size=offset,
                sha256="0" * 64,
                index=f"{stem}.index.json",
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )
    total = NUM_SHARDS * PER_SHARD
    manifest = Manifest(
        corpus="made up",
        created_by="benchmarks/opening.py",
        split={"by": "speaker"},
        found=total,
        written=total,
        filtered={},
        quarantined={},
        shards=shards,
        features=[],
        labels={},
        counts={},
        vocabulary_sha256="0" * 64,
        durations_sha256={"train": "0" * 64},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))


def memory_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path) -> None:
    """Make the set if it is not there; open it, find a late clip, and go through 64 shards."""
    if not folder.exists():
        make(folder)
        print(f"made {folder}; run again to measure in a fresh process")
        return
    before, start = memory_mib(), time.perf_counter()
    split = ShardSet(folder).split("train")
    clips, opened = len(split), time.perf_counter()
    split.extensions(1_000_000)
    found = time.perf_counter()
    print(f"{clips:,} clips opened in {opened - start:.3f} s, clip 1,000,000 found after {found - opened:.3f} s more")
    print(f"memory: {memory_mib() - before:.0f} MiB more than before")
    for shard in range(64):
        split.extensions(shard * PER_SHARD)
    print(f"64 shards' indexes read in {time.perf_counter() - found:.2f} s; {memory_mib() - before:.0f} MiB more")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
