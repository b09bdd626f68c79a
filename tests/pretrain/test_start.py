"""A new run that starts from the encoder of another one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.start import start_from
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.encoder import Encoder
from triptych.models.load import SystemConfig, build, load, save_encoder

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
}
OLD, NEW = ("the", "red", "cat", "sat"), ("cat", "dog", "the")


def make(words: tuple[str, ...], seed: int, *, specs: Any = None, **settings: Any) -> Encoder:
    torch.manual_seed(seed)
    specs = specs or SPECS
    transformer = TransformerConfig(**{"width": 16, "layers": 1, "heads": 2, "feedforward": 32, **settings})
    anchor = "text" if "text" in specs else "audio"
    system = CrossModalConfig(modalities=tuple(specs), anchor=anchor, transformer=transformer)  # type: ignore[arg-type]
    return build(SystemConfig(cross_modal=system), specs, words)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    save_encoder(make(OLD, 1), tmp_path / "encoder")
    return tmp_path / "encoder"


def test_known_words_keep_their_vectors_and_new_ones_start_fresh(old: Path) -> None:
    encoder, fresh = make(NEW, 2), make(NEW, 2).state_dict()
    start = start_from(old, encoder)
    assert (start.words, start.known) == (3, 2)
    given, now = load(old).state_dict(), encoder.state_dict()
    table = "input.text.vectors.weight"
    for word in ("cat", "the"):
        assert torch.equal(now[table][NEW.index(word) + 1], given[table][OLD.index(word) + 1])
    assert torch.equal(now[table][0], given[table][0])  # any other word
    assert torch.equal(now[table][NEW.index("dog") + 1], fresh[table][NEW.index("dog") + 1])
    assert all(torch.equal(now[name], given[name]) for name in now if name != table)


def test_a_written_word_starts_with_the_vector_of_its_spoken_form(old: Path) -> None:
    encoder = make(("cat", "cat!", "dog!"), 2)
    assert start_from(old, encoder).known == 2
    given, now = (one.state_dict()["input.text.vectors.weight"] for one in (load(old), encoder))
    assert torch.equal(now[1:3], given[OLD.index("cat") + 1].expand(2, -1))


def test_clips_of_known_words_are_encoded_as_before(old: Path) -> None:
    encoder = make(NEW, 2).eval()
    start_from(old, encoder)
    batch = fake_batch(SPECS, vocabulary_size=1)  # of the word "cat"
    text = batch.tracks["text"]
    known = replace(batch, tracks={**batch.tracks, "text": replace(text, values=text.values * (OLD.index("cat") + 1))})
    with torch.no_grad():
        assert torch.equal(encoder.encode(batch).pooled["fused"], load(old).encode(known).pooled["fused"])


def test_dropout_may_be_another(old: Path) -> None:
    start_from(old, make(NEW, 2, dropout=0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 32}, r"encoder\.cross_modal\.transformer\.width: 16, and this run has 32"),
        ({"layers": 2}, r"transformer\.layers: 1, and this run has 2"),
        ({"specs": {"text": SPECS["text"]}}, r"modalities: \['text', 'audio'\], and this run has \['text'\]"),
        (
            {"specs": {**SPECS, "audio": replace(SPECS["audio"], rate_hz=25.0)}},
            r"feature of audio\.rate_hz: 20.0, and this run has 25.0",
        ),
    ],
)
def test_another_system_is_refused_with_both_values(old: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        start_from(old, make(NEW, 2, **changes))


def test_words_of_another_language_are_refused(old: Path) -> None:
    with pytest.raises(UserError, match="knows none of the run's words"):
        start_from(old, make(("chat", "rouge"), 2))


def test_an_encoder_without_text_has_no_words_to_know(tmp_path: Path) -> None:
    specs = {"audio": SPECS["audio"]}
    save_encoder(make((), 1, specs=specs), tmp_path / "encoder")
    encoder = make((), 2, specs=specs)
    assert start_from(tmp_path / "encoder", encoder).known == 0
    given = load(tmp_path / "encoder").state_dict()
    assert all(torch.equal(weight, given[name]) for name, weight in encoder.state_dict().items())


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder here"):
        start_from(tmp_path, make(NEW, 2))


@pytest.mark.slow
def test_a_run_on_other_words_starts_there_and_goes_on_without_the_folder(demo, tmp_path: Path) -> None:
    """Also: labels beside words, and wrong words, in a run of their own."""
    counts = [line.split() for line in (demo.shards / "vocabulary.txt").read_text().splitlines()]
    words = tmp_path / "words.txt"
    words.write_text("brandnew 9\n" + "".join(f"{word} {count}\n" for word, count in reversed(counts[:20])))
    index = json.loads(next(demo.shards.glob("train-*.index.json")).read_text())
    keys = list(index["samples"])
    labels = tmp_path / "labels.csv"
    labels.write_text("key,half\n" + "".join(f"{key},{'ab'[place % 2]}\n" for place, key in enumerate(keys)))
    weak = ["objectives.weak_labels.labels.half=[a,b]", f"objectives.weak_labels.file={labels}"]
    settings = ["trainer.max_steps=2", "trainer.evaluate_every=2", "trainer.checkpoint_every=1", "trainer.log_every=1"]

    first = demo.run(tmp_path / "first", *settings, *weak, "stream.word_errors.rate=0.3")
    assert first.returncode == 0, first.stderr
    assert f"weak_labels: half: {len(keys)} of " in first.stderr
    logged = demo.logged(tmp_path / "first")
    assert {"loss/masked_lm", "loss/weak_labels", "accuracy_half/weak_labels"} <= logged[0].keys()
    weights = {name: logged[0][f"weight/{name}"] for name in ("masked_lm", "contrastive", "weak_labels")}
    assert weights == {"masked_lm": 1.0, "contrastive": 0.3, "weak_labels": 1.0}
    assert logged[0]["loss"] == pytest.approx(
        logged[0]["loss/masked_lm"] + 0.3 * logged[0]["loss/contrastive"] + logged[0]["loss/weak_labels"]
    )

    old = tmp_path / "first" / "run" / "encoder"
    second = [*settings, f"start_from={old}", f"stream.vocabulary={words}", "optimizer.lr=1e-9"]
    done = demo.run(tmp_path, *second)
    assert done.returncode == 0, done.stderr
    assert f"start_from: {old}: knows 20 of the run's 21 words; 1 start fresh" in done.stderr
    before, after = load(old), load(tmp_path / "run" / "encoder")
    table = "input.text.vectors.weight"
    given, now = before.state_dict(), after.state_dict()
    for here, word in enumerate(after.words, start=1):
        if word != "brandnew":
            there = before.words.index(word) + 1
            assert torch.allclose(now[table][here], given[table][there], atol=1e-6), word
    assert all(torch.allclose(now[name], given[name], atol=1e-6) for name in now if name != table)
    assert json.loads((tmp_path / "run" / "start.json").read_text())["known"] == 20

    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "run" / "encoder")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    resumed = demo.run(tmp_path, *second)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing after step 1 of 2" in resumed.stderr
    assert (tmp_path / "run" / "encoder").is_dir()
