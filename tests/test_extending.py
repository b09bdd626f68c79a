"""docs/extending.md as a reader follows it: its files laid into a copy of the packages, its lines added where it says,
and its commands run there. A block, a path or a line of the guide that no longer fits fails every test of the copy.
"""

import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from objective_rules import SPECS, check_losses, check_prepare, check_weights, make_task, take
from safetensors.torch import load_file

from triptych.batch import fake_batch
from triptych.models.blocks import TransformerConfig
from triptych.models.load import SystemConfig
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig, VideoTowerConfig
from triptych.models.towers.tcn import TcnConfig
from triptych.models.towers.tower import TowerPlace
from triptych.models.towers.transformer_towers import FrameTowerConfig, TextTransformerConfig

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "extending.md"
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe")
KINDS = ("corpus", "feature", "tower", "system", "objective", "protocol", "head")

ACTORS, EMOTIONS = range(1001, 1011), ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
TINY_SYSTEM = [
    "encoder.mean_fusion.width=8",
    "encoder.mean_fusion.audio.gru.width=8",
    "encoder.mean_fusion.video.gru.width=8",
]
TINY_STREAM = ["stream.global_batch=8", "stream.micro_batch=2", "evaluation.batch=8"]
TINY_RUN = [f"trainer.{name}" for name in ("max_steps=4", "log_every=1", "evaluate_every=2", "checkpoint_every=2")]
TINY = {
    "shards write": ["workers=1"],
    "pretrain gru": [
        *(f"encoder.pairwise.{name}=8" for name in ("width", "audio.gru.width", "video.gru.width")),
        *TINY_STREAM,
        *TINY_RUN,
    ],
    "pretrain order name=order_2": [*TINY_SYSTEM, *TINY_STREAM, *TINY_RUN],
    "pretrain order": [*TINY_SYSTEM, *TINY_STREAM, *TINY_RUN, "stream.micro_batch=8"],
    "linear_probe": ["baselines.untrained=[0]", "baselines.random_labels=1", "missing=false", "num_resamples=20"],
    "finetune cremad": [
        *(
            f"trainer.{name}"
            for name in ("max_steps=30", "evaluate_every=15", "checkpoint_every=15", "keep_checkpoints=9")
        ),
        *("optimizer.lr=0.01", "optimizer.schedule.warmup_steps=0", "global_batch=12", "micro_batch=12"),
        *("num_resamples=20", "missing=false"),
    ],
}
"""Beginning of a command -> what makes it small; nothing else is added to the commands of the guide."""


