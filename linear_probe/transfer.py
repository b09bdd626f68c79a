"""Several encoders on several corpora: what is learnt on A, asked on B, as one matrix."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triptych.evaluation.markdown import table
from triptych.evaluation.tables import cell


def write(reports: Mapping[str, Mapping[str, Any]], out: Path) -> dict[str, Any]:
    """Write report.md and results.json over the reports of the corpora, which lie in folders of their names.

    Args:
        reports: corpus -> the content of its results.json.
        out: folder of the matrix.

    Returns:
        The content of results.json.
    """
    matrix: dict[str, dict[str, Any]] = {}
    for corpus, numbers in reports.items():
        metric = numbers["protocol"]["select"]
        for row in numbers["systems"]:
            matrix.setdefault(f"{row['system']} ({row['inputs']})", {})[corpus] = row["metrics"][metric]
    found = {"title": "Transfer", "matrix": matrix, "reports": dict(reports)}
    (out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / "report.md").write_text("\n".join(_markdown(found)) + "\n")
    return found


def _markdown(found: Mapping[str, Any]) -> list[str]:
    reports = found["reports"]
    heads = [f"{corpus}: {numbers['protocol']['select']}" for corpus, numbers in reports.items()]
    rows = [
        [title, *(_cell(reports[corpus], cells.get(corpus)) for corpus in reports)]
        for title, cells in found["matrix"].items()
    ]
    lines = [f"# {found['title']}", "", *table(["system", *heads], "l" + "r" * len(heads), rows)]
    lines += ["", "In brackets: 95 % bootstrap interval over held-out clips. Each corpus has its own report:", ""]
    return [*lines, *(f"- [{corpus}]({corpus}/report.md)" for corpus in reports)]


def _cell(numbers: Mapping[str, Any], entry: Mapping[str, Any] | None) -> str:
    protocol = numbers["protocol"]
    return "–" if entry is None else cell(entry, protocol["select"] in protocol["percent"])
