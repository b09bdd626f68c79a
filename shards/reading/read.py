"""From a shard set to batches: what a run reads, in the order that `shards.reading.plan` draws.

One batch of the loader is one micro-batch of one rank. Workers only change who reads it, never which one or its order.
"""

import atexit
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader

from shards.features.config import Feature, FeaturesConfig, build
from shards.reading import plan
from shards.reading.cache import CacheConfig
from shards.reading.clips import Clips, MicroBatch
from shards.reading.index import ShardSet
from shards.reading.other_words import OtherWords
from shards.reading.word_errors import WordErrors, WordErrorsConfig
from shards.words.words import AnyVocabulary
from triptych.batch import Batch
from triptych.config import UserError
from triptych.labels import LabelSpec

LEAST_SHARED = 8 * 2**20
"""Bytes of shared memory: less than a few batches."""
PREFETCH = 2
"""Micro-batches that a worker reads ahead."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a run reads, and how much at a time."""

    shards: str
    """Folder of the shard set, or its URL: http, https, s3, gs, az, abfs."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""
    features: FeaturesConfig
    """What the towers want; taken from the shards where they hold exactly that, else computed while reading."""
    global_batch: int
    """Clips of one optimizer step over all ranks and micro-batches."""
    micro_batch: int
    """Most clips of one forward pass on one rank."""
    length_pool: int = 0
    """Global batches whose clips are sorted by length together, so that each batch holds clips of like length; 0 keeps
    batches random. Mind what shards.reading.plan.Order says of contrastive negatives."""
    workers: int = 0
    """Loader processes a rank; 0 reads in the training process."""
    text: bool = True
    """Whether the words are read."""
    vocabulary: str | None = None
    """File of `python -m shards vocabulary` that gives the words their ids; the shard set's own when not given."""
    word_errors: WordErrorsConfig | None = None
    """Errors put into the words of the training clips, as a recogniser makes them; held-out clips stay as they are."""
    max_damaged_share: float = 0.0
    """Share of a split's clips that may turn out damaged before the run stops; until then each is left out, named once
    in the log and counted. 0 stops at the first."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_damaged_share <= 1:
            raise ValueError(f"max_damaged_share: {self.max_damaged_share}; expected a share from 0 to 1")
        for name, least in (("global_batch", 1), ("micro_batch", 1), ("workers", 0), ("length_pool", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)}; expected at least {least}")
        if self.word_errors is not None and not self.text:
            raise ValueError("word_errors: text: false reads no words to put errors into; leave one of the two out")


@dataclass(frozen=True)
class TrainLoader:
    """The endless training stream of one rank.

    Raises:
        UserError: the split is missing or smaller than a global batch, a rank or micro-batch would get no clip, or
            there are no words to make errors of.
    """

    shard_set: ShardSet
    stream: StreamConfig
    _: KW_ONLY
    vocabulary: AnyVocabulary | None
    """Not used where `stream.text` is false."""
    seed: int
    rank: int
    world: int
    prepare: Callable[[Batch], Batch] | None = None
    labels: Mapping[str, LabelSpec] = field(default_factory=dict)
    """Label name -> what to deliver, see Batch.labels."""
    split: str = "train"
    features: Mapping[str, Feature] | None = None
    """Modality -> feature; None builds `stream.features`."""

    def __post_init__(self) -> None:
        plan.check_fits(self.num_samples, self.stream.global_batch, self.split)
        plan.num_micro_batches(self.stream.global_batch, self.stream.micro_batch, self.world)
        if self.stream.text and self.vocabulary is None:
            raise UserError("text: true needs a vocabulary: write the shards with transcripts, or set text: false")
        _ = self._word_errors  # refused now, and not when the run has begun

    @cached_property
    def clips(self) -> Clips:
        """The clips behind the stream."""
        return Clips(
            self.shard_set,
            self.split,
            features=build(self.stream.features) if self.features is None else self.features,
            vocabulary=self.vocabulary if self.stream.text else None,
            labels=self.labels,
            prepare=self.prepare,
            keep_damaged=self.stream.max_damaged_share > 0,
            change_words=self._word_errors,
        )

    @cached_property
    def _word_errors(self) -> WordErrors | None:
        config = self.stream.word_errors
        return None if config is None else WordErrors(config, self.shard_set.word_counts())

    @property
    def num_samples(self) -> int:
        """Clips of the split."""
        return len(self.shard_set.split(self.split))

    @property
    def max_damaged(self) -> int:
        """Most different clips that may be damaged before the run stops."""
        return int(self.stream.max_damaged_share * self.num_samples)

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of a step, the same on every rank."""
        return plan.num_micro_batches(self.stream.global_batch, self.stream.micro_batch, self.world)

    def steps(self, start_step: int) -> Iterator[list[Batch]]:
        """For each optimizer step from `start_step` on, without end: this rank's micro-batches.

        Raises:
            UserError: see `Clips.load`.
        """
        batches = read_batches(self.clips, self._plans(start_step), self.stream.workers)
        while True:
            yield [next(batches) for _ in range(self.num_micro_batches)]

    def _plans(self, step: int) -> Iterator[MicroBatch]:
        split, stream = self.shard_set.split(self.split), self.stream
        order = plan.Order(split.shard_sizes, self.seed, stream.global_batch, split.durations, stream.length_pool)
        while True:
            ids, epochs = order.step(step)
            for places in plan.deal(split.durations[ids], self.num_micro_batches, self.world)[self.rank]:
                yield MicroBatch(ids[places].tolist(), epochs[places].tolist())
            step += 1


