"""What does the CLS-only query of inter-modal attention save in SSE-FT? All forms of it in one run.

    python benchmarks/ima.py [steps=5] [warmup=3] [clips=4] [blocks=2] [dropout=0.1]

Lengths and widths are the paper's: 512 steps of text of width 1024, 935 of sound of 512 and 300 of face of 256, without
padding; the other settings those of MOSEI. Forms:

    folded      ours: the CLS alone asks, W_k and W_v are brought to its side
    plain       the CLS alone asks, keys and values are projections of the whole sequence
    full        all steps ask, and the first row is read, as in the authors' code; the very same layers as folded, with
                their attention by tiles (triptych.models.long_attention)
    ordinary    the same as full, self-attention too, but attention is written down as softmax, dropout and products of
                all heads at once: what a user would write with our linear maps (ima_peer.py)
    torch       the same as full, self-attention too, of torch's nn.MultiheadAttention, nn.Linear and nn.Dropout
                (ima_peer.py)

`IMA` is forward and backward of the six stacks, to the weights and to the sequences of sound and face (text is frozen);
`step` that of the whole fusion with self-attention and head. `SA` is the self-attention of the step alone: the same in
folded, plain and full. All train: dropout is on. Before anything is measured, the script makes sure that the forms
compute the same numbers.

Each form is a process of its own that waits while another works (together they hold up to 10 GiB). They take turns step
by step, so that what else the machine does hits them alike; steps in front of the measured ones warm them up. Times are
CPU time, medians of the steps, the program's own (`user`) and the system's on its behalf (`system`: fresh pages).
`folded is faster by` is the median (least to most) of the quotients of the user times of each turn. `extra` is the
highest memory of one more step beyond weights, gradients and inputs. Threads are as OMP_NUM_THREADS says.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import torch
from ima_peer import TorchSseFt, make_ordinary
from torch import Tensor

from triptych.models.blocks import Source, TransformerStack
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig

ROOT = Path(__file__).parent.parent
DEFAULTS = {"steps": "5", "warmup": "3", "clips": "4", "blocks": "2", "dropout": "0.1"}
CORES = {
    "text": CoreModality(width=1024, max_steps=512, has_cls=True),
    "audio": CoreModality(width=512, max_steps=935),
    "video": CoreModality(width=256, max_steps=300),
}
PARTS = ("IMA", "step", "SA")
FORMS = ("folded", "plain", "full", "ordinary", "torch")
MOST_DIFFERENT = 1e-4

Figures = dict[str, float]


class FullSseFt(SseFt):
    """All steps of a modality ask, and the first row is read."""

    def attend(self, whole: dict[str, Source]) -> dict[tuple[str, str], Tensor]:  # type: ignore[override]
        """See SseFt."""
        results = {}
        for name, asking in whole.items():
            for other in whole:
                if other != name:
                    stack = self.inter_modal[f"{name}_from_{other}"]
                    assert isinstance(stack, TransformerStack)
                    results[name, other] = stack(asking.sequence, asking.mask, whole[other])[:, 0]
        return results


def build(form: str, setting: dict[str, str]) -> SseFt | TorchSseFt:
    """The fusion in one of the forms, freshly drawn."""
    torch.manual_seed(0)
    blocks, dropout = int(setting["blocks"]), float(setting["dropout"])
    config = SseFtConfig(self_attention_blocks=blocks, inter_modal_blocks=blocks, dropout=dropout)
    if form == "torch":
        return TorchSseFt(config, CORES, 1)
    model = (SseFt if form in ("folded", "plain") else FullSseFt)(config, CORES, 1)
    if form == "ordinary":
        make_ordinary(model)
    if form != "folded":
        for name, module in model.inter_modal.named_modules():
            if name.endswith("attention"):
                module.short = None
    return model


def sources_of(clips: int, share: float = 1.0) -> dict[str, Source]:
    """Features of clips of the paper's lengths, or of a share of them."""
    sources = {}
    for name, core in CORES.items():
        steps = int(core.max_steps * share)
        sources[name] = Source(torch.randn(clips, steps, core.width), torch.ones(clips, steps, dtype=torch.bool))
    return sources


def work_of(part: str, model: SseFt | TorchSseFt) -> Callable[[dict[str, Source]], None]:
    """One forward and backward of a part."""

    def step(sources: dict[str, Source]) -> None:
        model.zero_grad()
        for name, source in sources.items():  # in front of IMA, sound and face have passed what is trained
            source.sequence.requires_grad_(part == "IMA" and name != "text").grad = None
        if part == "SA":
            loss = torch.stack([x.sequence.square().mean() for x in model.prepare(sources).values()]).sum()
        elif part == "IMA":
            loss = torch.stack([result.square().mean() for result in model.attend(sources).values()]).sum()
        else:
            loss = model(sources).outputs.abs().mean()
        loss.backward()

    return step


