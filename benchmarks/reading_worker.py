"""One measurement of `benchmarks/reading.py`, in the environment of the system that it measures.

python benchmarks/reading_worker.py SYSTEM LEVEL SHARDS COPY

Prints one JSON line: clips, bytes, wall seconds, CPU milliseconds a clip (starting included). The systems get the same
clips and the same decoder:

    raw     every byte of every clip, in a shuffled order, in this process
    batch   shuffled, decoded (mouth crops by PyAV, filter banks by PyAV and torchaudio), padded batches of 16, from
            two loader processes; `limit` decodes clips that are in memory already, in two processes, and no more
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

WORKERS = 2
BATCH = 16
WARM_UP = 8
"""Batches before the clock starts."""
EPOCHS = {"raw": 5, "batch": 2}
MEDIA = ("mp4", "m4a")


def features() -> dict[str, Any]:
    """What the pretraining on GRID reads, computed from the media."""
    from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
    from shards.features.face_crops import FaceCropsConfig
    from shards.features.lfbe import LfbeConfig

    crops = VideoFeature(face_crops=FaceCropsConfig(box=(0.527, 0.3125, 0.321, 0.402)))
    return build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig()), video=crops))


class Decode:
    """Members of a clip -> its features; picklable, so that loader processes can have it."""

    def __init__(self) -> None:
        self.features = features()

    def __call__(self, sample: dict[str, Any]) -> list[np.ndarray]:
        return [feature.compute(sample) for feature in self.features.values()]


def pad(samples: list[list[np.ndarray]]) -> list[Any]:
    """What a user writes as collate function: each modality padded to its longest clip, with a mask."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    batch: list[Any] = []
    for arrays in zip(*samples, strict=True):
        values = pad_sequence([torch.from_numpy(array) for array in arrays], batch_first=True)
        lengths = torch.tensor([len(array) for array in arrays])
        batch += [values, torch.arange(values.shape[1]) < lengths[:, None]]
    return batch


class Triptych:
    """This project's reader."""

    def raw(self, shards: Path, copy: Path) -> Iterator[int]:
        """Bytes of each clip."""
        from shards.reading import plan
        from shards.reading.index import ShardSet

        split = ShardSet(shards).split("train")
        for epoch in range(EPOCHS["raw"]):
            for sample_id in plan.epoch_order(split.shard_sizes, 0, epoch).tolist():
                yield sum(map(len, split.read(sample_id).values()))

    def batch(self, shards: Path, copy: Path) -> Iterator[int]:
        """Clips of each batch."""
        from shards.features.config import FeaturesConfig
        from shards.reading.index import ShardSet
        from shards.reading.read import StreamConfig, TrainLoader

        stream = StreamConfig(
            shards=str(shards),
            features=FeaturesConfig(),
            global_batch=BATCH,
            micro_batch=BATCH,
            workers=WORKERS,
            text=False,
        )
        loader = TrainLoader(ShardSet(shards), stream, vocabulary=None, seed=0, rank=0, world=1, features=features())
        wanted, got = EPOCHS["batch"] * loader.num_samples, 0
        for (batch,) in loader.steps(0):
            got += len(batch)
            yield len(batch)
            if got >= wanted:
                return


class WebDataset:
    """Plain webdataset, as its README shows it."""

    def raw(self, shards: Path, copy: Path) -> Iterator[int]:
        """Bytes of each clip."""
        for _ in range(EPOCHS["raw"]):
            for sample in self._samples(shards):
                yield sum(len(value) for value in sample.values() if isinstance(value, bytes))

    def batch(self, shards: Path, copy: Path) -> Iterator[int]:
        """Clips of each batch."""
        import webdataset

        dataset = self._samples(shards).map(Decode()).batched(BATCH, collation_fn=pad)
        for _ in range(EPOCHS["batch"]):
            for batch in webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS):
                yield len(batch[0])

    def _samples(self, shards: Path) -> Any:
        import webdataset

        urls = sorted(str(path) for path in shards.glob("train-*.tar"))
        return webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000)


class Streaming:
    """mosaicml-streaming, on the same clips in its own format."""

    def raw(self, shards: Path, copy: Path) -> Iterator[int]:
        """Bytes of each clip."""
        dataset = self._dataset(shards, copy)
        for _ in range(EPOCHS["raw"]):
            for sample in dataset:
                yield sum(len(value) for value in sample.values() if isinstance(value, bytes))

    def batch(self, shards: Path, copy: Path) -> Iterator[int]:
        """Clips of each batch."""
        from torch.utils.data import DataLoader

        decode = Decode()
        loader: Any = DataLoader(
            self._dataset(shards, copy),
            batch_size=BATCH,
            num_workers=WORKERS,
            collate_fn=lambda samples: pad([decode(sample) for sample in samples]),
        )
        for _ in range(EPOCHS["batch"]):
            for batch in loader:
                yield len(batch[0])

    def _dataset(self, shards: Path, copy: Path) -> Any:
        from streaming import MDSWriter, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        if not (copy / "index.json").exists():
            columns = {"json": "bytes", **dict.fromkeys(MEDIA, "bytes")}
            with MDSWriter(out=str(copy), columns=columns, size_limit=2**23) as writer:
                for sample in _all(shards):
                    writer.write({name: sample[name] for name in columns})
        return StreamingDataset(local=str(copy), shuffle=True, batch_size=BATCH)


class Limit:
    """No reader at all."""

    def batch(self, shards: Path, copy: Path) -> Iterator[int]:
        """Clips that a process has decoded."""
        _IN_MEMORY.extend(_all(shards))  # before the fork
        order = list(range(len(_IN_MEMORY))) * EPOCHS["batch"]
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
            yield from pool.map(_decode_all, parts)


_IN_MEMORY: list[dict[str, bytes]] = []
_DECODE: list[Decode] = []


def _decode_all(clips: list[int]) -> int:
    import torch

    if not _DECODE:
        torch.set_num_threads(1)  # as in a loader process
        _DECODE.append(Decode())
    for clip in clips:
        _DECODE[0](_IN_MEMORY[clip])
    return len(clips)


def _all(shards: Path) -> Iterator[dict[str, bytes]]:
    """Every clip, by the headers of the tars: no reader's own code."""
    import tarfile

    for path in sorted(shards.glob("train-*.tar")):
        sample: dict[str, bytes] = {}
        name = ""
        with tarfile.open(path) as tar:
            for entry in tar:
                key, _, extension = entry.name.partition(".")
                if key != name and sample:
                    yield sample
                    sample = {}
                name = key
                file = tar.extractfile(entry)
                assert file is not None
                sample[extension] = file.read()
        yield sample


SYSTEMS: dict[str, Any] = {
    "triptych": Triptych(),
    "webdataset": WebDataset(),
    "mosaicml-streaming": Streaming(),
    "limit": Limit(),
}


def main(system: str, level: str, shards: Path, copy: Path) -> None:
    """Measure and print. Batches are timed when the first ones have come: processes start once in a training."""
    cpu, start = os.times(), time.perf_counter()
    results: Iterable[int] = getattr(SYSTEMS[system], level)(shards, copy)
    clips = total = all_clips = 0
    for number, result in enumerate(results):
        all_clips += 1 if level == "raw" else result
        if level == "raw":
            clips, total = clips + 1, total + result
        elif number < WARM_UP:
            start = time.perf_counter()
        else:
            clips += result
    wall_s = time.perf_counter() - start
    used, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime - cpu.user - cpu.system
    print(json.dumps({"clips": clips, "bytes": total, "wall_s": wall_s, "cpu_ms": 1e3 * cpu_s / all_clips}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
