"""What does a contrastive loss cost? Ours tile by tile, the full matrix, and open_clip's, in one run.

    python benchmarks/contrastive.py [openclip=PYTHON] [repeats=3] [sizes=4096,8192,16384] [large=16384,32768]
                                     [device=cpu|cuda]

One step forward and backward over random embeddings of 512 dimensions, float32. PYTHON is the interpreter of an
environment with the peer (`uv venv PEER && uv pip install --python PEER/bin/python open_clip_torch torch==2.11.0
torchvision==0.26.0`); without it the peer is not measured. Each measurement is a process of its own, systems in
alternating order; the table shows medians. `extra` is the highest memory of the process during the step beyond what it
held before, less the gradients (on a GPU, of allocated memory). `sizes` are clips of two modalities, for all systems;
`large`, of three, for ours alone. Threads are as OMP_NUM_THREADS says.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
GROUPS = [("ours infonce", "full matrix", "open_clip ClipLoss"), ("ours sigmoid", "open_clip SigLipLoss")]
"""Systems that compute the same loss."""
ALONE = ("ours paper", "ours infonce", "ours two_view", "ours sigmoid")
DEFAULTS = {"openclip": "", "repeats": "3", "sizes": "4096,8192,16384", "large": "16384,32768", "device": "cpu"}


def measure(python: str, system: str, num_clips: int, num_modalities: int, device: str) -> dict[str, float]:
    """One step in a process of its own."""
    command = [python, __file__.replace("contrastive.py", "contrastive_worker.py"), system]
    command += [str(num_clips), str(num_modalities), device]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system}, {num_clips} clips: failed\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(systems: tuple[str, ...], num_clips: int, num_modalities: int, setting: dict[str, str]) -> None:
    """Measure systems against each other, and print their rows."""
    runs: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
    for repeat in range(int(setting["repeats"])):
        for system in systems if repeat % 2 == 0 else reversed(systems):
            python = setting["openclip"] if system.startswith("open_clip") else sys.executable
            runs[system].append(measure(python, system, num_clips, num_modalities, setting["device"]))
    seconds = {system: median(run["seconds"] for run in there) for system, there in runs.items()}
    yardstick = "full matrix" if "full matrix" in seconds else systems[-1] if len(systems) > 1 else systems[0]
    for system, there in runs.items():
        extra, loss = median(run["extra_mib"] for run in there), there[0]["loss"]
        single = sorted(run["seconds"] for run in there)
        ratio = "" if num_modalities > 2 else f"{seconds[system] / seconds[yardstick]:.2f}"
        cells = [f"{num_clips:,}", str(num_modalities), system, f"{seconds[system]:.2f}", ratio]
        cells += [f"{single[0]:.2f}-{single[-1]:.2f}", f"{extra:,.0f}", f"{loss:.5f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(setting: dict[str, str]) -> None:
    """Measure everything and print one table."""
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))} (all cores)")
    print(f"{setting['device']}, threads: {threads}, median of {setting['repeats']} runs\n")
    print("| clips | modalities | system | s | of the group's full one | single runs | extra MiB | loss |")
    print("|---:|---:|---|---:|---:|---|---:|---:|")
    for systems in GROUPS:
        here = tuple(name for name in systems if setting["openclip"] or not name.startswith("open_clip"))
        for size in filter(None, setting["sizes"].split(",")):
            table(here, int(size), 2, setting)
    for size in filter(None, setting["large"].split(",")):
        table(ALONE, int(size), 3, setting)


if __name__ == "__main__":
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if unknown := set(given) - set(DEFAULTS):
        sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
    main({**DEFAULTS, **given})