def serve(form: str, setting: dict[str, str]) -> None:
    """For each line of the input (`time` or `memory`, and a part) make a step, and answer by a line of figures."""
    model = build(form, setting).train()
    sources = sources_of(int(setting["clips"]))
    steps = {part: work_of(part, model) for part in PARTS}
    for line in sys.stdin:
        what, part = line.split()
        step = partial(steps[part], sources)
        print(json.dumps(time_of(step) if what == "time" else memory_of(step)), flush=True)


def time_of(step: Callable[[], None]) -> Figures:
    """CPU milliseconds of a step."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {"user": (after.ru_utime - before.ru_utime) * 1000, "system": (after.ru_stime - before.ru_stime) * 1000}


def memory_of(step: Callable[[], None]) -> Figures:
    """MiB of a step beyond what the process held before."""
    ctypes.CDLL(None).malloc_trim(0)  # what the steps before have freed goes back
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the highest memory, starts again from here
    held = memory_mib("VmRSS")
    step()
    return {"mib": memory_mib("VmHWM") - held}


def memory_mib(name: str) -> float:
    """What this process holds now, or held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def same() -> Figures:
    """Form -> largest difference of the fused vector from ours with the same weights."""
    setting = {**DEFAULTS, "dropout": "0"}
    ours = build("folded", setting)
    assert isinstance(ours, SseFt)
    sources = sources_of(2, 0.3)  # of which the sound goes by tiles
    differences = {}
    with torch.no_grad():
        expected = ours(sources).fused
        for form in FORMS[1:]:
            model = build(form, setting)
            if isinstance(model, TorchSseFt):
                model.take(ours)
            else:
                model.load_state_dict(ours.state_dict())
            differences[form] = float((model(sources).fused - expected).abs().max())
    return differences


class Worker:
    """A form in a process of its own."""

    def __init__(self, form: str, setting: dict[str, str], whole: ExitStack) -> None:
        """Start it; it ends with `whole`."""
        self.form = form
        command = [sys.executable, __file__, "serve", form, json.dumps(setting)]
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = whole.enter_context(
            subprocess.Popen(command, env=paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )

    def ask(self, what: str, part: str) -> Figures:
        """`time` or `memory` of a step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, part, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.form}: failed")
        figures: Figures = json.loads(answer)
        return figures


def measure(part: str, workers: Sequence[Worker], setting: dict[str, str]) -> None:
    """Let the forms make steps of a part in turns, and print its rows."""
    for _ in range(int(setting["warmup"])):
        for worker in workers:
            worker.ask("time", part)
    turns = []
    for number in range(int(setting["steps"])):
        order = workers if number % 2 == 0 else workers[::-1]
        turns.append({worker.form: worker.ask("time", part) for worker in order})
    for worker in workers:
        there = [turn[worker.form] for turn in turns]
        user, system = (median(figures[name] for figures in there) for name in ("user", "system"))
        single = sorted(figures["user"] for figures in there)
        quotients = sorted(turn[worker.form]["user"] / turn["folded"]["user"] for turn in turns)
        cells = [part, worker.form, f"{user:,.0f} ({single[0]:,.0f}-{single[-1]:,.0f})", f"{system:,.0f}"]
        cells += [f"{median(quotients):.1f} ({quotients[0]:.1f}-{quotients[-1]:.1f})"]
        print(f"| {' | '.join(cells)} | {worker.ask('memory', part)['mib']:,.0f} |", flush=True)


def main(setting: dict[str, str]) -> None:
    """Check, measure everything and print one table."""
    for form, difference in same().items():
        print(f"{form}: at most {difference:.1e} from folded with the same weights")
        if not difference < MOST_DIFFERENT:
            sys.exit("not the same function: nothing was measured")
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))} (all cores)")
    print(f"\n{', '.join(f'{name} {value}' for name, value in setting.items())}, threads: {threads}\n")
    print("| part | form | user ms | system ms | folded is faster by | extra MiB |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    with ExitStack() as whole:
        workers = [Worker(form, setting, whole) for form in FORMS]
        for part in PARTS:
            measure(part, workers, setting)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], json.loads(sys.argv[3]))
    else:
        given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
        if unknown := set(given) - set(DEFAULTS):
            sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
        main({**DEFAULTS, **given})
