import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from triptych import config as configs
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build, load, save_encoder
from triptych.release import ReleaseConfig, release

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=3, rate_hz=20, shape=(10,), dtype="float32"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as pretraining leaves it."""
    system = SystemConfig(
        cross_modal=CrossModalConfig(
            modalities=("text", "audio"), transformer=TransformerConfig(width=8, layers=1, heads=2)
        )
    )
    folder = tmp_path / "run"
    folder.mkdir()
    save_encoder(build(system, SPECS, ("yes", "no")), folder / "encoder")
    (folder / "config.yaml").write_text("stream:\n  shards: s3://bucket/grid\nobjectives:\n  masked_lm: {}\n")
    (folder / "data.json").write_text(json.dumps({"corpus": "grid", "clips": 12, "shards_sha256": "0a1b"}))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 40}\n')
    (folder / "labels_used.json").write_text("[]\n")
    return folder


def test_a_release_loads_and_says_the_same_as_the_run(run: Path, tmp_path: Path):
    release(ReleaseConfig(run=run, out=tmp_path / "out", licence="CC BY 4.0"))
    batch = fake_batch(SPECS, vocabulary_size=2)
    ours, theirs = (load(folder).encode(batch).pooled for folder in (run / "encoder", tmp_path / "out"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not list(tmp_path.glob("*.partial"))


def test_an_encoder_without_fusion_is_released_too(run: Path, tmp_path: Path):
    towers = {"text": {"transformer": {"width": 8, "layers": 1, "heads": 2}}, "audio": {"tcn": {"blocks": 1}}}
    shutil.rmtree(run / "encoder")
    system = configs.load(SystemConfig, {"pairwise": {**towers, "width": 6}})
    save_encoder(build(system, SPECS, ("yes", "no")), run / "encoder")
    release(ReleaseConfig(run=run, out=tmp_path / "out"))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "holds `text` [clips, 6], `audio` [clips, 6];" in card
    assert "`fused`" not in card


def test_the_sums_are_what_sha256sum_checks(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    release(ReleaseConfig(run=run, out=out))
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert sums.keys() == files - {"SHA256SUMS"}
    assert all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_the_card_names_clips_steps_inputs_and_licence(run: Path, tmp_path: Path):
    release(ReleaseConfig(run=run, out=tmp_path / "out", licence="CC BY 4.0"))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    for said in (
        "self-supervised, masked_lm; no label",
        "`0a1b`",
        "grid, 12 clips",
        "optimizer steps: 40",
        "lfbe v3",
        "20 a second",
        "under CC BY 4.0",
    ):
        assert said in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ("[]", "self-supervised, masked_lm; no label was used in this run"),
        ('["emotion (of the shards)"]', "masked_lm; also trained on labels: emotion (of the shards)"),
        (None, "masked_lm; whether labels were used is not recorded"),
    ],
)
def test_the_card_tells_of_labels_what_the_run_recorded(run: Path, tmp_path: Path, recorded: str | None, said: str):
    (run / "labels_used.json").unlink()
    if recorded is not None:
        (run / "labels_used.json").write_text(recorded)
    release(ReleaseConfig(run=run, out=tmp_path / "out"))
    assert said in (tmp_path / "out" / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_the_four_lines_of_the_card_work(run: Path, tmp_path: Path):
    release(ReleaseConfig(run=run, out=tmp_path / "out"))
    code = (tmp_path / "out" / "MODEL_CARD.md").read_text().split("```python\n")[1].split("```")[0]
    shape = subprocess.run(
        [sys.executable, "-c", code + "print(tuple(encoded.pooled['fused'].shape))"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert shape.stdout.strip() == "(4, 8)"


def test_a_damaged_encoder_is_not_released(run: Path, tmp_path: Path):
    weights = run / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        release(ReleaseConfig(run=run, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(run: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.md").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        release(ReleaseConfig(run=run, out=tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.md").read_text() == "mine"


def test_other_json_is_refused_as_results(run: Path, tmp_path: Path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a results\.json"):
        release(ReleaseConfig(run=run, out=tmp_path / "out", results=str(tmp_path / "other.json")))


def test_the_card_of_a_fine_tuned_encoder_says_that_labels_were_used(run: Path, tmp_path: Path):
    (run / "config.yaml").write_text(f"protocol: ravdess\nshards: {tmp_path / 'shards'}\n")
    release(ReleaseConfig(run=run, out=tmp_path / "out"))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "fine-tuned on the labels of ravdess" in card
    assert "grid, 12 clips" in card


def test_the_card_says_what_the_run_started_from(run: Path, tmp_path: Path):
    release(ReleaseConfig(run=run, out=tmp_path / "fresh"))
    assert "started from" not in (tmp_path / "fresh" / "MODEL_CARD.md").read_text()

    (run / "start.json").write_text(json.dumps({"sha256": {"model.safetensors": "ab12"}}))
    release(ReleaseConfig(run=run, out=tmp_path / "further"))

    card = (tmp_path / "further" / "MODEL_CARD.md").read_text()
    assert "- started from: another encoder, SHA-256 of its model.safetensors `ab12`; this card does not say" in card


def test_only_the_encoders_own_files_are_released_and_all_can_read_them(run: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("a key")
    (run / "encoder" / ".env").write_text("PASSWORD=1")
    (run / "encoder" / "notes.txt").symlink_to(tmp_path / "secret")
    (run / "encoder" / "model.safetensors").chmod(0o600)  # as an older version left it

    before = os.umask(0o022)
    try:
        release(ReleaseConfig(run=run, out=tmp_path / "out"))
    finally:
        os.umask(before)

    names = {"config.json", "model.safetensors", "vocabulary.txt", "MODEL_CARD.md", "LICENSE.md", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert {oct((tmp_path / "out" / name).stat().st_mode & 0o777) for name in names} == {"0o644"}
