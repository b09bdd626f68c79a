"""results.json as tables, in Markdown and on the terminal.

All tables read the JSON alone, so that reports of other days and machines can be put side by side. A results.json from
before there were several kinds says no `kind` and no `percent`: it is of classes, and all its scores are percent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from triptych.evaluation.markdown import table as table_lines

Numbers = Mapping[str, Any]
"""The content of a results.json."""


def number(value: float, percent: bool, sign: str = "") -> str:
    """A score as tables print it: percent with one decimal, else three decimals.

    Args:
        value: in its own unit, an accuracy of 1 is 100 %.
        percent: whether it is printed as such.
        sign: "+" for differences.
    """
    return f"{100 * value:{sign}.1f}" if percent else f"{value:{sign}.3f}"


def table(numbers: Numbers) -> list[str]:
    """Lines of the table of systems, and how to read it."""
    names = numbers["protocol"]["metrics"]
    rows = [[row["system"], row["inputs"], *_cells(numbers, row["metrics"]), row["note"]] for row in numbers["systems"]]
    lines = [*_markdown(["system", "inputs"], [*names, "chosen on valid"], rows), "", _reading(numbers), ""]
    said = [f"- {name}: {quoted}" for name, quoted in numbers["protocol"].get("quoted", {}).items()]
    said += [
        f"- {row['system']} ({row['inputs']}), {name}: {row['metrics'][name]['undefined']}"
        for row in numbers["systems"]
        for name in names
        if "undefined" in row["metrics"][name]
    ]
    return [*lines, *said, ""] if said else lines


def details(numbers: Numbers) -> list[str]:
    """Lines of the tables by target and within each fold; none where there is one target and one fold."""
    lines: list[str] = []
    for name in numbers["protocol"]["metrics"]:
        rows = [row for row in numbers["systems"] if "targets" in row["metrics"][name]]
        if rows:
            targets = list(rows[0]["metrics"][name]["targets"])
            cells = [
                [
                    row["system"],
                    row["inputs"],
                    *(cell(row["metrics"][name]["targets"][target], _percent(numbers, name)) for target in targets),
                    cell(row["metrics"][name], _percent(numbers, name)),
                ]
                for row in rows
            ]
            lines += [f"### {name}, one by one", "", *_markdown(["system", "inputs"], [*targets, "average"], cells), ""]
    return [*lines, *_folds(numbers)]


def differences(numbers: Numbers) -> list[str]:
    """Lines of the table of paired differences; none where nothing was compared."""
    if not numbers["differences"]:
        return []
    rows = [
        [f"{row['first']} − {row['second']}", *_cells(numbers, row["metrics"], "+")] for row in numbers["differences"]
    ]
    lines = ["### Paired differences, same test clips", ""]
    lines += _markdown(["difference"], numbers["protocol"]["metrics"], rows)
    return [*lines, "", "An interval without 0: other clips of these speakers would likely show a difference too.", ""]


def published(numbers: Numbers) -> list[str]:
    """Lines about published rows, apart from what was measured here; none where the protocol has none."""
    rows = numbers["protocol"].get("published", [])
    if not rows:
        return []
    names = list(dict.fromkeys([*numbers["protocol"]["metrics"], *(name for row in rows for name in row["scores"])]))
    cells = [
        [row["system"], *_printed(row["scores"], names), row["split"], f"{row['source']} ({row['grade']})", row["note"]]
        for row in rows
    ]
    lines = ["## Published", "", "Printed by others, not measured here.", ""]
    lines += _markdown(["system"], [*names, "split", "source (grade)", "note"], cells)
    for metric in dict.fromkeys(name for row in rows for name in row["targets"]):
        some = [(row["system"], row["targets"][metric]) for row in rows if metric in row["targets"]]
        targets = list(dict.fromkeys(target for _, values in some for target in values))
        lines += ["", f"{metric}, one by one:", ""]
        lines += _markdown(["system"], targets, [[system, *_printed(values, targets)] for system, values in some])
    same = [row["system"] for row in rows if row["same_rule"]]
    other = [row["system"] for row in rows if not row["same_rule"]]
    lines += ["", f"- by the split rule of this report: {'; '.join(same) or 'none'}"]
    lines += [f"- on another split, or one that cannot be told to be this: {'; '.join(other) or 'none'}"]
    lines += ["- grade: A read in the primary source, B quoted by others, C an abstract or implausible"]
    return [*lines, "- a rule is this report's where it has the name; whether all clips are there, the counts tell", ""]


def section(title: str, numbers: Numbers, note: str) -> list[str]:
    """Lines of a further table under its own title."""
    return [f"## {title}", "", *table(numbers), *differences(numbers), *([note, ""] if note else [])]


def markdown(numbers: Numbers, pictures: Mapping[str, str]) -> str:
    """A report: tables, pictures, published rows, protocol block.

    Args:
        numbers: of `triptych.evaluation.results`.
        pictures: file in figures/ -> what it shows.
    """
    shown = [line for name, title in pictures.items() for line in (f"![{title}](figures/{name})", "")]
    lines = [f"# {numbers['title']}", "", *table(numbers), *differences(numbers), *details(numbers), *shown]
    return "\n".join([*lines, *published(numbers), *_protocol(numbers["protocol"]), ""])


def show(numbers: Numbers) -> None:
    """Print the table of systems and their paired differences."""
    names = numbers["protocol"]["metrics"]
    printed = Table(title=numbers["title"])
    printed.add_column("system")
    printed.add_column("inputs")
    for name in names:
        printed.add_column(f"{name} %" if _percent(numbers, name) else name, justify="right")
    for row in numbers["systems"]:
        printed.add_row(*map(Text, (row["system"], row["inputs"], *_cells(numbers, row["metrics"]))))
    console = Console()
    console.print(printed)
    for row in numbers["differences"]:
        told = ", ".join(f"{name} {cell}" for name, cell in zip(names, _cells(numbers, row["metrics"], "+")))
        console.print(f"{row['first']} − {row['second']}: {told}", markup=False)


def _markdown(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose last columns are numbers, but for those that are known to be words."""
    words = (*left, "chosen on valid", "split", "source (grade)", "note")
    head = (*left, *right)
    return table_lines(head, "".join("l" if name in words else "r" for name in head), rows)


