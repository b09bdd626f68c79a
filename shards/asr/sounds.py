"""The sound of a corpus' clips, decoded in child processes while the model is busy. No torch."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice

import numpy as np

from shards.media.cut import cut_sound
from shards.media.decode import decode_audio
from shards.record import RawClip
from shards.writing.pool import ChildPool, Failure
from shards.writing.probe import Job, read_file

Sound = np.ndarray | Failure | None
"""[N] float32, or why the clip cannot be decoded, or None for a clip without sound."""


def decoder(rate_hz: int, workers: int, timeout_s: float) -> ChildPool[Job, np.ndarray | None]:
    """Child processes that decode clips at a rate; one that a clip crashes or hangs costs only that clip."""
    return ChildPool(partial(decode_clip, rate_hz=rate_hz), workers, timeout_s)


def decode_clip(job: Job, rate_hz: int) -> np.ndarray | None:
    """[N] float32, or None for a clip without sound.

    Raises:
        DecodeError: the file cannot be read or decoded.
    """
    path = job.audio or job.video
    if path is None:
        return None
    if job.cut is None or not job.cut.sound:
        return decode_audio(read_file(path), rate_hz)
    flac = cut_sound(path, job.cut)
    return None if flac is None else decode_audio(flac, rate_hz)


def decoded_chunks(
    chunks: Sequence[Sequence[RawClip]], pool: ChildPool[Job, np.ndarray | None]
) -> Generator[list[Sound], None, None]:
    """The sounds of each chunk's clips; while the caller uses one chunk, the next one is decoded."""
    jobs = (Job.of(clip) for chunk in chunks for clip in chunk)
    with closing(pool.run(jobs)) as results, ThreadPoolExecutor(1) as thread:

        def take(chunk: Sequence[RawClip]) -> list[Sound]:
            return [sound for _, sound in islice(results, len(chunk))]

        following = thread.submit(take, chunks[0]) if chunks else None
        for chunk in [*chunks[1:], None]:
            if following is not None:
                decoded = following.result()
                following = None if chunk is None else thread.submit(take, chunk)
                yield decoded
