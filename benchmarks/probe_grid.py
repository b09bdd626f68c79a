"""What does a grid of probes cost? All heads together, one head alone, and loops over the same heads, in one run.

    python benchmarks/probe_grid.py [rows=480] [width=1536] [classes=8] [folds=10] [settings=50] [epochs=20]
                                    [every=1] [repeats=3] [device=cpu|cuda]

Synthetic features with some class signal in correlated noise. `folds` divisions, `settings` of each: C from 1e-4 to 100
for logistic regression, learning rates from 1e-4 to 0.1 for linear heads trained by AdamW. `one` is the first fold with
the middle setting. The loops take every `every`-th head and their time is multiplied by it: scikit-learn's
LogisticRegression with its usual tolerance and with one that reaches the optimum as ours does, and torch.nn.Linear with
torch.optim.AdamW, same order and start. Seconds are CPU time (wall time on a GPU), medians of `repeats` in alternating
order, loops once. `scores apart` is the largest difference of a head's accuracy on its held-out rows from ours; but for
the usual tolerance, which stops short, more than one row is an error. Threads are as OMP_NUM_THREADS says.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from linear_probe.heads.base import Fitted, Problem, Standard
from linear_probe.heads.config import Linear, Logistic
from linear_probe.heads.trained import order

DEFAULTS = {"rows": 480, "width": 1536, "classes": 8, "folds": 10, "settings": 50, "epochs": 20, "every": 1}
DEFAULTS |= {"repeats": 3}
BATCH = 64
LOOSE = "scikit-learn"
TIGHT = 1e-8
"""A tolerance at which scikit-learn's probabilities agree with ours to some 1e-5; its own is 1e-4."""
Peer = Callable[[Problem, float], float]
"""The score of one head alone."""


def features(setting: dict[str, int]) -> tuple[Tensor, Tensor]:
    """[R, D] and classes [R]."""
    generator = np.random.default_rng(0)
    labels = np.arange(setting["rows"]) % setting["classes"]
    x = 0.2 * generator.normal(size=(setting["classes"], setting["width"]))[labels]
    x += generator.normal(size=(setting["rows"], 40)) @ generator.normal(size=(40, setting["width"]))
    x += generator.normal(size=x.shape)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(labels)


def problems(setting: dict[str, int]) -> list[Problem]:
    """Divisions that each hold out a part of the rows, all classes in all of them."""
    fold = np.arange(setting["rows"]) // setting["classes"] % setting["folds"]
    return [Problem(np.flatnonzero(fold != held), np.flatnonzero(fold == held)) for held in range(setting["folds"])]


def seconds(run: Callable[[], object], device: str) -> float:
    """What a run costs."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def scores(fitted: Fitted, x: Tensor, y: Tensor, there: list[Problem]) -> Tensor:
    """Accuracies [P, K] on the held-out rows."""
    return torch.stack(
        [
            (fitted.outputs(index, x[problem.valid]).argmax(dim=2) == y[problem.valid]).double().mean(dim=1)
            for index, problem in enumerate(there)
        ]
    ).cpu()


def sklearn_score(x: Tensor, y: Tensor, problem: Problem, c: float, tol: float) -> float:
    """One head of scikit-learn's."""
    train, valid = x[problem.train].double(), x[problem.valid].double()
    standard = Standard.of(x, torch.as_tensor(problem.train))
    model = LogisticRegression(C=c, tol=tol, max_iter=10000).fit(standard(train).numpy(), y[problem.train].numpy())
    return float((model.predict(standard(valid).numpy()) == y[problem.valid].numpy()).mean())


