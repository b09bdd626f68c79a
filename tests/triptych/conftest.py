"""`tiny` (the task and loader of tiny.py) and `launch` (that file, or another, as a program on several ranks)."""

import importlib.util
import os
import time
from pathlib import Path

import pytest

from triptych.training import distributed

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

    def __init__(self, warm, arguments, world, logs, env):
        self.logs = logs
        self.processes = warm.ranks([str(argument) for argument in arguments], logs, world, **env)

    def wait(self, timeout_s=200):
        """Exit codes and what they said, by rank."""
        codes = [process.wait(timeout_s) for process in self.processes]
        said = [[self.logs / f"{rank}.{end}" for end in ("out", "err")] for rank in range(len(codes))]
        return codes, ["".join(file.read_text() for file in files) for files in said]

    def kill(self):
        for process in self.processes:
            process.kill()

    def wait_for(self, condition, timeout_s=100):
        """Until the condition holds; fails with the outputs where the processes end before."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end or all(process.poll() is not None for process in self.processes):
                self.kill()
                pytest.fail("\n".join(self.wait()[1]))
            time.sleep(0.02)


@pytest.fixture
def launch(warm, tmp_path_factory):
    started = []

    def start(*arguments, world=2, program=PROGRAM, **env):
        started.append(Ranks(warm, [program, *arguments], world, tmp_path_factory.mktemp("ranks"), env))
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
