"""What does it save to train a head on stored sequences, and what do they weigh?

    python benchmarks/stored.py [clips=8] [seconds=8] [words=26] [epochs=2] [layers=24]

SSE-FT's extractors at their real sizes, with random weights (which take as long as trained ones): RoBERTa large (of so
many `layers`), wav2vec large, FAb-Net; its fusion with the settings for MOSEI. The clips are noise: samples, faces of
224 pixels at 12.5 a second, words of one to two pieces. Samples and faces lie in the shards, so that the frozen side
pays for no decoding and no face detector: what is compared is the three networks against reading what they said.

`frozen` is an epoch of training the head on the frozen towers, `float32` and `float16` one on the sequences; all in
this process, in turn, from the same first weights, the first epoch of each not counted. That their losses agree is
checked. `writing` is the pass of `python -m shards features` over the same clips, with the opening of the encoder.
Times are CPU time (the machine may be shared); `times` is the quotient of the medians. Threads are as OMP_NUM_THREADS
says.
"""

import hashlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.plan import make_plan
from shards.add_features import AddFeaturesConfig, add_features
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.faces import FacesConfig
from shards.features.waveform import WaveformConfig
from shards.features.words import WORDS
from shards.reading.index import ShardSet
from shards.record import SPLITS, ClipRecord, Manifest, Word
from shards.words.words import Vocabulary
from shards.writing.probe import npy
from shards.writing.tar import ShardWriter
from triptych import config as configs
from triptych.models import load as door
from triptych.models.hub import plain
from triptych.models.saved import SavedModels
from triptych.models.towers.text_encoder import TextModel
from triptych.training import distributed
from triptych.training.engine_accelerate import AccelerateEngine

DEFAULTS = {"clips": "8", "seconds": "8", "words": "26", "epochs": "2", "layers": "24"}
FEATURES = FeaturesConfig(
    audio=AudioFeature(waveform=WaveformConfig(step_samples=160, max_s=9.375)),
    video=VideoFeature(faces=FacesConfig(size=224)),
)
VOCABULARY = tuple(f"word{number}" for number in range(200))
MICRO_BATCH = 4
MOST_DIFFERENT = 1e-3
"""Between the losses of the last epoch."""


def write_shards(folder: Path, setting: dict[str, str]) -> None:
    """`clips` clips in each split."""
    features, seconds, number = build(FEATURES), float(setting["seconds"]), 0
    infos, durations, said = [], {}, list[str]()
    for split in SPLITS:
        shard = ShardWriter(folder, f"{split}-000000", split)
        for _ in range(int(setting["clips"])):
            generator, number = np.random.default_rng(number), number + 1
            words = [str(word) for word in generator.choice(VOCABULARY, int(setting["words"]))]
            said += words if split == "train" else []
            times = np.linspace(0, seconds, len(words) + 1).tolist()
            record = ClipRecord(
                key=f"clip{number:04d}",
                speaker=f"speaker{number}",
                split=split,
                duration_s=seconds,
                has_audio=True,
                has_video=True,
                words=tuple(map(Word, words, times[:-1], times[1:])),
                source={},
                labels={"sentiment": float(generator.normal())},
            )
            members = {"json": json.dumps(record.to_json()).encode()}
            for feature in features.values():
                spec = feature.spec
                assert spec.rate_hz is not None
                shape = (int(seconds * spec.rate_hz), *spec.shape)
                drawn = generator.integers(0, 256, shape) if spec.dtype == "uint8" else generator.normal(0, 0.1, shape)
                members[f"{spec.name}.npy"] = npy(drawn.astype(spec.dtype))
            shard.add(record.key, members)
        infos.append(shard.finish())
        durations[split] = npy(np.full(int(setting["clips"]), seconds, dtype=np.float32))
        (folder / f"{split}.durations.npy").write_bytes(durations[split])
    counts = {word: said.count(word) for word in set(said)}
    listed = Vocabulary.from_counts(counts).to_bytes(counts)
    (folder / "vocabulary.txt").write_bytes(listed)
    manifest = Manifest(
        corpus="noise",
        created_by="benchmark",
        split={"by": "speaker"},
        found=number,
        written=number,
        filtered={},
        quarantined={},
        shards=[info for info in infos if info is not None],
        features=[feature.spec.to_json() for feature in features.values()],
        labels={},
        numbers={"sentiment": {"rate_hz": None}},
        counts={"without_audio": 0, "without_video": 0, "without_words": 0, "words": 0, "seconds": 0},
        vocabulary_sha256=hashlib.sha256(listed).hexdigest(),
        durations_sha256={split: hashlib.sha256(content).hexdigest() for split, content in durations.items()},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))


