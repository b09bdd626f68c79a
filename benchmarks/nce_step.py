"""What does noise-contrastive estimation save of a whole optimizer step? Against the softmax, ours and torch's.

    python benchmarks/nce_step.py [--clips 16] [--words 24] [--repeats 3]

One step of `configs/pretrain/khare.yaml` (its encoder, crops as in the file, 88,000 words, fp32, AdamW) on random clips
of WORDS words, 0.3 s each: masks are drawn, forward, backward, update. Losses take turns in one process; a row's
seconds are the median of its steps, and those of the parts of the middle one. The head's weights, 45 million, are
updated in full whichever loss it has.
"""

import argparse
import time
from statistics import median
from unittest.mock import patch

import torch
from torch.nn import functional

from pretrain.build import build_task, specs
from pretrain.config import PretrainConfig
from pretrain.losses.vocabulary import Scored, score_softmax
from pretrain.objectives import word_output
from triptych.batch import Batch, fake_batch
from triptych.config import find, load
from triptych.training.task import Task

NUM_WORDS = 88_000
LOSSES = {
    "softmax, torch.nn.functional.cross_entropy": "objectives.masked_lm.nce=null",
    "softmax, ours": "objectives.masked_lm.nce=null",
    "NCE, 512 noise words": "objectives.masked_lm.nce.samples=512",
    "NCE, 512 for each masked word": "objectives.masked_lm.nce={samples: 512, shared: false}",
}


def full_softmax(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor) -> Scored:
    """`score_softmax` with all logits at once."""
    logits = functional.linear(hidden, weight, bias)
    right = (logits.argmax(dim=1) == targets).sum()
    return Scored(functional.cross_entropy(logits, targets, reduction="sum"), len(targets), right)


def step(task: Task, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float, float]:
    """Seconds forward, backward and of the update."""
    began = time.perf_counter()
    output = task(task.prepare(batch))
    total = output.losses["masked_lm"]
    forward = time.perf_counter()
    (total.sum / total.count).backward()
    backward = time.perf_counter()
    optimizer.step()
    optimizer.zero_grad()
    return forward - began, backward - forward, time.perf_counter() - backward


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    names = tuple(f"word{number}" for number in range(NUM_WORDS))
    counts = {name: 10**8 // (number + 1) for number, name in enumerate(names)}
    config = load(PretrainConfig, find("khare", "pretrain"), ["word_vectors=null"])
    batch = fake_batch(specs(config), num_clips=given.clips, num_words=given.words, vocabulary_size=NUM_WORDS)
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LOSSES}
    tasks = {}
    for name, setting in LOSSES.items():
        torch.manual_seed(0)
        task = build_task(load(PretrainConfig, find("khare", "pretrain"), ["word_vectors=null", setting]), names)
        task.start(counts)
        tasks[name] = task.train(), torch.optim.AdamW(task.parameters())
    masked = task.counts(task.prepare(batch))["masked_lm"]
    for _ in range(given.repeats + 1):
        for name, (task, optimizer) in tasks.items():
            with patch.object(word_output, "score_softmax", full_softmax if "torch" in name else score_softmax):
                measured[name].append(step(task, optimizer, batch))
    print(f"{given.clips} clips of up to {given.words} words, {masked} masked; {torch.get_num_threads()} threads\n")
    print("| loss | s a step | of the softmax, ours | forward | backward | update |\n|---|---:|---:|---:|---:|---:|")
    rows = {name: sorted(steps[1:], key=sum)[given.repeats // 2] for name, steps in measured.items()}
    reference = median(map(sum, measured["softmax, ours"][1:]))
    for name, parts in rows.items():
        seconds = median(map(sum, measured[name][1:]))
        print(f"| {name} | {seconds:.2f} | {seconds / reference:.2f} | " + " | ".join(f"{p:.2f}" for p in parts) + " |")


if __name__ == "__main__":
    main()
