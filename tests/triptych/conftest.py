"""`tiny` (the task and loader of tiny.py) and `launch` (that file, or another, as a program on several ranks)."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych import distributed

PROGRAM = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone():
    """A group of one process, without a launcher; the environment is as before afterwards."""
    from accelerate.state import AcceleratorState, PartialState

    before = dict(os.environ)
    dist = distributed.init("cpu")
    yield dist
    dist.shutdown()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    os.environ.clear()
    os.environ.update(before)


class Ranks:
    """Processes of one run, started as torchrun would."""

    def __init__(self, program, arguments, world, env):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        root = Path(__file__).parents[2]
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        common |= {"PYTHONPATH": str(root), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), **env}
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(program), *map(str, arguments)],
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            for rank in range(world)
        ]

    def wait(self, timeout_s=200):
        """Exit codes and outputs, by rank."""
        outputs = [process.communicate(timeout=timeout_s)[0] for process in self.processes]
        return [process.returncode for process in self.processes], outputs

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def wait_for(self, condition, timeout_s=100):
        """Until the condition holds; fails with the outputs where the processes end before."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end or all(process.poll() is not None for process in self.processes):
                self.kill()
                pytest.fail("\n".join(self.wait()[1]))
            time.sleep(0.02)


@pytest.fixture
def launch():
    started = []

    def start(*arguments, world=2, program=PROGRAM, **env):
        started.append(Ranks(program, arguments, world, env))
        return started[-1]

    yield start
    for ranks in started:
        ranks.kill()


@pytest.fixture
def run_ranks(launch):
    """Run to the end and expect success; returns rank 0's output."""

    def run(*arguments, world=2, program=PROGRAM, **env):
        codes, outputs = launch(*arguments, world=world, program=program, **env).wait()
        assert codes == [0] * world, "\n".join(outputs)
        return outputs[0]

    return run
