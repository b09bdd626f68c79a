"""report.md of a search, its figures, and best.yaml: the config that is trained next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from finetune.config import FinetuneConfig
from finetune.search.space import changed, suggest
from finetune.search.trials import Trials
from triptych import config as configs
from triptych.evaluation.figures import COLORS
from triptych.evaluation.markdown import table
from triptych.evaluation.tables import number
from triptych.files import write_atomically

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not finished",
}

MIN_FOR_IMPORTANCE = 4
"""Finished trials. A forest on fewer says nothing; on four it says little."""


@dataclass(frozen=True)
class Metric:
    """What trials are compared by."""

    name: str
    percent: bool


def line(study: optuna.Study, trial: int, metric: Metric) -> str:
    """What came of a trial, for the one who watches."""
    one, best = study.trials[trial], _best(study.trials, study)
    values = ", ".join(f"{path} {_text(value)}" for path, value in one.params.items())
    so_far = f"; best: trial {best.number} with {_score(best.value, metric)}" if best else ""
    score = f", {metric.name} {_score(_value(one), metric)} at step {_step(one)}" if one.intermediate_values else ""
    return f"trial {trial}: {STATES[one.state]}{score} ({values}){so_far}"


def write(trials: Trials, base: FinetuneConfig, metric: Metric) -> None:
    """Write report.md, figures/ and, once a trial has finished, best.yaml. Call it within `trials.alone`.

    Args:
        trials: in their folder.
        base: of the search.
        metric: that the trials are compared by, on valid.
    """
    study, out = trials.study(), trials.folder
    found = study.trials
    best = _best(found, study)
    lines = [f"# Search around {trials.config.finetune}", "", *_summary(trials, found, metric), "", "## The best", ""]
    if best is None:
        lines += ["No trial has finished its steps yet."]
    else:
        winner = changed(base, suggest(best, trials.config.space, base))
        write_atomically(out / "best.yaml", configs.dump(winner))
        lines += _difference(trials, base, winner, best, metric)
    (out / "figures").mkdir(exist_ok=True)
    lines += ["", "## All trials", "", *_pictures(trials, study, found, metric), *_table(study, found, metric)]
    write_atomically(out / "report.md", "\n".join(lines) + "\n")


def _summary(trials: Trials, found: Sequence[FrozenTrial], metric: Metric) -> list[str]:
    config = trials.config
    states = [STATES[one.state] for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES.values() if state in states)
    best = "lowest" if trials.lowest else "highest"
    return [
        f"- **compared by** the {best} {metric.name} on valid{', in percent' if metric.percent else ''}, of each "
        "trial's evaluations; no test clip or label was read",
        f"- **trials** {len(found)} of {config.trials}: {counts or 'none'}",
        f"- **Hyperband** lets one of {config.reduction} go on from {config.min_steps} steps, and again at every "
        f"{config.reduction} times as many, up to {trials.max_steps}; suggestions by TPE, seed {config.seed}",
    ]


def _difference(
    trials: Trials, base: FinetuneConfig, winner: FinetuneConfig, best: FrozenTrial, metric: Metric
) -> list[str]:
    before, now = (configs.flatten(configs.to_dict(config)) for config in (base, winner))
    rows = [[f"`{key}`", str(before.get(key)), str(now.get(key))] for key in now if before.get(key) != now[key]]
    seeds = ", ".join(map(str, winner.seeds))
    return [
        f"Trial {best.number}: {metric.name} {_score(best.value, metric)} on valid at step {_step(best)}, with one "
        f"seed. The best of many trials is also the luckiest; what it is worth on test, over its seeds ({seeds}):",
        "",
        f"    python -m finetune {trials.folder}/best.yaml",
        "",
        *(table(["field", "base", "best"], "lll", rows) if rows else ["Its values are those of the base."]),
    ]


def _table(study: optuna.Study, found: Sequence[FrozenTrial], metric: Metric) -> list[str]:
    paths = list(dict.fromkeys(path for one in found for path in one.params))
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1

    def rank(one: FrozenTrial) -> tuple[int, float]:
        value = _value(one)
        return list(STATES).index(one.state), math.inf if math.isnan(value) else sign * value

    head = ["trial", "outcome", metric.name, "step", *(f"`{path}`" for path in paths)]
    rows = [
        [
            str(one.number),
            STATES[one.state],
            _score(_value(one), metric),
            _step(one),
            *(_text(one.params[path]) if path in one.params else "" for path in paths),
        ]
        for one in sorted(found, key=rank)
    ]
    failed = [f"- trial {one.number} failed: {one.user_attrs['error']}" for one in found if "error" in one.user_attrs]
    return [*table(head, "l" * len(head), rows), "", *failed]


def _pictures(trials: Trials, study: optuna.Study, found: Sequence[FrozenTrial], metric: Metric) -> list[str]:
    folder = trials.folder / "figures"
    scored = [one for one in found if math.isfinite(_value(one))]
    if not scored:
        return []
    _history(scored, metric, trials.lowest).savefig(folder / "history.png", dpi=150)
    lines = ["![history](figures/history.png)", ""]
    finished = [one for one in found if one.state == TrialState.COMPLETE]
    if len(finished) < MIN_FOR_IMPORTANCE or len({one.value for one in finished}) == 1:
        few = f"needs {MIN_FOR_IMPORTANCE} finished trials of different scores, there are {len(finished)}"
        return [*lines, f"No picture of the fields' importance: it {few}.", ""]
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    _importance(shares).savefig(folder / "importance.png", dpi=150)
    told = f"Share of the variance of {metric.name} among the {len(finished)} finished trials (fANOVA)."
    return [*lines, "![importance](figures/importance.png)", "", told, ""]


def _history(scored: Sequence[FrozenTrial], metric: Metric, lowest: bool) -> Figure:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    scale = 100 if metric.percent else 1
    for state, marker, color in ((TrialState.COMPLETE, "o", COLORS[0]), (TrialState.PRUNED, "x", COLORS[-1])):
        ones = [one for one in scored if one.state == state]
        values = [scale * _value(one) for one in ones]
        axes.scatter([one.number for one in ones], values, marker=marker, color=color, label=STATES[state])
    finished = [one for one in scored if one.state == TrialState.COMPLETE]
    values = [scale * _value(one) for one in finished]
    so_far = [(min if lowest else max)(values[: index + 1]) for index in range(len(values))]
    axes.step([one.number for one in finished], so_far, where="post", color=COLORS[1], label="best so far")
    axes.set(xlabel="trial", ylabel=f"{metric.name} on valid{' in percent' if metric.percent else ''}")
    axes.legend(frameon=False)
    return figure


def _importance(shares: dict[str, float]) -> Figure:
    figure = Figure(figsize=(6, 1 + 0.35 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(reversed(shares))  # the largest on top
    axes.barh(names, [shares[name] for name in names], color=COLORS[0])
    axes.set(xlabel="importance", xlim=(0, 1))
    return figure


def _best(found: Sequence[FrozenTrial], study: optuna.Study) -> FrozenTrial | None:
    """`Study.best_trial`, or None where none has finished."""
    return study.best_trial if any(one.state == TrialState.COMPLETE for one in found) else None


def _value(one: FrozenTrial) -> float:
    """Of a finished trial its best score; of another the last that it reported, or NaN."""
    if one.state == TrialState.COMPLETE:
        assert one.value is not None
        return one.value
    return one.intermediate_values[one.last_step] if one.last_step is not None else math.nan


def _step(one: FrozenTrial) -> str:
    """Where `_value` was reached."""
    step = one.user_attrs["best_step"] if one.state == TrialState.COMPLETE else one.last_step
    return "" if step is None else str(step)


def _score(value: float | None, metric: Metric) -> str:
    return "" if value is None or math.isnan(value) else number(value, metric.percent)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
