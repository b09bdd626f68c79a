"""What file systems, streams and launchers refuse: work goes on where nothing is at risk, else one sentence tells."""

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from triptych import refusals
from triptych.config import UserError
from triptych.files import write_atomically
from triptych.training import distributed as processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/plugins/refuse.c, to be preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: refusals of the kernel cannot be made")
    library = tmp_path_factory.mktemp("shim") / "refuse.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, ROOT / "tests/plugins/refuse.c", "-ldl"], check=True, timeout=60
    )
    return library


Refused = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refused(shim: Path) -> Refused:
    """`refused("flock", "-c", "...")`: Python with these arguments where the system refuses that."""

    def run(what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LD_PRELOAD": str(shim), "REFUSE": what, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
        )

    return run


@pytest.fixture(scope="session")
def written(tones: Path) -> Path:
    return tones / "shards"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sync-folder", "posix-lock", "flock", "rename-tar", "allocate"])
def test_a_set_is_written_the_same_where_the_file_system_can_less(
    refused: Refused, tones: Path, tmp_path: Path, what: str
) -> None:
    corpus = [f"corpus.ravdess.root={tones / 'raw'}", "features.video=null", "features.audio.lfbe.bands=8", "workers=1"]
    shares = ["split.train=0.4", "split.valid=0.3", "split.test=0.3"]

    done = refused(what, "-m", "shards", "write", "ravdess", *corpus, *shares, f"out={tmp_path / 'out'}")

    assert done.returncode == 0, done.stderr
    assert ("has no locks" in done.stderr) == (what == "posix-lock")
    for tar in sorted((tones / "shards").glob("*.tar")):
        assert (tmp_path / "out" / tar.name).read_bytes() == tar.read_bytes()


def test_a_folder_that_cannot_be_renamed_and_a_disk_that_fails_are_told(
    refused: Refused, tones: Path, tmp_path: Path
) -> None:
    write = ("-m", "shards", "write", "ravdess", f"corpus.ravdess.root={tones / 'raw'}", f"out={tmp_path / 'out'}")
    told = refused("rename-folder", *write).stderr
    assert re.search(r"error: .*this file system cannot rename a folder .* choose a folder on another disk", told)
    assert "Traceback" not in told

    code = "from pathlib import Path; from triptych.files import write_atomically; write_atomically(Path('x'), 'y')"
    failed = refused("sync-broken", "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}")
    assert "Input/output error" in failed.stderr


