"""What a report says of its protocol: clips, split, selection, and the published rows beside which ours stand."""

from collections import Counter
from typing import Any

import numpy as np

from triptych.evaluation.conventions import by_name
from triptych.evaluation.parts import Evaluation, Split
from triptych.labels import Series
from triptych.protocols.protocol import Protocol
from triptych.protocols.splits import own_split, split_sha256


def block(evaluation: Evaluation) -> dict[str, Any]:
    """`protocol` of results.json, as plain JSON types."""
    protocol = evaluation.protocol
    test = evaluation.splits["test"]
    keys = {name: split.keys for name, split in evaluation.splits.items()}
    if test.folds:  # train and valid follow from the rule and the clips held out
        pairs = list(zip(test.keys, test.folds, strict=True))
        keys = {f"test {fold}": tuple(key for key, own in pairs if own == fold) for fold in dict.fromkeys(test.folds)}
    columns = by_name(protocol.kind)
    return {
        "name": protocol.name,
        "kind": protocol.kind,
        "label": ", ".join(target.label for target in protocol.targets),
        "said": _said(protocol),
        "classes": list(protocol.classes) if protocol.kind == "classes" else [],
        "metrics": list(protocol.metrics),
        "percent": [name for name in protocol.metrics if columns[name].percent],
        "quoted": {} if protocol.kind == "classes" else {name: columns[name].quoted for name in protocol.metrics},
        "select": protocol.select,
        "selection": f"by {protocol.select} on valid; the test split was scored once, after every choice",
        "threshold": protocol.threshold,
        "split_rule": dict(evaluation.split_rule),
        "rule": evaluation.rule,
        "split_sha256": split_sha256(keys),
        "splits": {name: _counts(protocol, split) for name, split in evaluation.splits.items()},
        "folds": dict(Counter(test.folds)),
        "num_resamples": evaluation.num_resamples,
        "facts": dict(evaluation.facts),
        "note": protocol.note,
        "published": _published(evaluation),
    }


def _said(protocol: Protocol) -> str:
    """What is predicted, in words."""
    first = protocol.targets[0]
    if protocol.kind == "classes":
        merged = [f"; {said} counts as {name}" for said, name in first.counted_as.items() if name in first.classes]
        return ", ".join(f"{index} = {name}" for index, name in enumerate(first.classes)) + "".join(merged)
    if protocol.kind == "emotions":
        return f"each present or not; present above {first.positive_above:g}"
    return f"series at {first.form.rate_hz:g} Hz" if isinstance(first.form, Series) else "a number"


def _counts(protocol: Protocol, split: Split) -> dict[str, Any]:
    """Clips of a split, and what they are like."""
    labels = [target.label for target in protocol.targets]
    counts: dict[str, str]
    if protocol.kind == "classes":
        per_class = np.bincount(split.truth, minlength=len(protocol.classes))
        counts = {name: str(number) for name, number in zip(protocol.classes, per_class, strict=True)}
    elif protocol.kind == "emotions":
        counts = {name: f"{number:.0f}" for name, number in zip(labels, split.truth.sum(axis=0), strict=True)}
    elif protocol.kind == "sentiment":
        sides = {"negative": split.truth < 0, "zero": split.truth == 0, "positive": split.truth > 0}
        counts = {name: str(int(side.sum())) for name, side in sides.items()}
        counts["mean"] = f"{split.truth.mean():.3f}"
    else:
        steps = np.concatenate(list(split.truth))
        counts = {"steps": str(len(steps))}
        counts |= {f"mean {name}": f"{mean:.3f}" for name, mean in zip(labels, steps.mean(axis=0), strict=True)}
    return {"clips": len(split.keys), "left_out": split.left_out, "counts": counts}


def _published(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Published rows; `same_rule` where the whole of ours was divided as the row says."""
    rule = evaluation.rule or str(evaluation.split_rule.get("by", "")).removeprefix("protocol:")
    names = {one.name: one.name.rsplit("/", 1)[-1] for one in evaluation.protocol.splits}
    names |= {name: name for name in names.values()}
    for one in evaluation.protocol.splits:  # of the corpus' own splits those that no file of the user makes
        if [(fold.place, fold.describe) for fold in one.folds] == [(own_split, None)]:
            names["source"] = names[one.name]
    own = names.get(rule)  # a single fold of several is not the rule
    rows = []
    for row in evaluation.protocol.published:
        whole = {name: value for name, value in row.scores.items() if name in by_name(evaluation.protocol.kind)}
        targets: dict[str, dict[str, float]] = {}
        for name in [name for name in row.scores if name not in whole]:
            target, metric = name.split(" ", 1)
            targets.setdefault(metric, {})[target] = row.scores[name]
        told = {"system": row.system, "scores": whole, "targets": targets, "split": row.split}
        rows.append({**told, "same_rule": row.split == own, "source": row.source, "grade": row.grade, "note": row.note})
    return rows
