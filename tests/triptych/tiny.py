"""A task, a loader and a run that are small enough for tests of the loop; also a program, one process a rank."""

import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.training import distributed
from triptych.training.engine import Engine
from triptych.training.engine_accelerate import AccelerateEngine
from triptych.training.engine_deepspeed import DeepSpeedEngine, EngineConfig
from triptych.training.held_out_loss import LossEvaluator
from triptych.training.optim import OptimizerConfig, Rate, ScheduleConfig
from triptych.training.run import RunFolder
from triptych.training.step_loss import Arithmetic
from triptych.training.task import Embeddings, Output, Task, Total
from triptych.training.trainer import Trainer, TrainerConfig

WIDTH = 6
SCHEDULE = ScheduleConfig(name="cosine", warmup_steps=2)
OPTIMIZERS = {
    "adamw": OptimizerConfig(lr=0.05, schedule=SCHEDULE),
    "sgd": OptimizerConfig(name="sgd", lr=0.3, momentum=0.9, weight_decay=0.1, schedule=SCHEDULE),
}


class TinyEncoder(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.embedding = nn.Embedding(5, WIDTH)
        self.rare = nn.Linear(WIDTH, WIDTH)  # used only where a batch has video
        self.layers = nn.Sequential(nn.Linear(WIDTH, 9), nn.Dropout(dropout), nn.GELU(), nn.LayerNorm(9))
        self.register_buffer("seen", torch.zeros(3))


class TinyTask(Task):
    """`even` is asked of every clip, `odd` only of clips at odd positions: counts are ragged."""

    def __init__(self, dropout=0.0, skips=True):
        super().__init__()
        self.skips = skips
        torch.manual_seed(7)
        self.encoder = TinyEncoder(dropout)
        self.head = nn.Linear(9, 2)
        self.prepare = lambda batch: batch

    def counts(self, batch):
        return {"even": len(batch), "odd": int(batch.labels["odd"].sum())}

    def forward(self, batch):
        self.encoder.seen += self.training
        x = batch.tracks["audio"].values.mean(dim=1) + self.encoder.embedding(batch.labels["word"])
        present = batch.tracks["video"].present
        if present.any() or not self.skips:
            x = x + self.encoder.rare(batch.tracks["video"].values[:, 0]) * present[:, None]
        guess = self.head(self.encoder.layers(x)).float()
        wrong = (guess - batch.labels["target"]) ** 2
        odd = batch.labels["odd"]
        hits = Total((wrong[:, 0] < 0.5).sum().detach(), len(batch))
        losses = {"even": Total(wrong[:, 0].sum(), len(batch)), "odd": Total((wrong[:, 1] * odd).sum(), int(odd.sum()))}
        return Output(losses=losses, report={"accuracy": hits})

    def weights(self, step):
        return {"odd": 0.5}


class TinyPairs(TinyTask):
    """Beside `even` and `odd`, `pairs`: each clip's words find its sound among all clips of the step."""

    compares = True

    def __init__(self, dropout=0.0, skips=True):
        super().__init__(dropout, skips)
        self.left, self.right = nn.Linear(9, 4), nn.Linear(WIDTH, 4, bias=False)
        self.scale = nn.Parameter(torch.tensor([1.5]))  # DeepSpeed cannot broadcast a weight without a dimension
        self.embedded = []

    def counts(self, batch):
        return {**super().counts(batch), "pairs": int((batch.labels["word"] > 0).sum())}

    def embed(self, batch):
        left = self.left(self.encoder.layers(self.encoder.embedding(batch.labels["word"])))
        rows = {"left": left.float(), "right": self.right(batch.tracks["audio"].values[:, 0]).float()}
        self.embedded.append(rows["left"].detach())
        present = {"left": batch.labels["word"] > 0}
        return {"pairs": Embeddings(rows=rows, present=present, shared={"scale": self.scale[0]})}

    def compare(self, objective, gathered, own, distributed):
        there = gathered.present["left"]
        logits = gathered.rows["left"][own] @ gathered.rows["right"].T * gathered.shared["scale"]
        logits = logits.masked_fill(~there, -1e9)
        right = torch.arange(own.start, own.stop)
        losses = nn.functional.cross_entropy(logits, right, reduction="none")[there[own]]
        count = int(there[own].sum())
        return Total(losses.sum(), count), {"right": Total((logits.argmax(1) == right)[there[own]].sum(), count)}


def make_batch(positions, epoch=0):
    values, faces, present, targets = [], [], [], []
    for position in positions:
        generator = torch.Generator().manual_seed(position)
        values.append(torch.randn(3, WIDTH, generator=generator))
        faces.append(torch.randn(1, WIDTH, generator=generator))
        targets.append(torch.randn(2, generator=generator))
        present.append([position % 4 == 3])
    size = len(positions)
    mask = torch.ones(size, 3, dtype=torch.bool)
    return Batch(
        keys=tuple(f"clip-{position:04d}" for position in positions),
        epochs=(epoch,) * size,
        tracks={
            "audio": Track(values=torch.stack(values), mask=mask, times=torch.zeros(size, 3, 2)),
            "video": Track(values=torch.stack(faces), mask=torch.tensor(present), times=torch.zeros(size, 1, 2)),
        },
        labels={
            "word": torch.tensor([position % 5 for position in positions]),
            "odd": torch.tensor([position % 2 for position in positions]),
            "target": torch.stack(targets),
        },
    )


@dataclass
class TinyLoader:
    """Positions in order; a rank's share of a global batch is contiguous and shares may be unequal."""

    rank: int
    world: int
    num_micro_batches: int = 1
    global_batch: int = 9
    delay_s: float = 0.0
    change: dict = field(default_factory=dict)
    max_damaged: int = 0

    def steps(self, start_step):
        step = start_step
        while True:
            first, last = (self.global_batch * edge // self.world for edge in (self.rank, self.rank + 1))
            positions = [step * self.global_batch + i for i in range(first, last)]
            cuts = [len(positions) * i // self.num_micro_batches for i in range(self.num_micro_batches + 1)]
            time.sleep(self.delay_s)
            yield [self._one(step, positions[a:b]) for a, b in itertools.pairwise(cuts)]
            step += 1

    def batches(self):
        yield make_batch([10_000 + self.rank, 10_003 + self.rank])

    def _one(self, step, positions):
        batch = make_batch(positions)
        if change := self.change.get(step):
            change(batch)
        return batch


def build_engine(
    dist,
    kind,
    precision="fp32",
    num_micro_batches=1,
    dropout=0.0,
    max_steps=6,
    optimizer="adamw",
    task=TinyTask,
    rates=None,
) -> Engine:
    """`kind` is a ZeRO stage or "accelerate"."""
    common = {"optimizer": OPTIMIZERS[optimizer], "max_steps": max_steps, "seed": 3, "rates": rates}
    task = task(dropout, skips=kind not in (2, 3))
    if kind == "accelerate":
        return AccelerateEngine(task, dist, Arithmetic(precision=precision), **common)
    config = EngineConfig(zero_stage=kind, precision=precision)
    return DeepSpeedEngine(task, dist, config, num_micro_batches=num_micro_batches, **common)


def run_steps(engine, loader, start, stop):
    steps = loader.steps(start)
    return [engine.train_step(next(steps), step).losses for step in range(start, stop)]


ENGINES = (0, 1, 2, 3, "accelerate")
KINDS = [
    (kind, precision, optimizer)
    for kind in ENGINES
    for precision, optimizer in (("fp32", "adamw"), ("bf16", "adamw"), ("fp16", "adamw"), ("fp32", "sgd"))
]


def resume_before(folder):
    """Six steps in one go, and three with the state kept, for every kind of engine."""
    from safetensors.torch import save_file

    dist = distributed.init("cpu")
    for kind, precision, optimizer in KINDS:
        loader = TinyLoader(dist.rank, dist.world, num_micro_batches=2)
        engine = build_engine(dist, kind, precision, num_micro_batches=2, dropout=0.2, optimizer=optimizer)
        if precision == "fp16":
            engine._loss_scale.value = 2.0**15  # of which the first steps overflow, and not all
        losses = run_steps(engine, loader, 0, 3)
        name = f"{kind}-{precision}-{optimizer}-{dist.world}"
        for file, tensors in engine.state().items():
            save_file(tensors, folder / f"{name}-3-{file}.safetensors")
        losses += run_steps(engine, loader, 3, 6)
        figures = engine.evaluate(loader.batches())
        for file, tensors in engine.state().items():
            save_file(tensors, folder / f"{name}-6-{file}.safetensors")
        encoder = engine.encoder_state()
        if dist.is_main:
            save_file(encoder, folder / f"{name}-6-encoder.safetensors")
            (folder / f"{name}.json").write_text(json.dumps({"losses": losses, "figures": figures}))
    dist.shutdown()


def resume_after(folder):
    """Three more steps from the kept state, in a new process."""
    from safetensors.torch import load_file, save_file

    dist = distributed.init("cpu")
    for kind, precision, optimizer in KINDS:
        loader = TinyLoader(dist.rank, dist.world, num_micro_batches=2)
        engine = build_engine(dist, kind, precision, num_micro_batches=2, dropout=0.2, optimizer=optimizer)
        name = f"{kind}-{precision}-{optimizer}-{dist.world}"
        stored = ("model", "optimizer", *(["loss_scale"] if precision == "fp16" else []))
        files = {file: load_file(folder / f"{name}-3-{file}.safetensors") for file in stored}
        engine.load_state(files)
        again = engine.state()
        losses = run_steps(engine, loader, 3, 6)
        for file, tensors in engine.state().items():
            save_file(tensors, folder / f"{name}-again-6-{file}.safetensors")
        if dist.is_main:
            same = all(
                again[file].keys() == files[file].keys()
                and all(torch.equal(again[file][key], files[file][key]) for key in files[file])
                for file in files
            )
            (folder / f"{name}-again.json").write_text(json.dumps({"losses": losses, "state_is_same": same}))
    dist.shutdown()


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    trainer: TrainerConfig
    zero_stage: int = 1
    delay_s: float = 0.0


def save_encoder(folder, state):
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(state, folder / "model.safetensors")


def build_trainer(dist, folder, config, kind=None):
    kind = config.zero_stage if kind is None else kind
    run = RunFolder.open(folder, config, dist)
    engine = build_engine(dist, kind, num_micro_batches=2, dropout=0.2, max_steps=config.trainer.max_steps)
    loader = TinyLoader(dist.rank, dist.world, num_micro_batches=2, delay_s=config.delay_s)
    evaluators = [LossEvaluator("valid", engine, loader)]
    return Trainer(engine, loader, run, config.trainer, save_encoder=save_encoder, evaluators=evaluators)


def train(folder, delay_s="0"):
    """A whole run, as a stage's command would do it."""
    dist = distributed.init("cpu")
    trainer = TrainerConfig(max_steps=12, log_every=1, checkpoint_every=2, keep_checkpoints=3, evaluate_every=4)
    code = build_trainer(dist, folder, TinyConfig(trainer=trainer, delay_s=float(delay_s))).train()
    dist.shutdown()
    sys.exit(code)


def broken(folder):
    """One step in which a batch of the last rank has no finite target; every rank prints what it was told."""
    dist = distributed.init("cpu")
    engine = build_engine(dist, 1)
    before = weights_of(engine)
    loader = TinyLoader(dist.rank, dist.world, change={0: spoil} if dist.rank == dist.world - 1 else {})
    try:
        run_steps(engine, loader, 0, 1)
    except UserError as error:
        print(f"told: {error}")
    after = weights_of(engine)
    print("changed:", [name for name in before if not torch.equal(before[name], after[name])])
    dist.shutdown()


def weights_of(engine):
    return {name: parameter.detach().clone() for name, parameter in engine.task.named_parameters()}


def spoil(batch):
    batch.labels["target"][:, 1] = float("nan")


def pairs(folder):
    """Weights and losses of four steps that compare clips, for several numbers of micro-batches."""
    from safetensors.torch import save_file

    dist = distributed.init("cpu")
    for kind in (0, 1, 2, 3, "accelerate") if dist.world > 1 else ("accelerate",):
        for num in (1, 3):
            engine = build_engine(dist, kind, num_micro_batches=num, task=TinyPairs)
            losses = run_steps(engine, TinyLoader(dist.rank, dist.world, num), 0, 4)
            for file, tensors in engine.state().items():
                save_file(tensors, folder / f"{kind}-{dist.world}-{num}-{file}.safetensors")
            if dist.is_main:
                (folder / f"{kind}-{dist.world}-{num}.json").write_text(json.dumps(losses))
    dist.shutdown()


def gradients(folder):
    """Weights after four steps for several numbers of micro-batches, on however many ranks this is; some have a
    learning rate of their own."""
    from safetensors.torch import load_file, save_file

    dist = distributed.init("cpu")
    rates = {"encoder.embedding.weight": Rate(0.5), "encoder.layers.0.bias": Rate(0.25)}
    for kind in ENGINES:
        for num in (1, 4) if kind in (0, "accelerate") or dist.world > 1 else (4,):
            engine = build_engine(dist, kind, num_micro_batches=num, rates=rates)
            run_steps(engine, TinyLoader(dist.rank, dist.world, num), 0, 4)
            for file, tensors in engine.state().items():
                save_file(tensors, folder / f"{kind}-{dist.world}-{num}-{file}.safetensors")
    if dist.world == 1:  # what two ranks wrote at one stage, at another
        files = {file: load_file(folder / f"1-2-4-{file}.safetensors") for file in ("model", "optimizer")}
        for kind in (0, 3, "accelerate"):
            engine = build_engine(dist, kind, rates=rates)
            engine.load_state(files)
            for file, tensors in engine.state().items():
                save_file(tensors, folder / f"elastic-{kind}-{file}.safetensors")
    dist.shutdown()


def again(folder):
    """Two runs of one process, one after the other, each with a process group of its own."""
    for _ in range(2):
        dist = distributed.init("cpu")
        print(run_steps(build_engine(dist, 2), TinyLoader(0, 1), 0, 2))
        dist.shutdown()


def sgd(folder):
    """The state after four steps of SGD, each over two micro-batches a rank, of every engine."""
    from safetensors.torch import save_file

    dist = distributed.init("cpu")
    for kind in ENGINES:
        engine = build_engine(dist, kind, num_micro_batches=2, optimizer="sgd")
        run_steps(engine, TinyLoader(dist.rank, dist.world, 2), 0, 4)
        for file, tensors in engine.state().items():
            save_file(tensors, folder / f"{kind}-{file}.safetensors")
    dist.shutdown()


if __name__ == "__main__":
    code = 0
    try:
        globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
    except SystemExit as stopped:
        code = stopped.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # after stage 3 over gloo, the interpreter's own exit aborts about once in five times (torch 2.11)