def _printed(values: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{values[name]:g}" if name in values else "–" for name in names]


def _percent(numbers: Numbers, name: str) -> bool:
    return name in numbers["protocol"].get("percent", numbers["protocol"]["metrics"])


def _cells(numbers: Numbers, entries: Mapping[str, Any], sign: str = "") -> list[str]:
    return [cell(entries[name], _percent(numbers, name), sign) for name in numbers["protocol"]["metrics"]]


def cell(entry: Mapping[str, Any], percent: bool, sign: str = "") -> str:
    if "value" not in entry:
        return "undefined"
    text = number(entry["value"], percent, sign)
    text += f" ± {number(entry['std'], percent)}" if "std" in entry else ""
    if "low" not in entry:
        return text
    return f"{text} [{number(entry['low'], percent, sign)}, {number(entry['high'], percent, sign)}]"


def _folds(numbers: Numbers) -> list[str]:
    """The scores within each fold, whose mean is what papers on cross-validation mostly print."""
    names = numbers["protocol"]["metrics"]
    select = numbers["protocol"].get("select", names[0])
    rows = []
    for row in numbers["systems"]:
        found = {name: row["metrics"][name].get("folds", {}) for name in names}
        if any(found.values()):
            means = [
                f"{number(one['mean'], _percent(numbers, name))} ± {number(one['std'], _percent(numbers, name))}"
                if "mean" in one
                else "undefined"
                for name, one in found.items()
            ]
            each = [number(value, _percent(numbers, select)) for value in found[select].get("values", {}).values()]
            rows.append([row["system"], row["inputs"], *means, ", ".join(each) or found[select].get("undefined", "")])
    if not rows:
        return []
    folds = numbers["protocol"]["folds"]
    lines = [f"### Within each of {len(folds)} folds", ""]
    lines += _markdown(["system", "inputs"], [*names, f"{select} by fold"], rows)
    lines += ["", "Mean ± standard deviation over folds. The table above scores the clips of all folds together.", ""]
    return lines


def _reading(numbers: Numbers) -> str:
    names = numbers["protocol"]["metrics"]
    plain = [name for name in names if not _percent(numbers, name)]
    series = numbers["protocol"].get("kind") == "series"
    text = "" if len(plain) == len(names) else "Percent" + (f", but {' and '.join(plain)}. " if plain else ". ")
    text += f"In brackets: 95 % bootstrap interval over test {'recordings' if series else 'clips'}."
    if any("std" in row["metrics"][name] for row in numbers["systems"] for name in names):
        text += " Where there are several seeds: mean ± standard deviation over seeds."
    if numbers["protocol"].get("kind", "classes") == "classes":
        text += " WA is the overall accuracy, UA the mean recall over classes."
    return text


def _protocol(block: Mapping[str, Any]) -> list[str]:
    told = {name: "; ".join(said) if isinstance(said, list) else said for name, said in block["split_rule"].items()}
    drawn = ", ".join(f"{name} {said}" for name, said in told.items() if said != "") or "as found"
    units = "recordings" if block["kind"] == "series" else "clips"
    lines = [
        "## Protocol",
        "",
        f"- protocol: {block['name']}; label `{block['label']}`; {block['said']}",
        f"- split: {block['rule'] or drawn}; SHA-256 of the sorted (key, split) list `{block['split_sha256']}`",
        *([f"- shard set: {drawn}"] if block["rule"] else []),
        f"- selection: {block['selection']}",
        *([f"- decision threshold: {block['threshold']}"] if block["threshold"] else []),
        f"- intervals: 95 %, percentile bootstrap over test {units}, {block['num_resamples']} resamples",
        *(f"- {name}: {value}" for name, value in block["facts"].items()),
        *([f"- note: {block['note']}"] if block["note"] else []),
    ]
    if block["folds"]:
        held = ", ".join(f"{name} ({count})" for name, count in block["folds"].items())
        lines.append(f"- folds, with the {units} that each holds out: {held}")
    columns = list(block["splits"]["test"]["counts"])
    rows = [
        [name, str(one["clips"]), *(one["counts"][column] for column in columns), str(one["left_out"])]
        for name, one in block["splits"].items()
    ]
    lines += ["", *_markdown(["split"], [units, *columns, "left out"], rows), ""]
    return [*lines, "Left out: clips without the label, or of a class that is not listed."]
