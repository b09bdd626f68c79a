"""Every shipped config says what it is and loads strictly; no field of any schema is dead."""

import ast
import dataclasses
import functools
import importlib
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych import config

ROOT = Path(__file__).parents[1]
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe")
SCHEMAS = {
    "shards": "shards.write:WriteConfig",
    "transcribe": "shards.transcribe:TranscribeConfig",
    "pretrain": "pretrain.config:PretrainConfig",
    "linear_probe": "linear_probe.config:ProbeConfig",
    "encoder": "shards.reading.encoders:EncoderConfig",
    "finetune": "finetune.config:FinetuneConfig",
    "search": "finetune.search.config:SearchConfig",
    "ablation": "finetune.ablation:AblationConfig",
}
FILES = sorted((ROOT / "configs").glob("*/*.yaml"))
HEADER = ("command", "hardware", "time", "expect")


def schema(stage: str) -> type:
    module, name = SCHEMAS[stage].split(":")
    return getattr(importlib.import_module(module), name)


def header(text: str) -> dict[str, str]:
    """`# name: value` lines above the first key; a value may go on until an empty one. Hours are a time."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line[1:].strip()
        start, separator, value = said.partition(":")
        start = start.lower().replace("hours", "time")
        if not said:
            name = ""
        if separator and start in HEADER:
            name, said = start, value.strip()
        found[name] = f"{found.get(name, '')} {said}".strip()
    return found


@pytest.mark.parametrize("stage", SCHEMAS)
def test_every_stage_ships_configs(stage: str) -> None:
    assert [file for file in FILES if file.parent.name == stage]


def test_every_config_belongs_to_a_stage() -> None:
    assert {file.parent.name for file in FILES} <= SCHEMAS.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_header_says_command_hardware_time_and_what_to_expect(file: Path) -> None:
    said = header(file.read_text())
    assert [name for name in HEADER if not said.get(name)] == []
    assert file.parent.name in said["command"]
    assert file.stem in said["command"]


def overrides(command: str) -> list[str]:
    """The `a.b=c` words of a header's command."""
    return re.findall(r"(?<=\s)[\w.]+=\S+", command)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_command_in_the_header_fits_the_schema(file: Path) -> None:
    given = overrides(header(file.read_text())["command"])
    if file.parent.name == "encoder":  # it is read by a probe, which the overrides are for
        config.load(schema("encoder"), file)
        config.load(schema("linear_probe"), config.find("ravdess", "linear_probe"), given)
    elif file.parent.name == "ablation":  # the overrides are the fine-tuning's, and so are those of its rows
        bases = [base for base in FILES if base.parent.name == "finetune"]
        named = [base for base in bases if base.stem in re.findall(r"\w+", header(file.read_text())["command"])]
        assert named
        for base in named:
            for row in config.load(schema("ablation"), file).rows.values():
                config.load(schema("finetune"), base, [*given, *row])
    else:
        config.load(schema(file.parent.name), file, given)


def dataclasses_below(root: type) -> Iterator[type]:
    """A schema and every dataclass that its fields hold, each once."""
    seen: set[type] = set()
    waiting: list[typing.Any] = [root]
    while waiting:
        kind = waiting.pop()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind not in seen:
            seen.add(kind)
            yield kind
            waiting += typing.get_type_hints(kind).values()
        waiting += typing.get_args(kind)


def is_choice(kind: type) -> bool:
    """A choice (config.check_one_of): only optional dataclasses, read through `config.chosen`, never by name."""
    return all(
        isinstance(hint, types.UnionType) and any(dataclasses.is_dataclass(one) for one in typing.get_args(hint))
        for hint in typing.get_type_hints(kind).values()
    )


@functools.cache
def names_read(sources: tuple[str, ...]) -> set[str]:
    """Names read as an attribute, or listed for getattr as in `for split in ("train", "valid")`.

    What a dataclass does itself in __post_init__ does not count: a check of a value does not use it.
    """
    names = set()
    for source in sources:
        tree = ast.parse(source)
        checks = [node for node in ast.walk(tree) if getattr(node, "name", "") == "__post_init__"]
        ignored = {id(node) for check in checks for node in ast.walk(check)}
        for node in ast.walk(tree):
            if id(node) in ignored:
                continue
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            elif isinstance(node, ast.Tuple | ast.List):
                names |= {item.value for item in node.elts if isinstance(item, ast.Constant)}
    return names


def dead_fields(root: type, sources: tuple[str, ...]) -> list[str]:
    read = names_read(sources)
    return [
        f"{kind.__module__}.{kind.__name__}.{field.name}"
        for kind in dataclasses_below(root)
        if not is_choice(kind)
        for field in dataclasses.fields(kind)
        if field.name not in read
    ]


@pytest.mark.parametrize("stage", SCHEMAS)
def test_every_field_is_read(stage: str) -> None:
    sources = tuple(file.read_text() for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    assert dead_fields(schema(stage), sources) == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    used: int = 0
    only_checked: int = 0
    dead: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    first: Inner | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    choice: Choice
    many: dict[str, Inner] = dataclasses.field(default_factory=dict)
    written: int = 0


def test_a_dead_field_is_found() -> None:
    source = """
        class Inner:
            def __post_init__(self):
                assert self.only_checked >= 0
                assert all(getattr(self, name) >= 0 for name in ("only_checked", "dead"))
        def use(config):
            print([getattr(config, name) for name in ("many", "choice")])
            config.written = config.choice.first.used
        """
    dead = dead_fields(Planted, (textwrap.dedent(source),))
    assert sorted(name.split(".", 1)[1].split(".")[-1] for name in dead) == ["dead", "only_checked", "written"]


def test_a_header_is_read() -> None:
    text = (
        "# Demo.\n# command: python -m pretrain demo\n# hours: 0.1\n#   on two cores\n#\n# More.\nseed: 1\n# time: 9\n"
    )
    assert header(text) == {"": "Demo. More.", "command": "python -m pretrain demo", "time": "0.1 on two cores"}
    assert overrides("python -m pretrain demo out=<folder> a.b=1e-3") == ["out=<folder>", "a.b=1e-3"]
