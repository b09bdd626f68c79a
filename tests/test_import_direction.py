"""Who may import whom: triptych <- shards <- pretrain | finetune | linear_probe."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "triptych": set(),
    "shards": {"triptych"},
    "pretrain": {"triptych", "shards"},
    "finetune": {"triptych", "shards"},
    "linear_probe": {"triptych", "shards"},
}


def sources(root: Path) -> dict[str, Path]:
    """Module name -> file of every module of the packages."""
    modules = {}
    for package in ALLOWED:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


def imports(tree: ast.AST) -> Iterator[tuple[int, str, list[str]]]:
    """Line, module and imported names of every import, late ones and import_module("...") included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            yield from (
                (node.lineno, argument.value, [])
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def violations(root: Path) -> list[str]:
    """Every import against the direction, and every relative one, as `file:line: what`."""
    found = []
    for name, file in sources(root).items():
        own = name.split(".")[0]
        for line, module, _ in imports(ast.parse(file.read_text())):
            where = f"{file.relative_to(root)}:{line}"
            target = module.split(".")[0]
            if module.startswith("."):
                found.append(f"{where}: relative import of {module}")
            elif target in ALLOWED and target != own and target not in ALLOWED[own]:
                found.append(f"{where}: {own} may not import {module}")
    return found


class _WhenLoaded(ast.NodeTransformer):
    """Leaves out what does not run when a module is loaded: functions, and imports for the type checker alone."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test).endswith("TYPE_CHECKING") else node


def cycle(root: Path) -> list[str]:
    """Modules that import each other in a ring when they are loaded, or nothing."""
    modules = sources(root)
    graph: dict[str, list[str]] = {}
    for name, file in modules.items():
        tree = _WhenLoaded().visit(ast.parse(file.read_text()))
        targets = set()
        for _, module, names in imports(tree):
            inner = {f"{module}.{name}" for name in names} & modules.keys()
            targets |= inner or ({module} & modules.keys())
        graph[name] = sorted(targets)
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        ring = next((ring for target in graph[module] if (ring := visit(target, [*path, module]))), [])
        finished.add(module)
        return ring

    return next((ring for module in graph if (ring := visit(module, []))), [])


def plant(root: Path, **files: str) -> Path:
    """A house with these modules (`pretrain__train="import finetune"`) and nothing else."""
    for package in ALLOWED:
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    for name, text in files.items():
        (root / name.replace("__", "/")).with_suffix(".py").write_text(text)
    return root


def test_every_import_follows_the_direction() -> None:
    assert len(sources(ROOT)) > 10
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("pretrain__train", "def late():\n    from finetune.heads import Head\n"),
        ("linear_probe__fit", "import pretrain"),
        ("shards__read", "if True:\n    import pretrain.train as train"),
        ("triptych__batch", "from shards.record import Word"),
        ("triptych__trainer", "import importlib\nimportlib.import_module('shards.reading.read')"),
        ("shards__write", "from . import record"),
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path: Path, module: str, text: str) -> None:
    assert len(violations(plant(tmp_path, **{module: text}))) == 1


def test_no_two_modules_import_each_other() -> None:
    assert cycle(ROOT) == []


def test_a_ring_is_found(tmp_path: Path) -> None:
    ring = {"shards__a": "import shards.b", "shards__b": "from shards import c", "shards__c": "from shards.a import x"}
    assert set(cycle(plant(tmp_path, **ring))) == {"shards.a", "shards.b", "shards.c"}
    for late in ("def late():", "if TYPE_CHECKING:"):
        (tmp_path / "shards" / "c.py").write_text(f"{late}\n    from shards.a import x\n")
        assert cycle(tmp_path) == []
    (tmp_path / "shards" / "c.py").write_text("if True:\n    from shards.a import x\n")
    assert cycle(tmp_path) != []


def test_nothing_happens_at_the_import_of_a_package() -> None:
    full = [str(file) for name, file in sources(ROOT).items() if file.name == "__init__.py" and file.read_text()]
    assert full == []


@pytest.mark.parametrize("module", ["shards.write", "shards.check", "shards.record"])
def test_writing_shards_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr or f"import {module} loads torch"


FLOORS = (
    ("triptych.labels", "triptych.modalities", "triptych.provenance", "triptych.typed_yaml", "shards.progress"),
    ("triptych.config", "triptych.batch"),
    ("triptych.text_files", "triptych.refusals", "triptych.protocols", "shards.files"),
    ("triptych.files", "shards.record"),
    ("triptych.models", "triptych.training", "triptych.evaluation", "shards.media"),
    ("triptych.score", "triptych.report", "triptych.release", "shards.features"),
    ("shards.words",),
    ("shards.transcripts",),
    ("shards.reading",),
    ("shards.counts", "shards.divisions"),
    ("shards.writing", "shards.pictures"),
    ("shards.corpora", "shards.asr"),
    ("shards.merge", "shards.check", "shards.show", "shards.attention", "shards.vocabulary"),
    ("shards.write", "shards.add_features", "shards.transcribe", "shards.look_alike", "shards.convert_pickle"),
    ("shards.overlap",),
    ("shards.__main__",),
)
"""Rooms and files of `triptych` and `shards` from the ground up: each imports from lower floors, and from itself."""
STAIRS = {
    ("triptych.config", "triptych.text_files"): "reads its files; what is no text is told by config's own UserError"
}
"""Arrows upward that are meant, each with its reason; none when a module is loaded."""


def arrows(root: Path) -> set[tuple[str, str]]:
    """Room -> room of every import between rooms, late ones included; a file at the top is a room of its own."""
    modules = sources(root)
    found = set()
    for name, file in modules.items():
        for _, module, names in imports(ast.parse(file.read_text())):
            targets = {f"{module}.{inner}" for inner in names} & modules.keys() or {module} & modules.keys()
            found |= {(_room(name), _room(target)) for target in targets}
    return {(start, end) for start, end in found if start != end and "." in start and "." in end}


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def upward(pairs: set[tuple[str, str]]) -> list[str]:
    """The arrows that do not lead to a lower floor, and rooms that stand on none."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    ours = [pair for pair in pairs if pair[0].startswith(("triptych.", "shards.")) and pair not in STAIRS]
    homeless = {room for pair in ours for room in pair if room not in floor}
    rising = [f"{start} -> {end}" for start, end in ours if not homeless & {start, end} and floor[start] <= floor[end]]
    return sorted([*rising, *(f"{room} is on no floor: add it to FLOORS" for room in homeless)])


def test_no_arrow_between_rooms_leads_upward() -> None:
    found = arrows(ROOT)
    assert len(found) > 60
    assert upward(found) == []
    assert set(STAIRS) <= found


def test_an_arrow_upward_and_a_new_room_are_named(tmp_path: Path) -> None:
    root = plant(tmp_path, shards__record="import shards.corpora", shards__cellar="import triptych.config")
    (root / "shards" / "corpora.py").touch()
    (root / "triptych" / "config.py").touch()
    assert upward(arrows(root)) == [
        "shards.cellar is on no floor: add it to FLOORS", "shards.record -> shards.corpora",
    ]  # fmt: skip
