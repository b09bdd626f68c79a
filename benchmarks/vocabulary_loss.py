"""Time and memory of losses over a large vocabulary, forward and backward together.

    python benchmarks/vocabulary_loss.py [--positions 512 2048] [--repeats 3] [--device cuda]

Ours against the full softmax, against the usual remedy (a chunk of positions at a time, its logits computed again in
the backward pass), and against noise-contrastive estimation. Each measurement has a process of its own, in turns, so
that neither a warm allocator nor a drifting machine favours one. Memory is the highest resident size (on a GPU: of the
allocator) above what the inputs take; it includes the gradients, without which there is nothing to compare. On a GPU
all run under bf16 autocast.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pretrain.losses.vocabulary import nce_loss, softmax_loss, unigram

ROWS = 256
"""Positions of a chunk with activation checkpointing."""


def full(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """What a linear layer and cross_entropy do."""
    return functional.cross_entropy(functional.linear(hidden, weight, bias), targets, reduction="sum")


def checkpointed(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """`full` for a chunk of positions at a time."""
    parts = zip(hidden.split(ROWS), targets.split(ROWS), strict=True)
    losses = [checkpoint(full, part, weight, bias, target, use_reentrant=False) for part, target in parts]
    return torch.stack(losses).sum()


def ours(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Exact, with the gradients computed in the forward pass."""
    return softmax_loss(hidden, weight, bias, targets)[0]


def nce(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """512 noise words, the same for all positions; no softmax, and of the vocabulary only their rows."""
    counts = [10**8 // (word + 1) for word in range(len(weight))]
    return nce_loss(hidden, weight, bias, targets, noise=unigram(counts).to(weight.device), samples=512)[0]


METHODS: dict[str, Callable[..., Tensor]] = {"full": full, "checkpointed": checkpointed, "nce": nce, "ours": ours}


def measure(method: str, positions: int, words: int, width: int, device: str) -> tuple[float, float]:
    """Seconds (the better of two passes) and MiB (of the first)."""
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, device=device, requires_grad=True)
    weight = (torch.randn(words, width, device=device) / width**0.5).requires_grad_()
    bias = torch.zeros(words, device=device, requires_grad=True)
    targets = torch.randint(words, (positions,), device=device)
    torch.mm(weight[:2048].detach(), weight[:2048].detach().T).sum().item()  # loads the libraries
    before = _reset_memory(device)
    seconds, peak = float("inf"), 0.0
    for _ in range(2):
        hidden.grad = weight.grad = bias.grad = None
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = METHODS[method](hidden, weight, bias, targets)
        loss.backward()
        assert weight.grad is not None
        float(weight.grad[0, 0])  # a GPU is waited for
        seconds = min(seconds, time.perf_counter() - began)
        peak = peak or _peak_memory(device) - before
    return seconds, peak


def _reset_memory(device: str) -> float:
    """MiB in use now, from which the highest counts."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, see man 5 proc
    return _status("VmRSS")


def _peak_memory(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--words", type=int, default=88_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=METHODS, help="measure this one here and print its seconds and MiB")
    given = parser.parse_args()
    if given.only:
        print(*measure(given.only, given.positions[0], given.words, given.width, given.device))
        return
    print(f"{given.words:,} words, width {given.width}, {given.device}, {torch.get_num_threads()} threads\n")
    print("| positions | loss | s | of full | MiB |\n|---:|---|---:|---:|---:|")
    for positions in given.positions:
        found: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
        for repeat in range(given.repeats):
            for method in list(METHODS)[:: -1 if repeat % 2 else 1]:
                sizes = ["--positions", positions, "--words", given.words, "--width", given.width]
                command = [sys.executable, __file__, "--only", method, *sizes, "--device", given.device]
                done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
                seconds, peak = map(float, done.stdout.split())
                found[method].append((seconds, peak))
        reference = min(seconds for seconds, _ in found["full"])
        for method, measured in found.items():
            seconds, peak = min(seconds for seconds, _ in measured), max(peak for _, peak in measured)
            print(f"| {positions:,} | {method} | {seconds:.2f} | {seconds / reference:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
