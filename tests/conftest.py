"""What every test folder may use."""

import os
import wave
from pathlib import Path

import pytest

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
    actors; and an `encoder` of their sound that has learnt nothing."""
    from shards.corpora.config import CorpusConfig
    from shards.corpora.ravdess import RavdessConfig
    from shards.features.config import AudioFeature, FeaturesConfig, build
    from shards.features.lfbe import LfbeConfig
    from shards.split import SplitConfig
    from shards.write import WriteConfig, write
    from triptych.models import load
    from triptych.models.blocks import TransformerConfig
    from triptych.models.cross_modal import CrossModalConfig

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
    return root


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured with `record_property("measured", text)`, also when they ran in another process."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(text)
