import random
import re
from functools import partial
from pathlib import Path

from shards.features.config import FeaturesConfig
from shards.media.media_form import StoreConfig
from shards.writing.pool import ChildPool, Failure
from shards.writing.probe import Job, Opened, open_clip


def test_damaged_headers_cost_their_clip_only(make_clip, tmp_path: Path) -> None:
    """Where a decoder refuses one, or crashes, that is a reason like any other."""
    whole = make_clip(tmp_path / "whole.mp4", seconds=1.0).read_bytes()
    start = whole.find(b"moov")
    end = start + int.from_bytes(whole[start - 4 : start], "big") - 4
    generator = random.Random(0)
    jobs = []
    for number in range(40):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 4, 16])):
            damaged[generator.randrange(start, end)] = generator.randrange(256)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(damaged if number % 10 else whole)
        jobs.append(Job(key=str(number), video=path, audio=None))
    pool: ChildPool[Job, Opened] = ChildPool(
        partial(open_clip, features=FeaturesConfig(), store=StoreConfig()), 2, timeout_s=60
    )

    results = {job.key: result for job, result in pool.run(jobs)}

    assert list(results) == [job.key for job in jobs]
    failures = [result.reason for result in results.values() if isinstance(result, Failure)]
    assert failures
    assert not [reason for reason in failures if re.match(r"\w+(Error|Exception): ", reason)]  # none unforeseen
    assert all(isinstance(results[str(number)], Opened) for number in range(0, 40, 10))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    pool: ChildPool[Job, Opened] = ChildPool(
        partial(open_clip, features=FeaturesConfig(), store=StoreConfig()), 1, timeout_s=60
    )

    ((_, result),) = pool.run([Job(key="a", video=tmp_path / "gone.mp4", audio=None)])

    assert result == Failure("gone.mp4 cannot be read: No such file or directory")
