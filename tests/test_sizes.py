"""Nothing in the packages is longer than a sitting; the five largest are printed at the end of the run."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe", "benchmarks")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8

Size = tuple[int, str]


def files(root: Path) -> list[Path]:
    return [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in files(root):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(root)}:{node.lineno} {node.name}", node


def file_lines(root: Path) -> list[Size]:
    return [(len(file.read_text().splitlines()), str(file.relative_to(root))) for file in files(root)]


def function_lines(root: Path) -> list[Size]:
    return [((node.end_lineno or 0) - node.lineno + 1, name) for name, node in functions(root)]


def parameters(root: Path) -> list[Size]:
    sizes = []
    for name, node in functions(root):
        given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        sizes.append((len([argument for argument in given if argument not in ("self", "cls")]), name))
    return sizes


def too_large(sizes: list[Size], most: int) -> list[Size]:
    return [size for size in sizes if size[0] > most]


def check(measure: Callable[[Path], list[Size]], what: str, most: int, record_property: Callable[..., None]) -> None:
    sizes = sorted(measure(ROOT), reverse=True)
    assert len(sizes) > 5
    record_property("measured", "\n".join([f"largest {what}:", *(f"  {size:4} {name}" for size, name in sizes[:5])]))
    assert too_large(sizes, most) == []


def test_files(record_property) -> None:
    check(file_lines, "files (lines)", MAX_FILE_LINES, record_property)


def test_functions(record_property) -> None:
    check(function_lines, "functions (lines)", MAX_FUNCTION_LINES, record_property)


def test_parameters(record_property) -> None:
    check(parameters, "functions (parameters)", MAX_PARAMETERS, record_property)


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    long = "class A:\n    def long(self, a, b, c, d, /, e, f, *, g, h, i):\n" + "        pass\n" * 60
    (tmp_path / "shards" / "a.py").write_text(long + "\n" * 400)
    assert too_large(file_lines(tmp_path), MAX_FILE_LINES) == [(462, "shards/a.py")]
    assert too_large(function_lines(tmp_path), MAX_FUNCTION_LINES) == [(61, "shards/a.py:2 long")]
    assert too_large(parameters(tmp_path), MAX_PARAMETERS) == [(9, "shards/a.py:2 long")]
