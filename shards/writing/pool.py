"""Child processes for work that may crash or hang: one bad job costs its own result and nothing else.

`concurrent.futures` gives up the whole pool when a child dies and cannot say whose fault it was.
"""

import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from shards.media.decode import DecodeError

J = TypeVar("J")
R = TypeVar("R")

_CONTEXT = get_context("forkserver")
"""A fork of a caller with torch's threads can deadlock; spawn would load everything again for each child."""
_PATIENCE = 10
"""Times the processor's time that a job may take by the clock."""
_LOOK_S = 0.05
"""At least, until a late child is looked at again."""
_AHEAD = 4
"""Jobs a child in flight or waiting to be handed out in order: bounds memory while one clip is slow."""


def end_with(parent: Connection) -> None:
    """End this process when the other end of a one-way pipe is closed, as the death of its owner does.

    Whatever the process is doing: without it, a child that hangs outlives a killed parent for ever. (The kernel's
    PR_SET_PDEATHSIG would follow the fork server, not the process that wants the work.)

    Args:
        parent: the reading end; nothing is ever sent. Any number of processes may share it.
    """

    def wait_for_end() -> None:
        with suppress(EOFError, OSError):
            parent.recv()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, daemon=True).start()


@dataclass(frozen=True)
class Failure:
    """Why a job has no result."""

    reason: str


@dataclass(frozen=True)
class _Fault:
    """What a child says of a fault of the program."""

    told: str


class OurFault(RuntimeError):
    """The program is at fault, or a library that it stands on has changed: no clip is to blame or given up."""

    def __init__(self, told: str) -> None:
        super().__init__(
            "a fault of this program, or a version of a library that it does not fit; no clip is damaged by it. Please "
            f"report it with these lines:\n{told}"
        )


class _Child:
    """One process and what it is doing."""

    def __init__(self, function: Callable[[Any], Any], parent: Connection) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, parent, function), daemon=True)
        self.process.start()
        theirs.close()
        self.number: int | None = None
        self.deadline = 0.0
        self._given_up = 0.0
        self._timeout_s = self._cpu_s = 0.0

    def start(self, number: int, job: Any, timeout_s: float) -> None:
        now = time.monotonic()
        self.number, self.deadline, self._given_up = number, now + timeout_s, now + _PATIENCE * timeout_s
        self._timeout_s, self._cpu_s = timeout_s, _cpu_s(self.process.pid)
        self.connection.send(job)

    def is_late(self) -> bool:
        """Whether the job used up its time: of a processor, since others may be at work on this machine; of the clock,
        `_PATIENCE` times as much, for it may hang and use none."""
        now, used_s = time.monotonic(), _cpu_s(self.process.pid) - self._cpu_s
        if now < self.deadline:
            return False
        self.deadline = min(self._given_up, now + max(_LOOK_S, self._timeout_s - used_s))
        return now >= self._given_up or used_s >= self._timeout_s

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class ChildPool(Generic[J, R]):
    """Calls a function on jobs in child processes.

    Args:
        function: importable by name; it and its results must be picklable. A DecodeError it raises becomes a Failure
            with that message, any other exception one with its type.
        num_children: processes; one that crashed or hung is replaced.
        timeout_s: of one job, in seconds of a processor; by the clock it may take ten times as long.

    Raises:
        OurFault: `run`, where the function fails as only a fault in the program does.
    """

    def __init__(self, function: Callable[[J], R], num_children: int, timeout_s: float) -> None:
        self.function = function
        self.num_children = num_children
        self.timeout_s = timeout_s
        # loaded once by the server that forks the children, where each would load it for itself: 0.25 s of a core
        _CONTEXT.set_forkserver_preload([_module(function)])
        self._parent, self._alive = _CONTEXT.Pipe(duplex=False)

    def run(self, jobs: Iterable[J]) -> Generator[tuple[J, R | Failure], None, None]:
        """Each job with its result, in the order of the jobs; the children end with the iteration or its close."""
        children = [_Child(self.function, self._parent) for _ in range(self.num_children)]
        numbered = enumerate(jobs)
        pending: dict[int, J] = {}  # handed out or done, not yet yielded
        results: dict[int, R | Failure] = {}
        following = 0
        exhausted = False
        try:
            while not exhausted or pending:
                for place, child in enumerate(children):
                    while child.number is None and not exhausted and len(pending) < _AHEAD * self.num_children:
                        number, job = next(numbered, (None, None))
                        if number is None:
                            exhausted = True
                        else:
                            pending[number] = job  # type: ignore[assignment]
                            children[place] = child = self._start(child, number, job)
                self._collect(children, results)
                while following in results:
                    yield pending.pop(following), results.pop(following)
                    following += 1
        finally:
            for child in children:
                child.stop()

    def _start(self, child: _Child, number: int, job: Any) -> _Child:
        try:
            child.start(number, job, self.timeout_s)
            return child
        except ConnectionError:  # it died while it was idle
            child.stop()
            fresh = _Child(self.function, self._parent)
            fresh.start(number, job, self.timeout_s)
            return fresh

    def _collect(self, children: list[_Child], results: dict[int, R | Failure]) -> None:
        """Wait until at least one child is done, dead or late, and note what came of its job."""
        busy = [child for child in children if child.number is not None]
        if not busy:
            return
        patience_s = min(child.deadline for child in busy) - time.monotonic()
        ready = wait([child.connection for child in busy], timeout=max(0.0, patience_s))
        for place, child in enumerate(children):
            number = child.number
            if number is None:
                continue
            if child.connection in ready:
                try:
                    result, child.number = child.connection.recv(), None
                    if isinstance(result, _Fault):
                        raise OurFault(result.told)
                    results[number] = result
                    continue
                except (EOFError, OSError):  # OSError: it died while it sent its result
                    child.process.join(timeout=5)
                    reason = f"the process that opened it died ({_exit(child.process.exitcode)})"
            elif child.is_late():
                reason = f"not done after {self.timeout_s:g} s of a processor, or {_PATIENCE} times that by the clock"
            else:
                continue
            results[number] = Failure(reason)
            child.stop()
            children[place] = _Child(self.function, self._parent)


def _cpu_s(pid: int | None) -> float:
    """Seconds of a processor that a process has used; infinity where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return math.inf


def _module(function: Callable[..., Any]) -> str:
    """Where a function, or what a partial calls, is defined."""
    return (function.func if isinstance(function, partial) else function).__module__


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"


def _serve(connection: Connection, parent: Connection, function: Callable[[Any], Any]) -> None:
    end_with(parent)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the children are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    with open(os.devnull, "w") as nowhere:  # decord's and FFmpeg's own lines name no clip; what matters is returned
        os.dup2(nowhere.fileno(), 2)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        result: Any
        try:
            result = function(job)
        except DecodeError as error:
            result = Failure(str(error))
        except (TypeError, AttributeError, NameError, ImportError):
            result = _Fault(traceback.format_exc())
        except Exception as error:
            result = Failure(f"{type(error).__name__}: {error}")
        connection.send(result)
