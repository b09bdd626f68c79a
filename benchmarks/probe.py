"""What does a whole probe cost, from shards to the chosen head? One head, a grid of 500, and what is done elsewhere.

    python benchmarks/probe.py encoder=ENCODER shards=SHARDS [protocol=synthetic] [epochs=100] [repeats=3]

Every clip is read, decoded and encoded (nothing is cached), then heads are fitted on train and one is chosen on valid:

    one head      linear, on the pooled vectors
    grid          500 heads: 125 strengths of logistic regression and 25 learning rates x 5 weight decays of a linear
                  head trained for `epochs`, on the pooled vectors and on the towers' last layers
    recomputed    the one head, with the training clips read and encoded again in every epoch, as a loop over a data
                  loader with a frozen encoder does: the first epoch measured, times `epochs`
    scikit-learn  the grid's logistic regressions one after the other, on features that are there, to the same optimum

CPU seconds of one process (OMP_NUM_THREADS threads), medians of `repeats` in alternating order; the last two once. With
repeats=1, for slow encoders, what is loaded at first use is in the first row.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from linear_probe.config import BaselinesConfig, ProbeConfig
from linear_probe.heads.base import Standard
from linear_probe.heads.config import HeadsConfig, Linear, Logistic
from linear_probe.plan import device, make_plan
from linear_probe.rows import features
from linear_probe.study import Learnt, Study
from shards.features.recover import features_of
from shards.reading.read import EvalLoader
from triptych.config import run_command
from triptych.evaluation import conventions

STRENGTHS = [float(c) for c in np.geomspace(1e-4, 100, 125)]
TIGHT = 1e-8
"""scikit-learn's tolerance that reaches the optimum; its own stops short of it."""


def config(given: dict[str, str], heads: HeadsConfig, layers: list[str]) -> ProbeConfig:
    """A probe without baselines and cache."""
    bare = BaselinesConfig(untrained=[], input_means=False, random_labels=0)
    return ProbeConfig(
        encoder=given["encoder"],
        shards=given["shards"],
        protocol=given.get("protocol", "synthetic"),
        heads=heads,
        layers=layers,
        baselines=bare,
        missing=False,
    )


def probe(settings: ProbeConfig) -> tuple[Study, Learnt]:
    """From the shards to the chosen head."""
    plan = make_plan(settings, settings.scored()[""])
    study = plan.study()
    return study, study.learn(plan.encoder_rows[0])


def seconds(run: Callable[[], object]) -> float:
    """CPU time of a run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def encode_train(settings: ProbeConfig) -> None:
    """An epoch of a loop that keeps nothing."""
    plan = make_plan(settings, settings.scored()[""])
    source = plan.sources["pretrained"]
    loader = EvalLoader(
        plan.data.shard_set,
        features_of(source.inputs),
        vocabulary=source.vocabulary,
        batch_size=settings.micro_batch,
        rank=0,
        world=1,
        split="train",
    )
    blocks = [source.resolve(block) for block in plan.encoder_rows[0].views[0].blocks]
    with torch.no_grad():
        for batch in loader.batches():
            source.compute(batch.to(device()), blocks, [1] * len(batch))


def sklearn_loop(study: Study, learnt: Learnt) -> float:
    """The best score on valid of scikit-learn's heads, one after the other."""
    y, (lesson,) = study._lessons(study.learning[1], 1.0)
    best = -np.inf
    for view in learnt.row.views:
        x = features(study.table, view)
        standard = Standard.of(x, torch.from_numpy(lesson.train))
        train, valid = (standard(x[torch.from_numpy(rows)].double()).numpy() for rows in (lesson.train, lesson.valid))
        for c in STRENGTHS:
            model = LogisticRegression(C=c, tol=TIGHT, max_iter=10000).fit(train, y[lesson.train].numpy())
            said = model.predict(valid)
            best = max(best, conventions.score(study.protocol, study.protocol.select, y[lesson.valid].numpy(), said))
    return float(best)


def main(given: dict[str, str]) -> int:
    """Measure and print the table."""
    epochs, repeats = int(given.get("epochs", 100)), int(given.get("repeats", 3))
    linear = Linear(lr=[0.001], weight_decay=[0.0], epochs=epochs)
    rates = [float(lr) for lr in np.geomspace(1e-4, 0.1, 25)]
    many = replace(linear, lr=rates, weight_decay=[0.0, 1e-4, 1e-3, 1e-2, 1e-1])
    one = config(given, HeadsConfig(linear=linear), ["pooled"])
    grid = config(given, HeadsConfig(logistic=Logistic(c=STRENGTHS), linear=many), ["pooled", "-1"])
    if repeats > 1:
        probe(one)  # loads what is loaded at first use
    found: list[tuple[Study, Learnt]] = []
    spent: dict[str, list[float]] = {"one": [], "grid": []}
    for _ in range(repeats):
        spent["one"].append(seconds(lambda: probe(one)))
        spent["grid"].append(seconds(lambda: found.append(probe(grid))))
    study, learnt = found[-1]
    tried = learnt.trials[0]
    epoch = seconds(lambda: encode_train(one))
    theirs = [0.0]
    loop = seconds(lambda: theirs.__setitem__(0, sklearn_loop(study, learnt)))
    ours = max(trial.valid_scores[0] for trial in tried if trial.head == "logistic")
    base, whole = median(spent["one"]), median(spent["grid"])
    fitting = seconds(lambda: study.learn(learnt.row))
    print(f"{len(study.table.keys)} clips; CPU seconds\n")
    print("| | heads | s | of the grid |\n|---|---:|---:|---:|")
    for name, heads, cost in (
        ("one head, extraction included", 1, base),
        ("grid, extraction included", len(tried), whole),
        ("of which fitting and choosing", len(tried), fitting),
        (f"one head, features recomputed in {epochs} epochs", 1, epoch * epochs),
        ("scikit-learn loop, logistic part, fitting alone", 2 * len(STRENGTHS), loop),
    ):
        print(f"| {name} | {heads} | {cost:.1f} | {cost / whole:.2f} |")
    print(f"\nbest logistic regression on valid: ours {ours:.4f}, scikit-learn {theirs[0]:.4f}")
    return 0 if abs(ours - theirs[0]) < 1e-9 else 1


if __name__ == "__main__":
    options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if not {"encoder", "shards"} <= set(options) <= {"encoder", "shards", "protocol", "epochs", "repeats"}:
        print(__doc__)
        sys.exit(2)
    run_command(lambda: main(options))
