"""What every test folder may use."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ["label_records", "text_models"]  # in tests/plugins


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real samples."""
    given = os.environ.get("TRIPTYCH_REAL_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real samples not found: set TRIPTYCH_REAL_DATA")
    return folder


@pytest.hookimpl(optionalhook=True)  # also without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, Slurm's files are one: they share a cluster. (xdist 3.8 has groups of tests for this, but
    they are lost with pytest 9.2, where `_nodeid` is gone.)"""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "slurm" if file.startswith("tests/slurm/") else file

    return Files(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, files that take long come first; what needs a GPU is skipped, aloud, where there is none."""
    if hasattr(config, "workerinput"):
        first = ("slurm", "dist", "slow")
        files = {name: {item.path for item in items if item.get_closest_marker(name)} for name in first}
        items.sort(key=lambda item: [item.path not in files[name] for name in first])
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch  # not at the top: a run that selects other tests need not wait for it

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


def _tone(path: Path, pitch_hz: float, seed: int) -> None:
    import numpy as np

    noise = np.random.default_rng(seed).normal(size=8000)
    sound = 8000 * np.sin(2 * np.pi * pitch_hz * np.arange(8000) / 16000) + 500 * noise
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(sound.astype("<i2").tobytes())


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shards` of half-second tones in RAVDESS's naming, the pitch being the emotion (happy 300 Hz, sad 900 Hz), of six
    actors; and an `encoder` of their sound that has learnt nothing, also as a `pairwise` one without fusion."""
    from shards.corpora.config import CorpusConfig
    from shards.corpora.ravdess import RavdessConfig
    from shards.divisions.split import SplitConfig
    from shards.features.config import AudioFeature, FeaturesConfig, build
    from shards.features.lfbe import LfbeConfig
    from shards.write import WriteConfig, write
    from triptych.models import load
    from triptych.models.blocks import TransformerConfig
    from triptych.models.cross_modal import CrossModalConfig
    from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig
    from triptych.models.towers.tcn import TcnConfig

    root = tmp_path_factory.mktemp("tones")
    for actor in range(1, 7):
        folder = root / "raw" / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for code, pitch_hz in ((3, 300), (4, 900)):
            for repetition in (1, 2):
                name = f"03-01-{code:02d}-01-01-{repetition:02d}-{actor:02d}.wav"
                _tone(folder / name, pitch_hz + 5 * actor, 10 * actor + repetition)
    features = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=8)))
    corpus = CorpusConfig(ravdess=RavdessConfig(root=str(root / "raw")))
    split = SplitConfig(train=0.4, valid=0.3, test=0.3)
    write(WriteConfig(corpus=corpus, out=str(root / "shards"), split=split, features=features, workers=1))
    tiny = TransformerConfig(width=8, layers=1, heads=2)
    system = load.SystemConfig(cross_modal=CrossModalConfig(modalities=("audio",), anchor="audio", transformer=tiny))
    inputs = {modality: feature.spec for modality, feature in build(features).items()}
    load.save_encoder(load.build(system, inputs, ()), root / "encoder")
    towers = PairwiseConfig(audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=8, hidden=16, blocks=2)), width=16)
    load.save_encoder(load.build(load.SystemConfig(pairwise=towers), inputs, ()), root / "pairwise")
    return root


@dataclass
class Program:
    """A process that `Warm` started, in a session of its own."""

    warm: "Warm"
    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.code is None:
            self.code = self.warm.ask({"poll": self.pid})
        return self.code

    def wait(self, timeout_s: float) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it runs on.
        """
        end = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} runs on after {timeout_s:.0f} s")
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """SIGKILL for it and what it started, unless it has ended."""
        for kill in (os.killpg, os.kill):  # it may be so new that it has no session yet
            with contextlib.suppress(ProcessLookupError):
                if self.poll() is None:
                    kill(self.pid, signal.SIGKILL)


class Warm:
    """Starts Python programs in a process that has imported torch and DeepSpeed already (warm.py)."""

    def __init__(self, root: Path = ROOT) -> None:
        """The packages are those in `root`, which programs start in."""
        self._root = root
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: dict[str, Any]) -> Any:
        """Tell the process, which is started when it is first needed, and wait for its answer."""
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": str(self._root), "OMP_NUM_THREADS": "1"}
            command, pipe = [sys.executable, "-P", str(Path(__file__).with_name("warm.py"))], subprocess.PIPE
            self._process = subprocess.Popen(
                command, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True
            )
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, arguments: Sequence[str], outputs: tuple[Path, Path], **environment: str) -> Program:
        """Run `python ARGUMENTS`, which are `-m module ...` or `program.py ...`, with this environment beside the
        present one; what it says on stdout and stderr is added to the two `outputs`, which may be one file."""
        common = {**os.environ, "PYTHONPATH": str(self._root), "OMP_NUM_THREADS": "1"} | environment
        paths, folder = [str(path) for path in outputs], str(self._root)
        job = {"arguments": list(arguments), "environment": common, "folder": folder, "outputs": paths}
        return Program(self, self.ask(job))

    def ranks(self, arguments: Sequence[str], logs: Path, world: int, **environment: str) -> list[Program]:
        """Run it `world` times as torchrun would, one alone without a launcher; they say `logs`/<rank>.out and .err."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        launch |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        started = []
        for rank in range(world):
            mine = {**launch, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
            outputs = (logs / f"{rank}.out", logs / f"{rank}.err")
            started.append(self.start(arguments, outputs, **mine, **environment))
        return started

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait(timeout=60)  # on a busy machine it has taken 8 s


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Programs that start without the seconds of their imports."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="session")
def warm_in() -> Iterator[Callable[[Path], Warm]]:
    """Programs that start as with `warm`, of the packages in a folder."""
    started: list[Warm] = []

    def begin(root: Path) -> Warm:
        started.append(Warm(root))
        return started[-1]

    yield begin
    for process in started:
        process.close()


@dataclass(frozen=True)
class Demo:
    """Small runs of `python -m pretrain demo`, all of the same config unless overridden."""

    shards: Path
    warm: Warm
    steps: int = 24

    def arguments(self, runs: Path, *overrides: str) -> list[str]:
        """What `python -m pretrain` is given; the run is `runs`/run."""
        return [
            "demo",
            f"stream.shards={self.shards}",
            f"runs={runs}",
            "name=run",
            f"trainer.max_steps={self.steps}",
            "trainer.log_every=1",
            "trainer.checkpoint_every=4",
            "trainer.evaluate_every=6",
            "encoder.cross_modal.transformer.width=32",
            "encoder.cross_modal.transformer.layers=1",
            # both objectives from the start, where the shipped run of 800 steps has words first
            "objectives.contrastive.weight=0.3",
            "objectives.contrastive.weight_at={399: 1.0}",
            *overrides,
        ]

    def torchrun(self, runs: Path, *overrides: str) -> list[str]:
        """The whole command of two processes."""
        one_node = ["--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *one_node,
            "-m",
            "pretrain",
            *self.arguments(runs, *overrides),
        ]

    def run(
        self, runs: Path, *overrides: str, processes: int = 1, timeout_s: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end in warm processes, as torchrun would start them; what is said is that of all of them."""
        arguments = ["-m", "pretrain", *self.arguments(runs, *overrides)]
        with tempfile.TemporaryDirectory() as logs:
            started = self.warm.ranks(arguments, Path(logs), processes)
            try:
                codes = [program.wait(timeout_s) for program in started]
            finally:
                for program in started:
                    program.kill()
            said = ["".join(file.read_text() for file in sorted(Path(logs).glob(f"*.{end}"))) for end in ("out", "err")]
        return subprocess.CompletedProcess(arguments, max(codes, key=abs), *said)

    def launch(self, runs: Path, *overrides: str, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
        """Run two processes of torchrun's to their end."""
        command, pipe = self.torchrun(runs, *overrides), subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as started:
            try:
                said = started.communicate(timeout=timeout_s)
            except BaseException:
                self.kill(started)
                raise
        return subprocess.CompletedProcess(command, started.returncode, *said)

    def start(self, runs: Path, *overrides: str) -> subprocess.Popen[bytes]:
        """Start two processes of torchrun's; what they say is added to `runs`/log."""
        with (runs / "log").open("a") as log:
            return subprocess.Popen(self.torchrun(runs, *overrides), cwd=ROOT, stdout=log, stderr=log)

    def kill(self, torchrun: subprocess.Popen[Any]) -> None:
        """SIGKILL for torchrun and its ranks, which are no process group: each rank has a session of its own."""
        ranks = [pid for pid, (parent, _) in _processes().items() if parent == torchrun.pid]
        for pid in (torchrun.pid, *ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        torchrun.wait()
        while any(_processes().get(pid, (0, "Z"))[1] != "Z" for pid in ranks):
            time.sleep(0.02)

    def logged(self, runs: Path) -> list[dict[str, float]]:
        """The whole lines of metrics.jsonl so far, less the clock."""
        file = runs / "run" / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        clock = {"time_s", "samples_per_s", "data_wait_share"}
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [{key: value for key, value in row.items() if key not in clock} for row in rows]


def _processes() -> dict[int, tuple[int, str]]:
    """Process id -> its parent's and its state ("Z": ended, and not yet collected)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            found[int(stat.parent.name)] = (int(parent), state)
    return found


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Demo:
    """Runs on a small generated shard set."""
    folder = tmp_path_factory.mktemp("clips")
    arguments = [f"corpus.synthetic.root={folder}/raw", "corpus.synthetic.num_clips=40", f"out={folder}/shards"]
    command = [sys.executable, "-m", "shards", "write", "synthetic", *arguments, "corpus.synthetic.num_speakers=10"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=250, capture_output=True)
    return Demo(folder / "shards", warm)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured with `record_property("measured", text)`, also when they ran in another process."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(text)
