"""What a probe writes: the report of triptych.evaluation.results, with sections of its own below the tables."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from linear_probe.held_out import HeldOut, Said, splits
from linear_probe.plan import Plan
from linear_probe.rows import features
from linear_probe.study import Study
from shards.divisions.divisions import common_facts
from triptych.evaluation import figures, results
from triptych.evaluation.parts import at_share

EMBEDDING = "embedding.png"
CURVE = "curve.png"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything that was said of the held-out clips before their labels were opened."""

    rows: Sequence[Said]
    missing: Sequence[Said]
    """The encoders' heads with fewer modalities shown."""
    curve: Mapping[float, Sequence[Said]]
    """Share of the training labels -> rows."""


def write(plan: Plan, study: Study, held_out: HeldOut, found: Found, out: Path) -> dict[str, Any]:
    """Write report.md, results.json, predictions.csv, grid.csv and figures/ into a folder.

    Returns:
        The content of results.json.
    """
    whole = _evaluation(plan, study, held_out, found)
    pictures = _pictures(plan, found)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    if EMBEDDING in pictures:
        _draw_embedding(study, held_out, _drawn(plan, found), out / "figures" / EMBEDDING)
    sections = {
        name: results.Section(title=title, numbers=results.compute(part))
        for name, title, part in (
            ("missing", "Modalities removed at test time", _missing(whole, held_out, found)),
            ("curve", "Shares of the training labels", _curve(whole, held_out, found)),
        )
        if part is not None
    }
    if found.curve:
        _draw_curve(sections["curve"].numbers, found.curve, out / "figures" / CURVE)
    _write_grid(found.rows, out / "grid.csv")
    return results.write(replace(whole, pictures=pictures), out, sections)


def _evaluation(plan: Plan, study: Study, held_out: HeldOut, found: Found) -> results.Evaluation:
    data = plan.data
    rows = [*held_out.trivial(), *(held_out.system(said) for said in found.rows)]
    files = [results.systems_from(Path(path), data.protocol, held_out.split) for path in plan.config.predictions]
    return results.Evaluation(
        title=f"Linear probe: {', '.join(target.label for target in data.protocol.targets)}, {data.protocol.name}",
        protocol=data.protocol,
        splits=splits(study, held_out),
        split_rule=data.shard_set.manifest.split,
        rule=data.rule,
        systems=results.joined(rows, *files),
        compared=plan.pairs,
        drawn=plan.encoder_rows[0].title,
        num_resamples=plan.config.num_resamples,
        facts={**_heads(plan, found), **_divided(plan), **plan.facts},
    )


def _heads(plan: Plan, found: Found) -> dict[str, str]:
    trials = {len(tried) for said in found.rows for tried in said.learnt.trials}
    names = ", ".join(plan.config.heads.given())
    facts = {
        "heads": f"{names} on standardised frozen features; up to {max(trials)} settings tried a row, all divisions "
        "together (grid.csv)"
    }
    if plan.config.baselines.untrained:
        seeds = ", ".join(map(str, plan.config.baselines.untrained))
        facts["untrained"] = f"the same architecture with fresh weights, seeds {seeds}"
    if plan.config.baselines.input_means:
        facts["input means"] = "time means of the sound and picture features and word counts, no encoder"
    if plan.config.baselines.handcrafted:
        facts["handcrafted"] = "means and standard deviations over time of the same, and word counts"
    if plan.config.baselines.random_labels:
        facts["random labels"] = (
            f"labels to learn from and to choose by shuffled, {plan.config.baselines.random_labels} times: chance is "
            "wanted in the mean; ± is over the shuffles, which the interval does not know of"
        )
    return facts


def _divided(plan: Plan) -> dict[str, str]:
    facts, (first, *others) = common_facts(plan.data.divisions), plan.data.divisions
    if others:
        facts["clips of a fold"] = f"{first.facts['clips']} in {first.name}"
    return facts


def _missing(whole: results.Evaluation, held_out: HeldOut, found: Found) -> results.Evaluation | None:
    """The heads as they were fitted and chosen with all modalities, shown fewer."""
    if not found.missing:
        return None
    systems = [held_out.system(said) for said in found.missing]
    fitted = {f"{said.name} ({said.inputs})": held_out.system(said) for said in found.rows}
    full = {
        system.name: fitted[f"{said.learnt.row.title}"] for system, said in zip(systems, found.missing, strict=True)
    }
    compared = [(system.title, full[system.name].title) for system in systems]
    return replace(whole, systems=[*{one.title: one for one in full.values()}.values(), *systems], compared=compared)


def _curve(whole: results.Evaluation, held_out: HeldOut, found: Found) -> results.Evaluation | None:
    systems = [
        replace(held_out.system(said), name=at_share(said.name, share))
        for share, rows in found.curve.items()
        for said in rows
    ]
    return replace(whole, systems=systems, compared=()) if systems else None


def _pictures(plan: Plan, found: Found) -> dict[str, str]:
    """Those of the probe's own: file -> what it shows."""
    pictures = {}
    if plan.data.protocol.kind == "classes":
        pictures[EMBEDDING] = f"held-out clips as {plan.encoder_rows[0].title} sees them, t-SNE of the chosen features"
    if found.curve:
        pictures[CURVE] = f"{plan.data.protocol.select} over the share of the training labels"
    return pictures


def _drawn(plan: Plan, found: Found) -> Said:
    title = plan.encoder_rows[0].title
    return next(said for said in found.rows if said.learnt.row.title == title)


def _draw_embedding(study: Study, held_out: HeldOut, row: Said, path: Path) -> None:
    chosen, *_ = row.learnt.chosen[0]
    table = study.tables[row.learnt.row.sources[0]]
    x = features(table, chosen.view).numpy()[study.clips(held_out.split.keys)]
    x = x.reshape(len(x), -1)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-8)
    figures.embedding(x, held_out.split.truth, study.protocol.classes, path)


def _draw_curve(numbers: Mapping[str, Any], curve: Mapping[float, Sequence[Said]], path: Path) -> None:
    metric = numbers["protocol"]["select"]
    entries = {(row["system"], row["inputs"]): row["metrics"][metric] for row in numbers["systems"]}
    lines: dict[str, dict[float, Any]] = {}
    for share, rows in curve.items():
        for said in rows:
            title = f"{said.name} ({said.inputs})"
            lines.setdefault(title, {})[share] = entries[at_share(said.name, share), said.inputs]
    figures.learning_curve(lines, metric, metric in numbers["protocol"]["percent"], path)


def _write_grid(rows: Sequence[Said], path: Path) -> None:
    """Every setting that was tried, with its scores on valid."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["system", "inputs", "run", "division", "view", "head", "setting", "seed", "valid", "converged"]
        )
        for said in rows:
            for run, tried in zip(said.learnt.row.sources, said.learnt.trials, strict=True):
                for trial in tried:
                    for seed, score in enumerate(trial.valid_scores):
                        place = [said.name, said.inputs, run, trial.division, trial.view, trial.head, trial.setting]
                        writer.writerow([*place, seed, f"{score:.6f}", trial.converged])
