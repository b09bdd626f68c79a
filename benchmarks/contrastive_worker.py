"""One measurement of contrastive.py: `contrastive_worker.py SYSTEM NUM_CLIPS NUM_MODALITIES DEVICE` prints JSON.

Runs in the peer's environment too, which has torch and open_clip and nothing of ours.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

WIDTH = 512
TEMPERATURE = 0.07
BIAS = -10.0

Loss = Callable[[list[Tensor], Tensor, Tensor], Tensor]
"""Of the embeddings, the temperature and the bias."""


def ours(variant: str) -> Loss:
    """This project's loss over all ordered pairs."""
    from pretrain.losses.contrastive import all_pairs_loss

    def loss(embeddings: list[Tensor], temperature: Tensor, bias: Tensor) -> Tensor:
        named = {str(number): z for number, z in enumerate(embeddings)}
        num_clips = len(embeddings[0]) // (2 if variant == "two_view" else 1)
        present = {name: torch.ones(num_clips, dtype=torch.bool) for name in named}
        given = bias if variant == "sigmoid" else None
        return all_pairs_loss(named, present, temperature=temperature, variant=variant, bias=given)

    return loss


def full_matrix(embeddings: list[Tensor], temperature: Tensor, bias: Tensor) -> Tensor:
    """The textbook's lines."""
    a, b = (normalize(z, dim=1) for z in embeddings)
    logits = a @ b.T / temperature
    answers = torch.arange(len(a), device=a.device)
    return (cross_entropy(logits, answers) + cross_entropy(logits.T, answers)) / 2


def open_clip_loss(name: str) -> Loss:
    """The peer's classes, single process."""
    from open_clip.loss import ClipLoss, SigLipLoss

    if name == "ClipLoss":
        clip = ClipLoss()
        return lambda embeddings, temperature, bias: clip(*(normalize(z, dim=1) for z in embeddings), 1 / temperature)
    siglip = SigLipLoss()
    return lambda embeddings, temperature, bias: siglip(
        *(normalize(z, dim=1) for z in embeddings), logit_scale=1 / temperature, logit_bias=bias
    )


def build(system: str) -> Loss:
    """The loss of a name in contrastive.py."""
    maker, _, name = system.partition(" ")
    return ours(name) if maker == "ours" else open_clip_loss(name) if maker == "open_clip" else full_matrix


def step(loss: Loss, num_rows: int, num_modalities: int, device: str) -> dict[str, float]:
    """Forward and backward once."""
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(num_rows, WIDTH, generator=generator) for _ in range(num_modalities)]
    for z in embeddings[1:]:
        z.add_(embeddings[0], alpha=0.3)
    embeddings = [z.to(device).requires_grad_() for z in embeddings]
    numbers = [torch.tensor(value, device=device, requires_grad=True) for value in (TEMPERATURE, BIAS)]
    gpu = device == "cuda"
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if gpu else resident_bytes()
    start = time.perf_counter()
    value = loss(embeddings, *numbers)
    value.backward()
    found = value.item()  # waits for the GPU
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gradients = sum(z.numel() * z.element_size() for z in embeddings)
    return {"seconds": seconds, "extra_mib": (peak - before - gradients) / 2**20, "loss": found}


def resident_bytes() -> int:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    system, num_clips, num_modalities, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    loss = build(system)
    step(loss, 64, num_modalities, device)  # starts threads and libraries
    num_rows = num_clips * 2 if system.endswith("two_view") else num_clips
    print(json.dumps(step(loss, num_rows, num_modalities, device)))