@dataclass(frozen=True)
class EvalLoader:
    """One rank's share of a split, in the order of the shards; over all ranks every clip exactly once.

    Every clip is read as of epoch 0, so that masks at evaluation depend on (seed, key) only.

    Raises:
        UserError: the split is missing or has fewer clips than there are ranks.
    """

    shard_set: ShardSet
    features: Mapping[str, Feature]
    """Modality -> feature, see shards.features.config.build."""
    _: KW_ONLY
    vocabulary: AnyVocabulary | None
    """None leaves text out."""
    batch_size: int
    rank: int
    world: int
    split: str = "valid"
    workers: int = 0
    prepare: Callable[[Batch], Batch] | None = None
    labels: Mapping[str, LabelSpec] = field(default_factory=dict)
    max_damaged_share: float = 0.0
    """See StreamConfig."""
    words: OtherWords | None = None
    """Of other transcripts, in place of the clips' own."""

    def __post_init__(self) -> None:
        plan.evaluation_batches(self.num_samples, self.batch_size, self.world, self.rank)

    @cached_property
    def clips(self) -> Clips:
        """The clips behind the batches."""
        return Clips(
            self.shard_set,
            self.split,
            features=self.features,
            vocabulary=self.vocabulary,
            labels=self.labels,
            prepare=self.prepare,
            keep_damaged=self.max_damaged_share > 0,
            change_words=self.words,
        )

    @property
    def num_samples(self) -> int:
        """Clips of the split, over all ranks."""
        return len(self.shard_set.split(self.split))

    @property
    def max_damaged(self) -> int:
        """Most clips that may be damaged."""
        return int(self.max_damaged_share * self.num_samples)

    @property
    def num_batches(self) -> int:
        """Batches of one pass, the same on every rank."""
        return len(self._shares)

    def batches(self) -> Iterator[Batch]:
        """One pass.

        Raises:
            UserError: see `Clips.load`.
        """
        plans = [MicroBatch(range(start, stop), (0,) * (stop - start)) for start, stop in self._shares]
        return read_batches(self.clips, plans, self.workers)

    @property
    def _shares(self) -> list[tuple[int, int]]:
        return plan.evaluation_batches(self.num_samples, self.batch_size, self.world, self.rank)


def read_batches(clips: Clips, plans: Iterable[MicroBatch], workers: int) -> Generator[Batch]:
    """The planned batches, in their order.

    Args:
        clips: of a split.
        plans: taken as they are needed, in this process, some ahead of what is given.
        workers: child processes that read; 0 reads here.

    Raises:
        UserError: see `Clips.load`.
    """
    check_shared_memory(workers)
    # without a lock, since a signal handler reads it
    closing: Any = RawValue("b", 0) if workers else SimpleNamespace(value=0)

    def close() -> None:
        closing.value = 1

    loader: DataLoader[Batch | UserError] = DataLoader(
        clips,
        sampler=plans,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=partial(_leave_signals_to_the_run, closing),
        prefetch_factor=PREFETCH if workers else None,
        # without it, starting a loader draws from the global generator, and a resumed run's dropout would differ
        generator=torch.Generator(),
    )
    atexit.register(close)  # runs before multiprocessing's own, which terminates workers and waits for them
    # PyAV 19's filter graphs have threads: one left over in a circle of garbage, freed in a forked worker, waits there
    # for threads that only this process has, for ever.
    gc.collect()
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        close()
        atexit.unregister(close)


def check_shared_memory(workers: int, folder: Path = Path("/dev/shm")) -> None:
    """Whether worker processes can hand over batches; without it torch's wait for ever, or die without a word.

    Raises:
        UserError: Linux' shared memory is missing, read-only or all but full.
    """
    if not workers or sys.platform != "linux":
        return
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    if free < LEAST_SHARED or not os.access(folder, os.W_OK):
        what = f"has {free / 2**20:.1f} MiB free" if os.access(folder, os.W_OK) else "is missing or read-only"
        raise UserError(
            f"stream.workers: {workers} workers hand over their batches through {folder}, which {what} here: mount it "
            "larger (docker run --shm-size=8g), or set stream.workers=0"
        )


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_run(closing: Any, worker: int) -> None:
    """A scheduler signals every process of a job: workers must live until the run has saved its checkpoint.

    They end when their run closes them or ends, and notice by themselves, within seconds, when it was killed.

    Args:
        closing: shared with the run, which sets it before it ends its workers.
        worker: number of the worker.
    """

    def terminate(number: int, frame: Any) -> None:
        if closing.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, terminate)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