def save_encoder(folder: Path, words: tuple[str, ...], layers: int) -> None:
    """The three extractors with random weights."""
    from transformers import RobertaConfig

    roberta = RobertaConfig(
        vocab_size=50265,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
    )
    drawn = random.Random(0)
    pieces = [[drawn.randrange(4, 50000) for _ in range(drawn.choice((1, 1, 2)))] for _ in range(len(words) + 1)]
    text = TextModel(config=plain(roberta), pieces=pieces, before=[0], after=[2], mask=50264, pad=1, max_pieces=512)
    towers = {
        "text": {"encoder": {"model": "random"}},
        "audio": {"wav2vec_large": {"weights": "random"}},
        "video": {"fab_net": {"weights": "random"}},
    }
    system = configs.load(door.SystemConfig, {"pairwise": {"width": 0, **towers}})
    inputs = {"text": WORDS, **{name: feature.spec for name, feature in build(FEATURES).items()}}
    torch.manual_seed(0)
    door.save_encoder(door.build(system, inputs, words, SavedModels(text=text)), folder)


class Training:
    """A head on an encoder."""

    def __init__(self, encoder: Path, shards: Path, num_clips: int, steps: int) -> None:
        given = {"encoder": str(encoder), "shards": str(shards), "out": str(shards / "out"), "init": ["frozen"]}
        sizes = {"seeds": [0], "global_batch": num_clips, "micro_batch": MICRO_BATCH}
        source = configs.find("sse_ft_mosei", "finetune")
        config = configs.load(
            FinetuneConfig, source, [f"{name}={json.dumps(v)}" for name, v in (given | sizes).items()]
        )
        plan = make_plan(config)
        (part,) = plan.parts[1.0]
        here = distributed.init("cpu")
        self.engine = AccelerateEngine(
            plan.task(part, "frozen", 0), here, config.engine, optimizer=config.optimizer, max_steps=steps, seed=0
        )
        self.steps = plan.train_loader(part, 0, here).steps(0)
        self.step, self.losses, self.times_s = 0, list[float](), list[float]()

    def epoch(self) -> None:
        """One step is one epoch."""
        started = time.process_time()
        self.engine.task.train()
        self.losses.append(float(self.engine.train_step(next(self.steps), self.step).loss))
        self.times_s.append(time.process_time() - started)
        self.step += 1


def cpu_s() -> float:
    """Of this process and its children that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def clip_bytes(shards: Path, suffix: str = ".npy") -> float:
    """Of a clip's features, the mean over the training clips."""
    split = ShardSet(shards).split("train")
    sizes = [
        sum(len(data) for name, data in split.read(number).items() if name.endswith(suffix))
        for number in range(len(split))
    ]
    return sum(sizes) / len(sizes)


def main() -> None:
    """Write, train, compare."""
    setting = DEFAULTS | dict(argument.split("=", 1) for argument in sys.argv[1:])
    num_clips, epochs = int(setting["clips"]), int(setting["epochs"])
    with tempfile.TemporaryDirectory() as given:
        root = Path(given)
        (root / "shards").mkdir()
        write_shards(root / "shards", setting)
        save_encoder(root / "encoder", ShardSet(root / "shards").vocabulary().words, int(setting["layers"]))
        trainings = {"frozen": Training(root / "encoder", root / "shards", num_clips, epochs + 1)}
        kept, writing = {}, {}
        for dtype in ("float32", "float16"):
            started, out = cpu_s(), root / dtype
            paths = {"shards": str(root / "shards"), "encoder": str(root / "encoder"), "out": str(out)}
            how = {"dtype": dtype, "workers": 1, "batch_clips": MICRO_BATCH}
            add_features(configs.load(AddFeaturesConfig, {**paths, **how}))
            writing[dtype] = (cpu_s() - started) / num_clips / len(SPLITS)
            trainings[dtype] = Training(out / "encoder", out, num_clips, epochs + 1)
            kept[dtype] = clip_bytes(out) / 2**20
        for _ in range(epochs + 1):
            for training in trainings.values():
                training.epoch()
    frozen = trainings["frozen"]
    frozen_s = median(frozen.times_s[1:]) / num_clips
    threads = torch.get_num_threads()
    print(f"{num_clips} clips of {setting['seconds']} s, {threads} threads; CPU seconds a clip and epoch")
    print(f"frozen    {frozen_s:7.2f}")
    for dtype, training in list(trainings.items())[1:]:
        own_s = median(training.times_s[1:]) / num_clips
        apart = abs(training.losses[-1] - frozen.losses[-1])
        assert apart < MOST_DIFFERENT * max(1.0, abs(frozen.losses[-1])), (dtype, training.losses, frozen.losses)
        print(
            f"{dtype}   {own_s:7.2f}   {frozen_s / own_s:5.1f} times; writing {writing[dtype]:.2f} s a clip; "
            f"{kept[dtype]:.2f} MiB a clip; losses {apart:.1e} apart"
        )


if __name__ == "__main__":
    main()