@dataclass
class Section:
    """What stands below one `##` heading."""

    title: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """Language and text of the fenced blocks."""

    def of(self, *languages: str) -> list[str]:
        """The blocks in these languages."""
        return [text for language, text in self.blocks if language in languages]

    @property
    def files(self) -> dict[str, str]:
        """Path -> content; the path is the comment in the first line."""
        found = {}
        for text in self.of("python", "yaml"):
            first, _, rest = text.partition("\n")
            assert re.fullmatch(r"# [a-z_0-9/]+\.(py|yaml)", first), (
                f"{self.title}: {first!r} is no comment with a path"
            )
            found[first[2:]] = rest
        return found

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command."""
        lines = [line for text in self.of("sh") for line in text.replace("\\\n", " ").splitlines()]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def sections() -> dict[str, Section]:
    """Kind -> its section of the guide."""
    found: list[Section] = []
    language: str | None = None
    for line in GUIDE.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("```"):
            if language is None:
                language = line[3:].strip()
                if found:
                    found[-1].blocks.append((language, ""))
            else:
                language = None
        elif language is None and line.startswith("## "):
            found.append(Section(line[3:].strip()))
        elif language is not None and found:
            found[-1].blocks[-1] = (language, found[-1].blocks[-1][1] + line)
    by_kind = {section.title.split()[-1]: section for section in found}
    return {kind: by_kind[kind] for kind in KINDS}


def register(root: Path, block: str) -> None:
    """Add the lines of a `diff` block: `--- path`, and hunks whose lines without + stand together in the file, once."""
    first, *lines = block.splitlines()
    assert first.startswith("--- "), f"{first!r} names no file"
    file = root / first.removeprefix("--- ")
    content = file.read_text()
    for hunk in "\n".join(lines).split("\n@@\n"):
        before = "".join(f"{line[1:]}\n" for line in hunk.splitlines() if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in hunk.splitlines())
        assert before, f"{first}: nothing says where {after!r} goes"
        assert content.count(before) == 1, f"{first}: {before!r} is there {content.count(before)} times"
        content = content.replace(before, after)
    file.write_text(content)


@dataclass
class House:
    """A copy of the packages with all that the guide adds."""

    root: Path
    warm: Any
    sections: dict[str, Section]

    def run(self, words: Sequence[str]) -> str:
        """Run a command of the guide to its end, made small; returns what it said."""
        arguments = [word.replace("/data/CREMA-D", str(self.root / "raw")) for word in words]
        world, launched = 1, arguments[0] == "torchrun"
        if launched:
            world = int(arguments[arguments.index("--nproc-per-node") + 1])
        arguments = arguments[arguments.index("-m") :]
        tiny = next((added for start, added in TINY.items() if " ".join(arguments[1:]).startswith(start)), [])
        logs = self.root / "logs" / str(len(list((self.root / "logs").iterdir())))
        logs.mkdir()
        programs = self.warm.ranks([*arguments, *tiny], logs, world)
        try:
            codes = [program.wait(200) for program in programs]
        finally:
            for program in programs:
                program.kill()
        told = "".join(file.read_text() for file in sorted(logs.iterdir()))
        assert codes == [0] * world, f"{shlex.join(words)}\n{told}"
        return told

    def run_all(self, kind: str) -> list[str]:
        """Run every command of a section; what each said."""
        return [self.run(words) for words in self.sections[kind].commands]

    def json(self, path: str) -> Any:
        """Content of a file."""
        return json.loads((self.root / path).read_text())

    def logged(self, run: str) -> list[dict[str, float]]:
        """The lines of a pretraining's metrics."""
        lines = (self.root / "runs" / run / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def _media(folder: Path) -> None:
    """60 clips of ten actors, named as CREMA-D's: a tone in a .wav; beside all but two a moving edge, .flv or .mp4."""
    from shards.corpora.look_alikes.picture import write_picture

    columns = np.arange(64)
    for actor in ACTORS:
        for place, emotion in enumerate(EMOTIONS):
            name, rng = f"{actor}_DFA_{emotion}_XX", np.random.default_rng(10 * actor + place)
            samples = 9600 + 800 * (actor % 3)
            tone = 6000 * np.sin(2 * np.pi * (200 + 150 * place) * np.arange(samples) / 16000)
            (folder / "AudioWAV").mkdir(parents=True, exist_ok=True)
            with wave.open(str(folder / "AudioWAV" / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes((tone + 300 * rng.normal(size=samples)).astype("<i2").tobytes())
            if (actor, emotion) not in ((1001, "ANG"), (1004, "SAD")):
                frames = samples * 25 // 16000
                edge = columns[None] > (columns[:frames, None] * (place + 1)) % 64
                picture = np.broadcast_to(200 * edge[:, None, :, None], (frames, 64, 64, 3)).astype(np.uint8)
                path = folder / "VideoFlash" / f"{name}.mp4"
                write_picture(path, picture)
                if place % 2:
                    with av.open(str(path)) as mp4, av.open(str(path.with_suffix(".flv")), "w") as flv:
                        copy = flv.add_stream_from_template(mp4.streams.video[0])
                        for packet in (packet for packet in mp4.demux(video=0) if packet.dts is not None):
                            packet.stream = copy
                            flv.mux(packet)
                    path.unlink()


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy: each section's files are new, and each of its lines is added."""
    root = tmp_path_factory.mktemp("house")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    for section in sections().values():
        assert section.of("diff"), f"{section.title}: no registration"
        assert any(path.endswith(".py") for path in section.files), f"{section.title}: no code"
        for path, content in section.files.items():
            assert not (root / path).exists(), f"{section.title}: {path} is there already"
            assert (root / path).parent.is_dir(), f"{section.title}: {path} is in a folder that is not there"
            (root / path).write_text(content)
        for block in section.of("diff"):
            register(root, block)
    return root


@pytest.fixture(scope="module")
def house(laid: Path, warm_in: Callable[[Path], Any]) -> House:
    """The copy with raw files, in which commands start."""
    (laid / "logs").mkdir()
    _media(laid / "raw")
    return House(laid, warm_in(laid), sections())


@pytest.fixture(scope="module")
def written(house: House) -> list[str]:
    """After the section on the corpus."""
    return house.run_all("corpus")


@pytest.fixture(scope="module")
def stored(house: House, written: list[str]) -> list[str]:
    """After the section on the feature."""
    return house.run_all("feature")


@pytest.fixture(scope="module")
def pretrained(house: House, written: list[str]) -> list[str]:
    """After the section on the objective."""
    return house.run_all("objective")


def _example(laid: Path, path: str) -> Iterator[ModuleType]:
    """A module of the guide in this process, under the name that it has in the copy."""
    name = path.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, laid / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


@pytest.fixture(scope="module")
def energy(laid: Path) -> Iterator[ModuleType]:
    yield from _example(laid, "shards/features/energy.py")


@pytest.fixture(scope="module")
def gru(laid: Path) -> Iterator[ModuleType]:
    yield from _example(laid, "triptych/models/towers/gru.py")


@pytest.fixture(scope="module")
def order(laid: Path) -> Iterator[ModuleType]:
    yield from _example(laid, "pretrain/objectives/order.py")


def test_the_guides_code_is_as_the_houses(laid: Path) -> None:
    """Formatted, without an unused import, and of the sizes that tests ask for."""
    files = [path for section in sections().values() for path in section.files if path.endswith(".py")]
    for check in (["check"], ["format", "--check", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *files], cwd=laid, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(len((laid / path).read_text().splitlines()) < 110 for path in files)


def test_a_line_whose_place_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    register(tmp_path, "--- a.py\n one\n+new\n two\n@@\n+last\n three\n")
    assert (tmp_path / "a.py").read_text() == "one\nnew\ntwo\nlast\nthree\n"
    for block in ("--- a.py\n four\n+new\n", "--- a.py\n+new\n", "--- a.py\n one\n two\n+new\n"):
        with pytest.raises(AssertionError):
            register(tmp_path, block)


@pytest.mark.slow
def test_the_corpus_is_written_with_its_labels_and_every_clip_is_accounted_for(
    house: House, written: list[str]
) -> None:
    manifest = house.json("data/cremad/manifest.json")
    assert (manifest["found"], manifest["written"], manifest["quarantined"]) == (60, 60, {})
    assert manifest["labels"]["emotion"] == dict.fromkeys(
        ("angry", "disgust", "fearful", "happy", "neutral", "sad"), 10
    )
    assert manifest["counts"]["without_video"] == 2
    assert "every hash and count" in written[1] or "ok" in written[1]


@pytest.mark.slow
def test_the_feature_is_stored_beside_the_media(house: House, stored: list[str]) -> None:
    manifest = house.json("data/cremad_energy/manifest.json")
    assert [(spec["name"], spec["shape"]) for spec in manifest["features"]] == [("energy", [2])]
    assert manifest["written"] == 60


def test_the_features_steps_depend_on_their_support_alone(energy: ModuleType) -> None:
    feature = energy.EnergyConfig(window_ms=30).build()
    start_s, end_s = feature.spec.support_s

    def compute(samples: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        return feature.compute({"wav": buffer.getvalue()})

    sound = 3000 * np.random.default_rng(0).normal(size=8000)
    steps = compute(sound)
    assert steps.shape == (48, 2)
    for step in (0, 17, 47):
        first, last = (round((step / feature.spec.rate_hz + edge) * 16000) for edge in (start_s, end_s))
        others = np.zeros(8000)
        others[first:last] = sound[first:last]
        assert np.array_equal(compute(others)[step], steps[step])
    assert compute(np.zeros(8000)).tolist() == [[-5.0, 0.0]] * 48
    assert compute(np.zeros(100)).shape == (0, 2)


@pytest.mark.slow
def test_the_tower_is_checked_and_trains_with_an_objective_of_the_house(house: House, stored: list[str]) -> None:
    checked, _ = house.run_all("tower")
    assert "checked, nothing trained" in checked
    assert "valid/recall_at_1/contrastive" in set().union(*house.logged("gru"))


def test_the_tower_gives_the_same_numbers_in_any_batch_and_zeros_where_there_is_nothing(gru: ModuleType) -> None:
    torch.manual_seed(0)
    spec = SPECS["audio"]
    tower = gru.GruConfig(width=8).build(TowerPlace(spec=spec, width=4)).eval()
    batch = fake_batch({"audio": spec}, num_clips=4, absent={"audio": (2,)})
    layers: list[Any] = []
    with torch.no_grad():
        together = tower(batch.tracks["audio"], layers)
        for clip in (0, 1, 3):
            alone = tower(take(batch, clip).tracks["audio"])
            length = alone.sequence.shape[1]
            torch.testing.assert_close(alone.pooled[0], together.pooled[clip], rtol=0, atol=1e-6)
            torch.testing.assert_close(alone.sequence[0], together.sequence[clip, :length], rtol=0, atol=1e-6)
    assert not together.pooled[2].any()
    assert not together.sequence[2].any()
    assert len(layers) == 3
    assert torch.equal(layers[-1].sequence, together.sequence)


@pytest.mark.slow
@pytest.mark.dist
def test_the_objective_trains_the_new_system_and_exports_it(house: House, pretrained: list[str]) -> None:
    rows = house.logged("order")
    assert [row["step"] for row in rows if "loss/order" in row] == [1, 2, 3, 4]
    assert all(row["loss/order"] < 2 and 0 <= row["accuracy/order"] <= 1 for row in rows if "loss/order" in row)
    assert {"valid/loss/order", "valid/accuracy/order"} <= set().union(*rows)
    described = house.json("runs/order/encoder/config.json")
    assert list(described["inputs"]) == ["audio", "video"]
    assert described["inputs"]["audio"]["name"] == "energy"
    system = {name for name, settings in described["system"].items() if settings is not None}
    assert system == {"mean_fusion"}


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_see_the_losses_of_one(house: House, pretrained: list[str]) -> None:
    """Within 1e-6, over steps that AdamW took: one takes eight clips at once, and each of two twice two of its four."""
    one, two = ([row["loss/order"] for row in house.logged(run) if "loss/order" in row] for run in ("order", "order_2"))
    assert len(one) == 4
    assert one == pytest.approx(two, rel=0, abs=1e-6)
    assert len(set(one)) == 4


@pytest.mark.slow
def test_a_probe_scores_the_new_protocol(house: House, pretrained: list[str]) -> None:
    house.run_all("protocol")
    report = (house.root / "runs/order_probe/report.md").read_text()
    assert "cremad/actors_5fold" in report
    results = house.json("runs/order_probe/results.json")
    assert results["protocol"]["name"] == "cremad"
    assert {split: facts["clips"] for split, facts in results["protocol"]["splits"].items()} == {
        "test": len(ACTORS) * 6
    }


@pytest.mark.slow
def test_the_new_head_is_trained_and_scored(house: House, pretrained: list[str]) -> None:
    house.run_all("head")
    report = (house.root / "runs/order_finetune/report.md").read_text()
    assert "from scratch" in report
    assert "fine-tuned" in report
    assert house.json("runs/order_finetune/results.json")["protocol"]["name"] == "cremad"
    rows = house.json("runs/order_finetune/results.json")["systems"]
    assert rows[-1]["metrics"]["UA"]["value"] > 0.3  # each emotion has a pitch of its own, and chance is a sixth
    run = house.root / "runs/order_finetune/runs/pretrained-seed-0"
    assert yaml.safe_load((run / "config.yaml").read_text())["head"]["statistics"] == {"hidden": 128, "dropout": 0.1}
    saved = [load_file(folder / "model.safetensors") for folder in sorted((run / "checkpoints").iterdir())]
    heads = [{name: value for name, value in state.items() if name.startswith("head.")} for state in saved]
    assert len(heads) == 2
    assert {name.split(".")[1] for name in heads[0]} == {"scorers", "output"}
    assert all(not torch.equal(heads[0][name], heads[-1][name]) for name in heads[0])


def test_the_objective_keeps_the_rules(order: ModuleType) -> None:
    tiny = TransformerConfig(width=8, layers=1, heads=2, dropout=0.0)
    text = TextTransformerConfig(width=8, layers=1, heads=2, dropout=0.0)
    towers = PairwiseConfig(
        text=TextTowerConfig(transformer=text),
        audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=4, hidden=4, blocks=1)),
        video=VideoTowerConfig(frames=FrameTowerConfig(transformer=tiny)),
        width=6,
    )
    task = make_task(SystemConfig(pairwise=towers), "order", order.OrderConfig())
    check_prepare(task, "order")
    check_losses(task, "order")
    check_weights(task)


def test_the_objective_swaps_the_halves_of_real_steps(order: ModuleType) -> None:
    track = fake_batch({"audio": SPECS["audio"]}, num_clips=2, num_words=1).tracks["audio"]
    steps = int(track.mask[1].sum())
    assert 1 < steps < track.mask.shape[1]
    swapped = order.swap_halves(track, torch.tensor([False, True]))
    assert torch.equal(swapped.values[0], track.values[0])
    half = steps // 2
    assert torch.equal(swapped.values[1, : steps - half], track.values[1, half:steps])
    assert torch.equal(swapped.values[1, steps - half : steps], track.values[1, :half])
    assert torch.equal(swapped.values[1, steps:], track.values[1, steps:])
