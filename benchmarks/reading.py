"""How fast are shards read? This reader, plain webdataset and mosaicml-streaming on the same clips, in one run.

    python benchmarks/reading.py SHARDS [REPEATS]

SHARDS: a shard set with sound and picture and without stored features. Every run is a process of its own, the peers' in
environments of their own below runs/peers (made at the first call). REPEATS runs (5) in alternating order; files are in
the page cache. The table shows medians, ratios of medians to this reader's, and the range of the single runs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
PEERS = {"webdataset": "webdataset==1.0.2", "mosaicml-streaming": "mosaicml-streaming==0.13.0"}
DECODING = ["torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0"]
DECODING += ["av", "pillow", "simplejpeg", "omegaconf>=2.4", "rich", "pyyaml", "safetensors"]
LEVELS: dict[str, tuple[str, ...]] = {"raw": ("triptych", "webdataset", "mosaicml-streaming")}
LEVELS["batch"] = (*LEVELS["raw"], "limit")


def interpreter(system: str) -> str:
    """Of the environment in which a system runs."""
    if system not in PEERS:
        return sys.executable
    environment = ROOT / "runs" / "peers" / system
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, environment], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, PEERS[system], *DECODING], check=True)
    return str(python)


def measure(system: str, level: str, shards: Path) -> dict[str, float]:
    """One run in a process of its own."""
    command = [interpreter(system), __file__.replace("reading.py", "reading_worker.py"), system, level]
    command += [str(shards), str(ROOT / "runs" / "peers" / f"{shards.name}-mds")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system}, {level}: failed\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(shards: Path, repeats: int) -> None:
    """Measure everything and print one table."""
    cores = len(os.sched_getaffinity(0))
    print(f"{shards}, {cores} cores, median of {repeats} runs\n")
    print("| level | system | clips/s | ratio | MB/s | CPU ms a clip | single runs |", flush=True)
    print("|---|---|---:|---:|---:|---:|---|")
    for level, systems in LEVELS.items():
        runs: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
        for system in systems:
            measure(system, level, shards)  # fills the page cache, and makes what is missing
        for repeat in range(repeats):
            for system in systems if repeat % 2 == 0 else reversed(systems):
                runs[system].append(measure(system, level, shards))
        rates = {system: median(run["clips"] / run["wall_s"] for run in there) for system, there in runs.items()}
        for system, there in runs.items():
            bytes_s = median(run["bytes"] / run["wall_s"] for run in there) / 1e6
            cpu_ms = median(run["cpu_ms"] for run in there)
            ratio = rates[system] / rates["triptych"]
            size = f"{bytes_s:.0f}" if level == "raw" else ""
            single = sorted(run["clips"] / run["wall_s"] for run in there)
            spread = f"{single[0]:.0f}-{single[-1]:.0f}"
            print(f"| {level} | {system} | {rates[system]:.0f} | {ratio:.2f} | {size} | {cpu_ms:.2f} | {spread} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