def torch_score(x: Tensor, y: Tensor, problem: Problem, lr: float, epochs: int) -> float:
    """One head of torch's."""
    standard = Standard.of(x, torch.as_tensor(problem.train, device=x.device))
    train, labels = standard(x[problem.train]), y[problem.train]
    torch.manual_seed(problem.seed)
    head = nn.Linear(x.shape[1], int(y.max()) + 1).to(x.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.0)
    steps = math.ceil(len(train) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for epoch in range(epochs):
        for rows in torch.tensor(order(problem.seed, epoch, len(train)), device=x.device).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(train[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return float((head(standard(x[problem.valid])).argmax(dim=1) == y[problem.valid]).double().mean())


def measure(
    name: str,
    heads: Callable[[list[float]], Logistic | Linear],
    grid: list[float],
    peers: dict[str, Peer],
    data: tuple[Tensor, Tensor],
    setting: dict[str, int],
) -> None:
    """Print the rows of one kind of head."""
    (x, y), there = data, problems(setting)
    device = x.device.type

    def one() -> object:
        return heads([grid[len(grid) // 2]]).fit(x, y, there[:1], "classes", setting["classes"])

    def whole() -> Fitted:
        return heads(grid).fit(x, y, there, "classes", setting["classes"])

    found = scores(whole(), x, y, there)  # which also loads what is loaded at first use
    spent: dict[str, list[float]] = {"one": [], "whole": []}
    for _ in range(setting["repeats"]):
        spent["one"].append(seconds(one, device))
        spent["whole"].append(seconds(whole, device))
    single, together = median(spent["one"]), median(spent["whole"])
    row(f"{name}, one", 1, single, (single, together))
    row(f"{name}, all", found.numel(), together, (single, together))
    for system, peer in peers.items():
        peer(there[0], grid[0])  # which loads what is loaded at first use
        cost, apart, told = looped(peer, found, there, grid, (setting["every"], device))
        row(f"{system}, loop", found.numel(), cost, (single, together), told)
        if system != LOOSE and apart * min(len(problem.valid) for problem in there) > 1.01:
            sys.exit(f"{system}: scores are apart by more than one row")


def looped(
    peer: Peer, found: Tensor, there: list[Problem], grid: list[float], how: tuple[int, str]
) -> tuple[float, float, str]:
    """What a loop over a peer's heads costs, how far its scores are from ours, and that in words."""
    every, device = how
    chosen = [(fold, number) for fold in range(len(there)) for number in range(len(grid))][::every]
    theirs = torch.full_like(found, torch.nan)

    def loop() -> None:
        for fold, number in chosen:
            theirs[fold, number] = peer(there[fold], grid[number])

    cost = seconds(loop, device) * found.numel() / len(chosen)
    measured = ~theirs.isnan()
    apart = float((theirs - found)[measured].abs().max())
    best, their_best = (torch.where(measured, part, -1).amax(dim=1) for part in (found, theirs))
    same = int((best - their_best).abs().lt(1e-9).sum())
    return cost, apart, f"{apart:.4f}, same chosen score in {same} of {len(there)} folds"


def row(system: str, heads: int, cost: float, ours: tuple[float, float], told: str = "") -> None:
    """Print a row; `ours` are the costs of one head and of all."""
    print(f"| {system} | {heads} | {cost:.3f} | {cost / ours[0]:.1f} | {cost / ours[1]:.1f} | {told} |", flush=True)


def main(setting: dict[str, int], device: str) -> None:
    """Measure logistic regression and linear heads."""
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))} (all cores)")
    print(f"{device}, threads: {threads}, {', '.join(f'{name} {value}' for name, value in setting.items())}\n")
    x, y = (part.to(device) for part in features(setting))
    host = x.cpu(), y.cpu()
    print("| system | heads | s | of one | of all | scores apart |\n|---|---:|---:|---:|---:|---|")
    strengths = [float(c) for c in np.geomspace(1e-4, 100, setting["settings"])]
    measure(
        "logistic",
        lambda grid: Logistic(c=grid),
        strengths,
        {
            LOOSE: lambda problem, c: sklearn_score(*host, problem, c, 1e-4),
            f"scikit-learn, tol {TIGHT:g}": lambda problem, c: sklearn_score(*host, problem, c, TIGHT),
        },
        (x, y),
        setting,
    )
    rates = [float(lr) for lr in np.geomspace(1e-4, 0.1, setting["settings"])]
    epochs = setting["epochs"]
    measure(
        "linear",
        lambda grid: Linear(lr=grid, weight_decay=[0.0], epochs=epochs, batch_size=BATCH),
        rates,
        {"torch": lambda problem, lr: torch_score(x, y, problem, lr, epochs)},
        (x, y),
        setting,
    )


if __name__ == "__main__":
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if unknown := set(given) - {*DEFAULTS, "device"}:
        sys.exit(f"unknown: {', '.join(unknown)}\n\n{__doc__}")
    where = given.pop("device", "cpu")
    main({**DEFAULTS, **{name: int(value) for name, value in given.items()}}, where)
