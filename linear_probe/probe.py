"""The probe from end to end: read once, encode frozen, choose on valid, open the test labels, score once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from linear_probe import report, transfer
from linear_probe.config import ProbeConfig
from linear_probe.held_out import Said, open_labels
from linear_probe.plan import Plan, make_plan
from linear_probe.report import Found
from linear_probe.rows import subsets
from linear_probe.study import Learnt, Study
from triptych import config as configs
from triptych.evaluation import results


def run(config: ProbeConfig) -> dict[str, Any]:
    """Probe one or several encoders on one or several corpora and write the report.

    Returns:
        The content of results.json.

    Raises:
        UserError: no such encoder, protocol, class, modality or layer; unlabelled shards; a split that leaks; a report
            folder in use.
    """
    scored, out = config.scored(), config.folder()
    plans = {name: make_plan(config, one) for name, one in scored.items()}  # mistakes, before hours of work
    results.make_folder(out)
    configs.save(config, out / "config.yaml")
    numbers = {name: probe(plan, out / name) for name, plan in plans.items()}
    return transfer.write(numbers, out) if config.on else next(iter(numbers.values()))


def probe(plan: Plan, out: Path) -> dict[str, Any]:
    """Probe one corpus: everything is fitted, chosen and said of the held-out clips before one of their labels is read.

    Returns:
        The content of results.json.
    """
    study = plan.study()
    found = _say_all(plan, study)
    return report.write(plan, study, open_labels(study), found, out)


def _say_all(plan: Plan, study: Study) -> Found:
    config, first = plan.config, plan.encoder_rows[0]
    learnt = {row.title: study.learn(row) for row in plan.rows}
    rows = [_said(study, one) for one in learnt.values()]
    if shuffles := config.baselines.random_labels:
        control = study.learn_shuffled(first, range(shuffles))
        rows.append(replace(_said(study, control), name=f"{first.system}, random labels"))
    missing = [
        replace(
            _said(study, learnt[row.title], shown), name=f"{row.system}, fitted on {row.inputs}", inputs="+".join(shown)
        )
        for row in (plan.encoder_rows if config.missing else ())
        for shown in subsets(row)
    ]
    curve = {
        share: [
            _said(study, learnt[row.title] if share == 1 else study.learn(row, share=share)) for row in plan.curve_rows
        ]
        for share in sorted(config.label_shares)
    }
    return Found(rows=rows, missing=missing, curve=curve)


def _said(study: Study, learnt: Learnt, shown: tuple[str, ...] | None = None) -> Said:
    return Said(name=learnt.row.system, inputs=learnt.row.inputs, learnt=learnt, outputs=study.outputs(learnt, shown))
