"""What does the CLS-only query of inter-modal attention save in SSE-FT? All forms of it in one run.

    python benchmarks/ima.py [repeats=3] [clips=4] [blocks=2] [dropout=0.1]

Lengths and widths are the paper's: 512 steps of text of width 1024, 935 of sound of 512 and 300 of face of 256, without
padding; the other settings those of MOSEI. Forms:

    folded    ours: the CLS alone asks, W_k and W_v are brought to its side
    plain     the CLS alone asks, keys and values are projections of the whole sequence
    full      all steps ask, and the first row is read, as in the authors' code; our layers
    torch     the same as full, self-attention too, in layers made of torch's own parts (ima_peer.py)

`IMA` is forward and backward of the six stacks, to the weights and to the sequences of sound and face (text is frozen);
`step` that of the whole fusion with self-attention and head. `SA` is the self-attention of the step alone, which no
form of IMA makes faster. All train: dropout is on. Before anything is measured, the script makes sure that the forms
compute the same numbers.

Each form is a process of its own, in alternating order; the table shows medians. Times are CPU time of the
process (the machine may be shared), `of full` and `of torch` the quotients of the table's own medians. `extra` is the
highest memory beyond weights, gradients and inputs. Threads are as OMP_NUM_THREADS says.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from ima_peer import TorchSseFt
from torch import Tensor

from triptych.models.blocks import Source, TransformerStack
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig

ROOT = Path(__file__).parent.parent
DEFAULTS = {"repeats": "3", "clips": "4", "blocks": "2", "dropout": "0.1"}
CORES = {
    "text": CoreModality(width=1024, max_steps=512, has_cls=True),
    "audio": CoreModality(width=512, max_steps=935),
    "video": CoreModality(width=256, max_steps=300),
}
PARTS = ("IMA", "step", "SA")
STEPS = {"folded": 5, "plain": 2, "full": 1, "torch": 1}
"""Of a measurement of IMA: the fast forms need more of them."""
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
    model = (FullSseFt if form == "full" else SseFt)(config, CORES, 1)
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


def measure(form: str, setting: dict[str, str]) -> dict[str, Figures]:
    """Part -> CPU seconds of a step, and MiB beyond what the process held before."""
    model = build(form, setting).train()
    sources = sources_of(int(setting["clips"]))
    figures = {}
    for part in PARTS:
        step, steps = work_of(part, model), STEPS[form] if part == "IMA" else 1
        step(sources_of(1, 0.05))  # starts libraries, makes the gradients
        ctypes.CDLL(None).malloc_trim(0)  # what the part before has freed goes back
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the highest memory, starts again from here
        held = memory_mib("VmRSS")
        start = time.process_time()
        for _ in range(steps):
            step(sources)
        seconds = (time.process_time() - start) / steps
        figures[part] = {"seconds": seconds, "mib": memory_mib("VmHWM") - held}
    return figures


def memory_mib(name: str) -> float:
    """What this process holds now, or held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def same() -> Figures:
    """Form -> largest difference of the fused vector from ours with the same weights."""
    setting = {**DEFAULTS, "dropout": "0"}
    ours = build("folded", setting)
    assert isinstance(ours, SseFt)
    sources = sources_of(2, 0.1)
    differences = {}
    with torch.no_grad():
        expected = ours(sources).fused
        for form in ("plain", "full", "torch"):
            model = build(form, setting)
            if isinstance(model, TorchSseFt):
                model.take(ours)
            else:
                model.load_state_dict(ours.state_dict())
            differences[form] = float((model(sources).fused - expected).abs().max())
    return differences


def work(form: str, setting: dict[str, str]) -> dict[str, Figures]:
    """What `measure` gives, from a process of its own."""
    command = [sys.executable, __file__, "measure", form, json.dumps(setting)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{form}: failed\n{done.stderr}")
    figures: dict[str, Figures] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(part: str, runs: dict[str, list[Figures]]) -> None:
    """Print the rows of a part."""
    middle = {form: {name: median(run[name] for run in there) for name in there[0]} for form, there in runs.items()}
    for form, figures in middle.items():
        single = sorted(run["seconds"] * 1000 for run in runs[form])
        cells = [part, form, f"{figures['seconds'] * 1000:,.0f}", f"{single[0]:,.0f}-{single[-1]:,.0f}"]
        cells += [f"{middle[slow]['seconds'] / figures['seconds']:.1f}" for slow in ("full", "torch")]
        cells += [f"{figures['mib']:,.0f}", f"{middle['full']['mib'] / max(1.0, figures['mib']):.1f}"]
        print(f"| {' | '.join(cells)} |")


def main(setting: dict[str, str]) -> None:
    """Check, measure everything and print one table."""
    for form, difference in same().items():
        print(f"{form}: at most {difference:.1e} from folded with the same weights")
        if not difference < MOST_DIFFERENT:
            sys.exit("not the same function: nothing was measured")
    runs: dict[str, list[dict[str, Figures]]] = {form: [] for form in STEPS}
    for repeat in range(int(setting["repeats"])):
        for form in STEPS if repeat % 2 == 0 else reversed(STEPS):
            runs[form].append(work(form, setting))
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))} (all cores)")
    print(f"\n{', '.join(f'{name} {value}' for name, value in setting.items())}, threads: {threads}\n")
    print("| part | form | ms | single runs | faster than full | than torch | extra MiB | less than full |")
    print("|---|---|---:|---|---:|---:|---:|---:|")
    for part in PARTS:
        show(part, {form: [run[part] for run in there] for form, there in runs.items()})


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
        if unknown := set(given) - set(DEFAULTS):
            sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
        main({**DEFAULTS, **given})
