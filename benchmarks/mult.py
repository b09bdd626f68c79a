"""How fast does the cross-modal transformer train? Ours beside MulT's layers (Tsai et al. 2019), in one run.

    python benchmarks/mult.py [repeats=3] [width=512] [corpora=grid,voxceleb2]

A step is forward, backward and AdamW over eight clips of text, sound and picture, in float32 on a CPU; a measurement is
three steps, or one of the largest systems. All transformers have the size of Khare et al. 2021: 4 layers, 4 heads,
width 512, feed-forward 200 (MulT's memory has both twice, as it is published). Systems:

    ours text, ours each    `encoder.cross_modal` with anchor text: three stacks of layers and two cross-modal ones;
                            with anchor each: three and six
    peer text, peer each    MulT's layers in the same shape, on the same batches: the ratio is that of the layers
    MulT                    the whole published system: six crossmodal stacks on the inputs, three memory stacks
    a `-` at the end        ours with torch's own matrix product (MKL) in place of oneDNN's

The peers are re-created from the paper (mult_peer.py says what is known of the public code). Lengths: GRID's 3 s clips
(6 words, 60 steps of five stacked filter banks, 75 frames), where nothing is padding; and VoxCeleb2's 4 to 20 s, drawn
as in mult_worker.seconds_of, in random order and sorted as by `stream.length_pool`. All pad to the longest of a batch,
which favours the peer: the public code pads all clips of a corpus to one length.

Each measurement is a process of its own, systems in alternating order; the table shows medians. `extra` is the highest
memory of the process beyond what it held with its weights and the optimizer's state, gradients included. First the
script makes sure that both compute the same attention. Threads are as OMP_NUM_THREADS says.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
GROUPS = [
    ("random", 3, ("ours text", "ours text-", "peer text")),
    ("pooled", 3, ("ours text", "peer text")),
    ("random", 1, ("ours each", "peer each", "MulT")),
]
"""Order of the clips, steps of a measurement, and systems side by side, ours first."""
DEFAULTS = {"repeats": "3", "width": "512", "corpora": "grid,voxceleb2"}
MOST_DIFFERENT = 1e-5

Figures = dict[str, float]


def work(*arguments: str) -> Figures:
    """The worker's figures, from a process of its own."""
    command = [sys.executable, __file__.replace("mult.py", "mult_worker.py"), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: failed\n{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(corpus: str, order: str, steps: int, systems: tuple[str, ...], setting: dict[str, str]) -> None:
    """Measure systems against each other, and print their rows."""
    runs: dict[str, list[Figures]] = {system: [] for system in systems}
    for repeat in range(int(setting["repeats"])):
        for system in systems if repeat % 2 == 0 else reversed(systems):
            runs[system].append(work(system, corpus, order, str(steps), setting["width"]))
    ours = {name: median(run[name] for run in runs[systems[0]]) for name in ("seconds", "cpu_seconds")}
    for system, there in runs.items():
        middle = {name: median(run[name] for run in there) for name in there[0]}
        single = sorted(run["seconds"] * 1000 for run in there)
        cells = [corpus, order, f"{middle['useful']:.2f}", system, f"{middle['parameters'] / 1e6:.1f}"]
        cells += [
            f"{1 / middle['seconds']:.1f}",
            f"{middle['seconds'] * 1000:.0f}",
            f"{single[0]:.0f}-{single[-1]:.0f}",
        ]
        cells += [f"{middle[name] / ours[name]:.2f}" for name in ours]
        print(f"| {' | '.join([*cells, format(middle['mib'], ',.0f')])} |", flush=True)


def main(setting: dict[str, str]) -> None:
    """Check, measure everything and print one table."""
    for form, difference in work("check").items():
        print(f"our attention, {form}: at most {difference:.1e} from the peer's with the same weights")
        if not difference < MOST_DIFFERENT:
            sys.exit("not the same function: nothing was measured")
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))} (all cores)")
    print(f"\nwidth {setting['width']}, threads: {threads}, median of {setting['repeats']} runs\n")
    print(
        "| corpus | order | not padding | system | M weights | clips/s | ms a clip | single runs | time of ours | ",
        end="",
    )
    print("CPU time of ours | extra MiB |\n|---|---|---:|---|---:|---:|---:|---|---:|---:|---:|")
    for corpus in setting["corpora"].split(","):
        for order, steps, systems in GROUPS:
            if corpus == "voxceleb2" or order == "random":  # clips of one length need no sorting
                table(corpus, order, steps, systems, setting)


if __name__ == "__main__":
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if unknown := set(given) - set(DEFAULTS):
        sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
    main({**DEFAULTS, **given})
