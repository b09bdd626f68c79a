"""Tables in Markdown: the one writer of them."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table.

    Args:
        head: its columns.
        align: a letter a column, "l" for words and "r" for numbers.
        rows: cells as text; a "|" in one, which would end it, becomes "/".
    """
    assert len(head) == len(align), f"{len(head)} columns, {len(align)} letters"
    marks = {"l": "---", "r": "---:"}
    lines = [_line(head), f"|{'|'.join(marks[letter] for letter in align)}|"]
    return [*lines, *(_line([cell.replace("|", "/") for cell in row]) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
