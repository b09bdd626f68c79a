import math
import os
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from shards.writing.pool import ChildPool, Failure


def test_results_come_in_the_order_of_the_jobs() -> None:
    pool = ChildPool(math.sqrt, num_children=2, timeout_s=60)

    assert list(pool.run(float(i * i) for i in range(20))) == [(float(i * i), float(i)) for i in range(20)]


def test_an_exception_costs_its_job() -> None:
    (first, second) = ChildPool(math.sqrt, num_children=1, timeout_s=60).run([-1.0, 4.0])

    assert isinstance(first[1], Failure)
    assert first[1].reason.startswith("ValueError")
    assert second == (4.0, 2.0)


def test_a_crash_costs_its_job_only() -> None:
    results = list(ChildPool(os._exit, num_children=2, timeout_s=60).run([3, 4, 5]))

    assert [job for job, _ in results] == [3, 4, 5]
    assert [result.reason for _, result in results if isinstance(result, Failure)] == [
        f"the process that opened it died (exit status {job})" for job in (3, 4, 5)
    ]


def test_a_child_killed_while_it_sends_its_result_costs_its_job_only() -> None:
    """As by the kernel when memory runs out: the parent has a part of the result."""

    def jobs():
        yield 50_000_000  # more than a pipe holds
        time.sleep(1.0)  # the first child is sending by now
        for child in active_children():
            child.kill()
            child.join()
        yield 3

    (first, second) = ChildPool(bytes, num_children=2, timeout_s=60).run(jobs())

    assert first[1] == Failure("the process that opened it died (SIGKILL)")
    assert second == (3, bytes(3))


@pytest.mark.slow
def test_a_hang_is_ended_in_time() -> None:
    started = time.monotonic()

    results = list(ChildPool(time.sleep, num_children=1, timeout_s=3).run([0.0, 600.0, 0.01]))

    assert time.monotonic() - started < 60
    assert results == [(0.0, None), (600.0, Failure("not done after 3 s")), (0.01, None)]


def test_jobs_are_drawn_as_they_are_needed() -> None:
    drawn = []

    def jobs():
        for i in range(100):
            drawn.append(i)
            yield float(i)

    results = ChildPool(math.sqrt, num_children=1, timeout_s=60).run(jobs())
    next(results)

    assert len(drawn) < 10
    results.close()


@pytest.mark.slow
def test_busy_children_end_with_a_killed_parent() -> None:
    code = (
        "import threading, time; from multiprocessing import active_children\n"
        "from shards.writing.pool import ChildPool\n"
        "def tell():\n"
        "    time.sleep(3); print(*(child.pid for child in active_children()), flush=True)\n"
        "threading.Thread(target=tell).start()\n"
        "next(ChildPool(time.sleep, num_children=2, timeout_s=600).run([500.0, 500.0]))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [Path("/proc") / pid for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(child.exists() for child in children)
        parent.kill()
    deadline = time.monotonic() + 30
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(child.exists() for child in children)