def test_caches_go_on_without_locks(refused: Refused, tmp_path: Path) -> None:
    code = f"""
import logging, numpy as np
from pathlib import Path
from linear_probe.feature_cache import FeatureCache
from shards.reading.cache import Cache
logging.basicConfig()
kept = FeatureCache(Path({str(tmp_path / "features")!r}))
kept.put({{"a": 1}}, np.arange(3))
assert kept.get({{"a": 1}}).tolist() == [0, 1, 2]
cache = Cache(Path({str(tmp_path / "shards")!r}), 2**30)
with cache.open("ab" * 32, 3, lambda file: file.write(b"abc")) as file:
    assert file.read() == b"abc"
"""
    done = refused("flock allocate", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this file system has no locks (No locks available); see that no other job") == 2


def test_a_lock_that_another_process_has_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    code = (
        f"import fcntl, sys; file = open({str(path)!r}, 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); "
        "sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        with path.open("a") as file:
            assert not refusals.lock(file, wait=False, where=path)
        holder.stdin.close()
    with path.open("a") as file:
        assert refusals.lock(file, wait=False, where=path)


@pytest.mark.parametrize(
    "code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EBADF, errno.EIO]
)
def test_only_what_cannot_be_asked_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("triptych.refusals.os.fsync", refuse)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=os.strerror(code)):
        refusals.sync(tmp_path / "file")  # of a file it would be a lie
    if code in (errno.EIO, errno.ENOLCK):
        with pytest.raises(OSError, match=os.strerror(code)):
            refusals.sync(tmp_path)
    else:
        refusals.sync(tmp_path)
    with (tmp_path / "file").open("a") as file:
        if code in (errno.EIO, errno.EBADF):
            with pytest.raises(OSError, match=os.strerror(code)):
                refusals.lock(file, wait=True, where=tmp_path, by=refuse)
        else:
            assert refusals.lock(file, wait=True, where=tmp_path, by=refuse)
            assert "has no locks" in caplog.text


def test_a_file_moves_to_another_device_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.parent.name == "here" and Path(target).parent.name == "there":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "a").write_text("all of it")

    refusals.move(tmp_path / "here" / "a", tmp_path / "there" / "a")

    assert (tmp_path / "there" / "a").read_text() == "all of it"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]
    (tmp_path / "here" / "folder").mkdir()
    with pytest.raises(UserError, match="cannot rename a folder"):
        refusals.move(tmp_path / "here" / "folder", tmp_path / "there" / "folder")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_what_is_written_can_be_read_by_whom_the_umask_says(tones: Path, tmp_path: Path, mask: int, mode: int) -> None:
    code = f"""
import os; os.umask({mask})
from pathlib import Path
import torch
from triptych.models import load
from triptych.training import distributed
from triptych.training.checkpoint import Checkpoints
from triptych.files import write_atomically
out, encoder = Path({str(tmp_path)!r}), load.load({str(tones / "encoder")!r})
alone = distributed.alone(torch.device("cpu"))
tensors = {{"model": {{"a": torch.zeros(3)}}, "optimizer": {{"b": torch.zeros(3)}}}}
Checkpoints(out / "checkpoints", 1, alone).save(
    7, tensors, {{}}, encoder.state_dict(), lambda folder, state: load.save_encoder(encoder, folder, state)
)
write_atomically(out / "words.txt", "a")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in made} >= {"model.safetensors", "optimizer.safetensors", "config.json", "words.txt"}
    assert {oct(path.stat().st_mode & 0o777) for path in made} == {oct(mode)}


CHECK = '"$1" -m shards check "$2"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (f"{CHECK} >&-", 0),
        (f"{CHECK} >&- 2>&-", 0),
        (f"{CHECK} 2>&-", 0),
        (f"{CHECK} <&-", 0),
        (f"{CHECK} > /dev/full", 141),
        (f"set -o pipefail; {CHECK} | true", 141),
        (f"set -o pipefail; {CHECK} | head -1", 141),
        ('"$1" -m shards check nowhere >&-', 2),
        ('"$1" -m triptych.score --help > /dev/full', 141),
        ('"$1" -m linear_probe --help >&-', 0),
    ],
)
def test_a_lost_output_is_no_damage(written: Path, command: str, status: int) -> None:
    arguments = ["bash", "-c", command, "bash", sys.executable, str(written)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == status or ("head" in command and done.returncode == 0)  # head may have read all of it
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from triptych.config import run_command\n"
        f"def main(): file = open({str(tmp_path / 'file')!r}, 'w'); print('lost'); file.write('kept'); file.close()\n"
        "run_command(main)"
    )
    arguments = ["bash", "-c", '"$1" -c "$2" >&- 2>&-', "bash", sys.executable, code]
    assert subprocess.run(arguments, timeout=60, check=False).returncode == 0
    assert (tmp_path / "file").read_text() == "kept"


def test_a_rank_says_for_whom_it_waits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(processes, "TELL_AFTER_S", 0.01)
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.setenv("MASTER_PORT", "29777")
    with processes._waiting_told(processes.Launch(rank=0, world=4, local_rank=0)):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
    assert "rank 0 of 4 waits for the other ranks at node7:29777, 10 minutes at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, (0, 1)),
        ({"SLURM_NTASKS": "4"}, (0, 4)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, (2, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_NTASKS": "1"}, (1, 2)),
    ],
)
def test_a_check_asks_only_how_many_ranks_there_would_be(environment: dict[str, str], launch: tuple[int, int]) -> None:
    found = processes.announced(environment)
    assert (found.rank, found.world) == launch


def test_one_node_is_never_asked_for_its_own_name() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    missing = [
        f"{name}:{number}"
        for name in tracked
        if not name.endswith((".png", ".svg")) and name != "tests/triptych/test_refusals.py"
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), start=1)
        if "--standalone" in line and "--local-addr" not in line
    ]
    assert not missing, "torchrun --standalone hangs where a machine's own name is unknown: add --local-addr 127.0.0.1"


def test_atomic_writes_survive_a_folder_that_cannot_be_flushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr("triptych.refusals.os.fsync", refuse)
    write_atomically(tmp_path / "a", "b")
    assert (tmp_path / "a").read_text() == "b"
