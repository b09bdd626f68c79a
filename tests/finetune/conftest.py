"""Clips whose mood is in their words and in their sound, labelled for every kind of protocol."""

import hashlib
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NUM_CLIPS = {"train": 16, "valid": 8, "test": 8}
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
DIMENSIONS = ("arousal", "valence", "liking")


def _labels(mood: int, number: int):
    """Good clips are happy and the others sad; the other emotions are in every other clip; series end early in some."""
    there = {name: float(number // 2 % 2) for name in EMOTIONS} | {"happy": float(mood > 0), "sad": float(mood < 0)}
    steps = 10 - number % 3
    curve = [round(mood * (0.3 + 0.05 * step), 3) for step in range(steps)]
    return {
        "emotion": "happy" if mood > 0 else "sad",
        **there,
        "sentiment": 2.0 * mood,
        **{name: {"rate_hz": 10.0, "values": curve} for name in DIMENSIONS},
    }


def _record(number: int, split: str) -> Any:
    from shards.record import ClipRecord, Word

    mood = 1 if number % 2 else -1
    said = ("fine", "good") if mood > 0 else ("bad", "bad")
    return ClipRecord(
        key=f"speaker{number // 2:02d}/clip{number:02d}",
        speaker=f"speaker{number // 2:02d}",
        split=split,
        duration_s=1.0,
        has_audio=True,
        has_video=False,
        words=tuple(Word(text, 0.4 * place, 0.4 * place + 0.3) for place, text in enumerate(said)),
        source={},
        labels={} if number == 3 else _labels(mood, number),
    )


@pytest.fixture(scope="session")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shards` of 32 clips of a second with words and sound, of 16 speakers; and an `encoder` of both, untrained."""
    from shards.features.config import AudioFeature, FeaturesConfig, build
    from shards.features.lfbe import LfbeConfig
    from shards.record import SPLITS, Manifest
    from shards.words.words import Vocabulary
    from shards.writing.tar import ShardWriter

    root = tmp_path_factory.mktemp("moods")
    (root / "shards").mkdir()
    features = build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4))))
    spec = features["audio"].spec
    infos, durations, number = [], {}, 0
    for split in SPLITS:
        shard = ShardWriter(root / "shards", f"{split}-000000", split)
        for _ in range(NUM_CLIPS[split]):
            record, mood = _record(number, split), 1 if number % 2 else -1
            noise = np.random.default_rng(number).normal(size=(int(spec.rate_hz), *spec.shape))
            shard.add(
                record.key,
                {
                    "json": json.dumps(record.to_json()).encode(),
                    f"{spec.name}.npy": _npy((0.3 * noise + mood).astype(spec.dtype)),
                },
            )
            number += 1
        infos.append(shard.finish())
        durations[split] = _npy(np.ones(NUM_CLIPS[split], dtype=np.float32))
        (root / "shards" / f"{split}.durations.npy").write_bytes(durations[split])
    counts = {"bad": 16, "fine": 8, "good": 8}
    words = Vocabulary.from_counts(counts)
    (root / "shards" / "vocabulary.txt").write_bytes(words.to_bytes(counts))
    manifest = Manifest(
        corpus="moods",
        created_by="test",
        split={"by": "speaker"},
        found=number,
        written=number,
        filtered={},
        quarantined={},
        shards=infos,
        features=[spec.to_json()],
        labels={"emotion": {"happy": 16, "sad": 16}},
        numbers={name: {"rate_hz": None} for name in (*EMOTIONS, "sentiment")}
        | {name: {"rate_hz": 10.0} for name in DIMENSIONS},
        counts={"without_audio": 0, "without_video": number, "without_words": 0, "words": 64, "seconds": number},
        vocabulary_sha256=hashlib.sha256(words.to_bytes(counts)).hexdigest(),
        durations_sha256={split: hashlib.sha256(content).hexdigest() for split, content in durations.items()},
    )
    (root / "shards" / "manifest.json").write_text(json.dumps(manifest.to_json()))
    _save_encoder(root / "encoder", spec, words.words)
    return root


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with stopped_at(3):` a training is asked to stop, as by a scheduler, at step 3."""
    from triptych.training.engine import Engine

    @contextmanager
    def at(stop: int) -> Iterator[None]:
        train_step = Engine.train_step

        def stopped(self, micro_batches, step, *rest):
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return train_step(self, micro_batches, step, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "train_step", stopped)
            yield

    return at


@pytest.fixture(scope="session")
def over_roberta(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the moods: a tiny RoBERTa with its CLS beside a network over sound."""
    import torch
    from transformers import RobertaConfig

    from triptych.models import load
    from triptych.models.hub import plain
    from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig
    from triptych.models.saved import SavedModels
    from triptych.models.towers.tcn import TcnConfig
    from triptych.models.towers.text_encoder import TextEncoderConfig, TextModel

    folder = tmp_path_factory.mktemp("over_roberta")
    inputs, words = load.load(moods / "encoder").inputs, load.load(moods / "encoder").words
    roberta = RobertaConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, pad_token_id=1
    )
    pieces = [[3], [4], [5, 6], [7]]  # of the unknown word and the three of the clips
    tiny = TextModel(config=plain(roberta), pieces=pieces, before=[0], after=[2], mask=8, pad=1, max_pieces=32)
    towers = PairwiseConfig(
        text=TextTowerConfig(encoder=TextEncoderConfig(model="tiny", cls=True)),
        audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=8, hidden=8, blocks=2)),
        width=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = load.build(load.SystemConfig(pairwise=towers), inputs, words, SavedModels(text=tiny))
    load.save_encoder(encoder, folder / "encoder")
    return folder / "encoder"


def _save_encoder(folder: Path, audio: Any, words: tuple[str, ...]) -> None:
    import torch

    from shards.features.words import WORDS
    from triptych.models import load
    from triptych.models.blocks import TransformerConfig
    from triptych.models.cross_modal import CrossModalConfig

    tiny = TransformerConfig(width=8, layers=2, heads=2)
    system = load.SystemConfig(cross_modal=CrossModalConfig(modalities=("text", "audio"), transformer=tiny))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        load.save_encoder(load.build(system, {"text": WORDS, "audio": audio}, words), folder)


def _npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getvalue()
