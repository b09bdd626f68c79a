"""What every test folder may use."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shards.index import ShardSet
    from shards.record import ClipRecord

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of small real samples."""
    given = os.environ.get("TRIPTYCH_REAL_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real samples not found: set TRIPTYCH_REAL_DATA")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, aloud, what needs a GPU where there is none."""
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
    from shards.features.config import AudioFeature, FeaturesConfig, build
    from shards.features.lfbe import LfbeConfig
    from shards.split import SplitConfig
    from shards.write import WriteConfig, write
    from triptych.models import load
    from triptych.models.blocks import TransformerConfig
    from triptych.models.cross_modal import CrossModalConfig
    from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig
    from triptych.models.tcn import TcnConfig

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


@dataclass(frozen=True)
class Demo:
    """Small runs of `python -m pretrain demo`, all of the same config unless overridden."""

    shards: Path
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

    def command(self, runs: Path, *overrides: str, processes: int = 2) -> list[str]:
        """The whole command; with more than one process, torchrun's."""
        program = ["-m", "pretrain", *self.arguments(runs, *overrides)]
        if processes == 1:
            return [sys.executable, *program]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, f"--nproc-per-node={processes}", *program]

    def run(
        self, runs: Path, *overrides: str, processes: int = 2, timeout_s: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command, pipe = self.command(runs, *overrides, processes=processes), subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as started:
            try:
                said = started.communicate(timeout=timeout_s)
            except BaseException:
                self.kill(started)
                raise
        return subprocess.CompletedProcess(command, started.returncode, *said)

    def start(self, runs: Path, *overrides: str) -> subprocess.Popen[bytes]:
        """Start two processes; what they say is added to `runs`/log."""
        with (runs / "log").open("a") as log:
            return subprocess.Popen(self.command(runs, *overrides), cwd=ROOT, stdout=log, stderr=log)

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
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Runs on a small generated shard set."""
    folder = tmp_path_factory.mktemp("clips")
    arguments = [f"corpus.synthetic.root={folder}/raw", "corpus.synthetic.num_clips=40", f"out={folder}/shards"]
    command = [sys.executable, "-m", "shards", "write", "synthetic", *arguments, "corpus.synthetic.num_speakers=10"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=250, capture_output=True)
    return Demo(folder / "shards")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured with `record_property("measured", text)`, also when they ran in another process."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(text)


PER_SHARD = 20


@pytest.fixture
def record() -> "Callable[..., ClipRecord]":
    """`record(key, speaker, split="train", labels={}, **source)`."""
    from shards.record import ClipRecord

    def make(key: str, speaker: str, split: str = "train", labels: Any = None, **source: str) -> "ClipRecord":
        return ClipRecord(
            key=key,
            speaker=speaker,
            split=split,
            duration_s=1.0,
            has_audio=False,
            has_video=False,
            words=None,
            source=source,
            labels=labels or {},
        )

    return make


@pytest.fixture
def ravdess(record: "Callable[..., ClipRecord]") -> "Callable[..., list[ClipRecord]]":
    """`ravdess(actors)`: eight takes each, one an emotion; all of the training split."""

    def make(actors: Sequence[int]) -> "list[ClipRecord]":
        emotions = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
        return [
            record(
                f"03-01-{code:02d}-01-01-01-{actor:02d}",
                f"actor-{actor:02d}",
                labels={"emotion": emotion},
                take=f"01-{code:02d}-01-01-01-{actor:02d}",
            )
            for actor in actors
            for code, emotion in enumerate(emotions, start=1)
        ]

    return make


@pytest.fixture
def written(tmp_path: Path) -> "Callable[..., ShardSet]":
    """`written(records, split={"by": "speaker"})`: as a shard set, each record in the split that it names."""
    from shards.index import ShardSet
    from shards.record import SPLITS, Manifest
    from shards.tar import ShardWriter

    def write(records: "Sequence[ClipRecord]", split: dict[str, Any] | None = None) -> "ShardSet":
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        infos = []
        for name, found in ((name, [one for one in records if one.split == name]) for name in SPLITS):
            for number, start in enumerate(range(0, len(found), PER_SHARD)):
                shard = ShardWriter(folder, f"{name}-{number:06d}", name)
                for one in found[start : start + PER_SHARD]:
                    shard.add(one.key, {"json": json.dumps(one.to_json()).encode()})
                infos.append(shard.finish())
        manifest = Manifest(
            corpus="made up",
            created_by="test",
            split={"by": "speaker"} if split is None else split,
            found=len(records),
            written=len(records),
            filtered={},
            quarantined={},
            shards=[info for info in infos if info is not None],
            features=[],
            labels={},
            counts={},
            vocabulary_sha256=hashlib.sha256(b"").hexdigest(),
            durations_sha256=dict.fromkeys(SPLITS, hashlib.sha256(b"").hexdigest()),
        )
        (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
        return ShardSet(folder)

    return write


@pytest.fixture
def by_actor() -> "Callable[..., list[ClipRecord]]":
    """`by_actor(records, valid=actors, test=actors)`: the records in splits by the actor in their key."""

    def move(records: "Sequence[ClipRecord]", valid: Sequence[int], test: Sequence[int]) -> "list[ClipRecord]":
        def split(one: "ClipRecord") -> str:
            actor = int(one.key[-2:])
            return "test" if actor in test else "valid" if actor in valid else "train"

        return [replace(one, split=split(one)) for one in records]

    return move
