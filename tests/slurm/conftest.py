"""Real Slurm on one machine: munged, a controller and two node daemons in a temporary folder."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")

# A job that queues again is held back until its old credentials expired: two minutes by default, here six seconds.
CONFIG = """
ClusterName=triptych
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
KillWait=60
SlurmdTimeout=60
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """Commands against the running controller."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Output of a Slurm command; the test fails with its message if it fails."""
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *arguments: str, cwd: Path) -> str:
        """Submit with sbatch; the job's id."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip()

    def job(self, job: str) -> dict[str, str]:
        """What the controller says of a job: JobState, ExitCode, Restarts, ..."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, done: Callable[[dict[str, str]], bool], timeout_s: float, log: Path) -> dict[str, str]:
        """Wait until `done(what the controller says)`; else fail with the job's log."""
        end = time.monotonic() + timeout_s
        while not done(state := self.job(job)):
            if time.monotonic() > end:
                said = log.read_text()[-4000:] if log.exists() else "(no log)"
                pytest.fail(f"job {job} is {state['JobState']} ({state['Reason']}) after {timeout_s:.0f} s\n{said}")
            time.sleep(0.3)
        return state

    def finish(self, job: str, timeout_s: float, log: Path) -> dict[str, str]:
        """Wait until the job is over; fail unless it completed with exit code 0."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        state = self.wait(job, lambda state: state["JobState"] in over, timeout_s, log)
        said = log.read_text()[-4000:] if log.exists() else "(no log)"
        assert state["JobState"] == "COMPLETED", f"job {job} {state['JobState']} {state['ExitCode']}\n{said}"
        return state


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A cluster of two nodes, n1 and n2, both on this machine."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_path()) is None]
    if missing:
        pytest.skip(f"Slurm is not installed (no {', '.join(missing)}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("the Slurm daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    with ExitStack() as daemons:
        yield _start(folder, daemons)


def _start(folder: Path, daemons: ExitStack) -> Slurm:
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(3)
    nodes = "\n".join(
        f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 State=UNKNOWN"
        for node, port in enumerate(ports[1:], start=1)
    )
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, controller_port=ports[0], nodes=nodes))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    launched = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # of a test that is a rank itself
    outside = {name: value for name, value in os.environ.items() if name not in launched}
    cluster = Slurm(folder, {**outside, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()})

    munge = [f"--{name}={folder}/munge.{end}" for name, end in _MUNGE_FILES]
    _daemon(cluster, daemons, "munged", "--foreground", "--force", *munge)
    _until(lambda: (folder / "munge.socket").exists(), cluster, "munged")
    _daemon(cluster, daemons, "slurmctld", "-D", "-c")
    for node in ("n1", "n2"):
        _daemon(cluster, daemons, "slurmd", "-D", "-N", node)
    _until(lambda: _idle_nodes(cluster) == 2, cluster, "slurmctld and two slurmd")
    return cluster


_MUNGE_FILES = (
    ("socket", "socket"),
    ("key-file", "key"),
    ("pid-file", "pid"),
    ("log-file", "log"),
    ("seed-file", "seed"),
)


def _daemon(cluster: Slurm, daemons: ExitStack, *command: str) -> None:
    log = (cluster.folder / f"{command[0]}-{command[-1].strip('-')[:2]}.log").open("w")
    daemons.callback(log.close)
    process = subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)
    daemons.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _idle_nodes(cluster: Slurm) -> int:
    done = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%T"], env=cluster.environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split().count("idle")


def _until(ready: Callable[[], bool], cluster: Slurm, what: str, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            logs = "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(cluster.folder.glob("*.log")))
            pytest.fail(f"{what} did not come up in {timeout_s:.0f} s\n{logs}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _path() -> str:
    """Jobs find this test's `python`; daemons lie where a plain user's PATH does not look."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
