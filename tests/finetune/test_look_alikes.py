"""Shipped configs, each on its own corpus: from files in that corpus' layout to the report, with an interruption."""

import functools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune.__main__ import main
from shards.features.words import PIECES, WORDS
from shards.look_alike import make
from shards.reading.index import ShardSet
from shards.write import WriteConfig, write
from triptych import config
from triptych.evaluation import figures
from triptych.modalities import FeatureSpec
from triptych.models import load
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig, VideoTowerConfig
from triptych.models.towers.text_encoder import TextEncoderConfig
from triptych.models.towers.transformer_towers import FrameTowerConfig
from triptych.training.engine import Engine

FILES = Path(config.config_folder()) / "finetune"
SMALL = ("features.audio.lfbe.bands=8", "features.video={face_crops: {box: [0, 0, 1, 1], size: 8}}")
WORDS_ALONE = ("corpus.meld.media=false", "features.audio=null", "features.video=null")
FOLDS = "corpus.{corpus}.folds={raw}/cmu_{corpus}_std_folds.py"
STEPS = 3
SHORT = (
    *("global_batch=2", "micro_batch=2", "num_resamples=5"),
    *(f"trainer.max_steps={STEPS}", "trainer.log_every=1", "trainer.evaluate_every=2"),
    "optimizer.schedule.warmup_steps=0",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a config of configs/finetune is tried with."""

    corpus: str
    written: tuple[str, ...] = SMALL
    """Overrides of the corpus' config for shards."""
    encoder: str
    """Its kind, see `_system`."""
    seeds: tuple[str, ...] = ("seeds=[0]",)
    num_runs: int = 1
    """Initial weights times seeds."""


CASES = {
    "sse_ft_mosei": Case(corpus="mosei", written=("split.by=source", FOLDS, *SMALL), encoder="towers"),
    "sse_ft_mosi": Case(corpus="mosi", written=("split.by=source", FOLDS, *SMALL), encoder="towers"),
    "sse_ft_meld": Case(corpus="meld", encoder="towers"),
    "sse_ft_iemocap": Case(corpus="iemocap", encoder="towers"),
    "khare_mosei": Case(
        corpus="mosei",
        written=("split.by=source", FOLDS, *SMALL),
        encoder="fused",
        seeds=("seeds=[0,1]", "best_of=2"),
        num_runs=4,
    ),
    "avec2017": Case(corpus="avec2017", written=("split.by=source", *SMALL), encoder="fused", num_runs=2),
    # two actors have pictures: too few for a split by people
    "ravdess": Case(
        corpus="ravdess", written=("split.by=protocol:ravdess/random_10fold/2", *SMALL), encoder="fused", num_runs=2
    ),
    "meld_text": Case(corpus="meld", written=WORDS_ALONE, encoder="fused", num_runs=2),
}


def _system(kind: str, inputs: tuple[str, ...], text_model: Path) -> load.SystemConfig:
    """towers: as SSE-FT has them, side by side, the pieces of the text through a RoBERTa. fused: a cross-modal
    transformer."""
    if kind == "fused":
        tiny = TransformerConfig(width=8, layers=1, heads=2)
        return load.SystemConfig(cross_modal=CrossModalConfig(modalities=inputs, transformer=tiny))
    frames = FrameTowerConfig(transformer=TransformerConfig(width=16, layers=1, heads=2))
    towers = PairwiseConfig(
        text=TextTowerConfig(encoder=TextEncoderConfig(model=str(text_model), cls=True, unit="piece")),
        audio=AudioTowerConfig(frames=frames),
        video=VideoTowerConfig(frames=frames),
        width=8,
    )
    return load.SystemConfig(pairwise=towers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, text_models: Path) -> Callable[[Case], tuple[Path, Path]]:
    """Case -> its encoder and shards; what several configs share is made once."""
    root = tmp_path_factory.mktemp("look_alikes")

    @functools.cache
    def raw(corpus: str) -> Path:
        make(corpus, root / corpus / "raw")
        return root / corpus / "raw"

    @functools.cache
    def shards(corpus: str, written: tuple[str, ...]) -> Path:
        out = root / corpus / f"shards-{hash(written)}"
        given = [one.format(corpus=corpus, raw=raw(corpus)) if one == FOLDS else one for one in written]
        given += [f"corpus.{corpus}.root={raw(corpus)}", f"out={out}", "max_quarantined_share=0.5", "workers=1"]
        write(config.load(WriteConfig, config.find(corpus, "shards"), given))
        return out

    @functools.cache
    def encoder(kind: str, folder: Path) -> Path:
        shard_set = ShardSet(folder)
        specs = [FeatureSpec.from_json(fields) for fields in shard_set.manifest.features]
        text, words = (PIECES, ()) if kind == "towers" else (WORDS, shard_set.vocabulary().words)
        inputs = {"text": text, **{spec.modality: spec for spec in specs}}
        built = load.build(_system(kind, tuple(inputs), text_models / "roberta"), inputs, words)
        built.start()
        load.save_encoder(built, folder.with_name(f"{folder.name}-{kind}"))
        return folder.with_name(f"{folder.name}-{kind}")

    def of(case: Case) -> tuple[Path, Path]:
        folder = shards(case.corpus, case.written)
        return encoder(case.encoder, folder), folder

    return of


def test_every_config_has_its_case() -> None:
    assert CASES.keys() == {file.stem for file in FILES.glob("*.yaml")} - {"synthetic"}  # which `make demo` runs


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_config_trains_goes_on_after_a_stop_and_reports(
    name: str,
    made: Callable[[Case], tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = CASES[name]
    encoder, shards = made(case)
    train_step, steps = Engine.train_step, []
    stop_at = case.num_runs * STEPS - 1  # in the last run, at the step that valid is asked about

    def counted(self, micro_batches, step, *rest):
        steps.append(step)
        if len(steps) == stop_at and out.name == "cut":
            os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would
        return train_step(self, micro_batches, step, *rest)

    def command() -> int:
        given = [f"encoder={encoder}", f"shards={shards}", f"out={out}", *case.seeds, *SHORT]
        monkeypatch.setattr("sys.argv", ["finetune", name, *given])
        return main()

    monkeypatch.setattr(Engine, "train_step", counted)
    out = tmp_path / "whole"
    with monkeypatch.context() as patched:
        patched.setattr(figures, "draw", lambda *_: {})  # once is enough: pictures are most of a report's time
        assert command() == 0
    assert len(steps) == case.num_runs * STEPS

    steps.clear()
    out = tmp_path / "cut"
    assert command() == 75
    assert not (out / "report.md").exists()
    assert command() == 0
    assert len(steps) == case.num_runs * STEPS  # none twice
    for file in ("results.json", "predictions.csv"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()

    numbers = json.loads((out / "results.json").read_text())
    last = numbers["systems"][-1]
    assert last["inputs"] == "+".join(load.load(encoder).inputs)
    assert set(last["metrics"]) == set(numbers["protocol"]["metrics"])
    assert numbers["protocol"]["splits"]["test"]["clips"] > 0
    assert (out / "report.md").is_file()
