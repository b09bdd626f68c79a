"""One measurement of mult.py: `mult_worker.py SYSTEM CORPUS ORDER STEPS WIDTH` prints JSON; `mult_worker.py check`
compares the functions that both compute.

Legend: B clips, T steps.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mult_peer import FullAttention, MulT, OurShape, Size
from torch import Tensor, nn

from shards.reading import plan
from triptych.batch import Batch, Track
from triptych.modalities import FeatureSpec
from triptych.models.attention import Attention, Pairs, Short
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig, CrossModalEncoder
from triptych.models.inputs import InputConfig

WORDS_PER_S = 26 / 7.8
"""As in pretrain.check."""
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(200,), dtype="float32"),
    "video": FeatureSpec(name="crops", modality="video", version=1, rate_hz=25.0, shape=(1024,), dtype="float32"),
}
SIZES = {"text": 300, "audio": 200, "video": 1024}
"""Numbers a step that go in: a GloVe vector, five frames of 40 filter banks, a crop of 32x32."""
NUM_WORDS, OUTPUTS = 1000, 6
CLIPS, CLIPS_A_STEP = 24, 8
"""That are put in order together, and of a step."""

System = tuple[nn.Module, Callable[[Batch], Tensor]]
"""What is trained, and its outputs [B, OUTPUTS]."""


def seconds_of(corpus: str, number: int) -> np.ndarray:
    """[number] durations. GRID's clips have 3 s. VoxCeleb2's have 4 to 20 s and 7.8 s on average, as have 4 s and an
    exponential of mean 4.2 s that is cut off at 16 s; always the same draw: even quantiles, in random order."""
    if corpus == "grid":
        return np.full(number, 3.0)
    quantiles = (np.arange(number) + 0.5) / number
    durations = 4.0 - 4.2 * np.log1p(-quantiles * -np.expm1(-16 / 4.2))
    return np.random.default_rng(0).permutation(durations)


def batches(corpus: str, order: str) -> list[Batch]:
    """The measurement's steps: in random order, or sorted by length as `stream.length_pool` sorts them."""
    durations = seconds_of(corpus, CLIPS)
    pool = CLIPS // CLIPS_A_STEP if order == "pooled" else 0
    drawn = plan.Order((CLIPS,), 0, CLIPS_A_STEP, durations, pool)
    return [batch_of(durations[drawn.step(step)[0]]) for step in range(CLIPS // CLIPS_A_STEP)]


def batch_of(durations: np.ndarray) -> Batch:
    """Clips of these lengths with random values, padded to the longest."""
    generator = torch.Generator().manual_seed(0)
    tracks = {}
    for name, spec in SPECS.items():
        rate_hz = spec.rate_hz or (2.0 if durations.max() == 3.0 else WORDS_PER_S)  # GRID's sentences have six words
        lengths = torch.from_numpy(np.maximum(1, np.round(durations * rate_hz)).astype(np.int64))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        values = torch.randn(*mask.shape, *spec.shape, generator=generator) * mask.view(
            *mask.shape, *[1] * len(spec.shape)
        )
        if name == "text":
            values = torch.randint(1, NUM_WORDS + 1, mask.shape, generator=generator) * mask
        start = torch.arange(mask.shape[1]).expand(mask.shape) / rate_hz
        tracks[name] = Track(values=values, mask=mask, times=torch.stack([start, start + 1 / rate_hz], dim=-1))
    return Batch(keys=tuple(map(str, range(len(durations)))), epochs=(0,) * len(durations), tracks=tracks)


def size_of(width: int) -> Size:
    """Khare et al. 2021 at 512; narrower ones alike."""
    return Size(width=width, layers=4, heads=4, feedforward=width * 200 // 512)


def build(system: str, width: int) -> System:
    """The system of a name in mult.py."""
    size = size_of(width)
    maker, _, anchor = system.partition(" ")
    if maker == "ours":
        config = CrossModalConfig(
            anchor=anchor,  # type: ignore[arg-type]
            transformer=TransformerConfig(**vars(size)),
            input=InputConfig(word_width=SIZES["text"]),
        )
        encoder = CrossModalEncoder(config, SPECS, tuple(map(str, range(NUM_WORDS))))
        module = nn.ModuleDict({"encoder": encoder, "output": nn.Linear(width, OUTPUTS)})
        return module, lambda batch: module["output"](encoder.encode(batch).pooled["fused"])
    if system == "MulT":
        peer: nn.Module = MulT(SIZES, NUM_WORDS, size, OUTPUTS)
    else:
        peer = OurShape(SIZES, NUM_WORDS, size, OUTPUTS, tuple(SIZES) if anchor == "each" else (anchor,))
    return peer, lambda batch: peer({name: track.values for name, track in batch.tracks.items()})


def measure(system: str, corpus: str, order: str, num_steps: int, width: int) -> dict[str, float]:
    """Forward, backward and optimizer over the first steps; without oneDNN where the system's name ends in a `-`."""
    torch.manual_seed(0)
    module, outputs = build(system.removesuffix("-"), width)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)  # its cost is not what is compared

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(0)
        targets = torch.randn(len(batch), OUTPUTS, generator=generator)
        (outputs(batch) - targets).abs().mean().backward()
        optimizer.step()

    steps = batches(corpus, order)[:num_steps]
    with onednn(not system.endswith("-")):
        step(batch_of(np.full(2, 3.0)))  # makes the optimizer's state, starts threads and libraries
        held = resident_mib()
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in steps:
            step(batch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    real, padded = map(sum, zip(*(batch.num_steps for batch in steps), strict=True))
    clips = sum(map(len, steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {
        "seconds": wall / clips,
        "cpu_seconds": cpu / clips,
        "mib": peak - held,
        "useful": real / padded,
        "parameters": parameters,
    }


@contextlib.contextmanager
def onednn(on: bool) -> Iterator[None]:
    """Linear maps by oneDNN, or by torch's own product."""
    before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, on  # type: ignore[assignment]
    yield
    torch.backends.mkldnn.enabled = before


def resident_mib() -> float:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def check() -> dict[str, float]:
    """Form of our attention -> largest difference from the peer's with the same weights, on steps without padding."""
    torch.manual_seed(0)
    width, heads, clips, num_queries, num_keys = 512, 4, 3, 7, 50
    peer = FullAttention(width, heads).eval()
    nn.init.normal_(peer.inputs_bias)
    differences = {}
    shorts: tuple[Short | None, ...] = (None, "queries", "keys")
    for short in shorts:
        ours = Attention(width, heads, 0.0, short)
        parts = (ours.query, ours.key, ours.value)
        for part, weight, bias in zip(parts, peer.inputs_weight.chunk(3), peer.inputs_bias.chunk(3), strict=True):
            part.load_state_dict({"weight": weight, "bias": bias})
        ours.output.load_state_dict(peer.output.state_dict())
        queries, keys = torch.randn(clips, num_queries, width), torch.randn(clips, num_keys, width)
        pairs = Pairs([num_queries] * clips, [num_keys] * clips, queries.device)
        packed = ours(queries.flatten(0, 1), keys.flatten(0, 1), keys.flatten(0, 1), pairs)
        expected = peer(queries.transpose(0, 1), keys.transpose(0, 1), keys.transpose(0, 1)).transpose(0, 1)
        differences[f"short: {short}"] = float((packed - expected.flatten(0, 1)).abs().max().detach())
    return differences


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(json.dumps(check()))
    else:
        system, corpus, order, num_steps, width = sys.argv[1:]
        print(json.dumps(measure(system, corpus, order, int(num_steps), int(width))))
