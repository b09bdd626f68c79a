import builtins
import math
import os
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest

from shards.writing.pool import ChildPool, Failure, OurFault


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

    results = list(ChildPool(time.sleep, num_children=1, timeout_s=0.3).run([0.0, 600.0, 0.01]))

    assert time.monotonic() - started < 60
    assert results == [
        (0.0, None),
        (600.0, Failure("not done after 0.3 s of a processor, or 10 times that by the clock")),
        (0.01, None),
    ]


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


def _burn(seconds: float) -> float:
    """Use the processor's time, as `seconds` of work do however many others work here."""
    begin_s = time.process_time()
    while time.process_time() - begin_s < seconds:
        pass
    return seconds


def test_a_job_has_its_time_of_the_processor_however_busy_the_machine_is() -> None:
    # the second waits four times its time without using any, as a clip does on an overloaded machine
    results = list(ChildPool(time.sleep, num_children=1, timeout_s=0.5).run([0.0, 2.0]))
    assert [result for _, result in results] == [None, None]


def test_a_job_that_computes_for_ever_is_given_up_by_its_own_time() -> None:
    begin_s = time.monotonic()
    (done, late) = ChildPool(_burn, num_children=1, timeout_s=1.0).run([0.1, 1e6])
    assert (done, late[1]) == ((0.1, 0.1), Failure("not done after 1 s of a processor, or 10 times that by the clock"))
    assert time.monotonic() - begin_s < 60


@pytest.mark.parametrize("wrong", ["TypeError", "AttributeError", "ImportError"])
def test_a_fault_of_the_program_ends_the_work_and_blames_no_clip(wrong: str) -> None:
    with pytest.raises(OurFault, match=rf"(?s)a fault of this program.*_fail.*{wrong}"):
        list(ChildPool(_fail, num_children=1, timeout_s=60).run([wrong]))


def _fail(wrong: str) -> None:
    raise getattr(builtins, wrong)("of a library that has changed")
