"""Text stays text: on the command line, in files, in lists and mappings, whatever YAML 1.1 would make of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from shards.write import WriteConfig
from triptych import config, typed_yaml
from triptych.config import UserError, load

GUESSED = [
    "01", "012", "007", "0123", "0x1F", "0b11", "1_000", "2026_11_30", "1e3", "1.0e+3", "3.10", "-0", "+1", ".5", "1.",
    ".inf", ".NaN", "12:30:00", "1:30", "no", "No", "NO", "yes", "on", "Off", "true", "False", "y", "n", "2026-11-30",
    "2026-11-30 12:00:00", "=", "<<", "null", "~",
]  # fmt: skip
"""What YAML 1.1 takes for a number, a switch, a time, nothing or a mark."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    words: list[str] = field(default_factory=list)
    number: int = 1
    pair: tuple[str, int] = ("a", 1)


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str = "x"
    maybe: str | None = "x"
    inner: Inner = field(default_factory=Inner)
    keep: dict[str, list[str]] = field(default_factory=dict)
    map: dict[str, str] = field(default_factory=dict)
    inners: dict[str, Inner] = field(default_factory=dict)
    rate: float = 0.5
    switch: bool = False
    number: int | None = None
    anything: dict[str, Any] = field(default_factory=dict)
    order: Literal["on", "off"] = "on"


def of_file(folder: Path, text: str) -> Run:
    path = folder / "run.yaml"
    path.write_text(text)
    return load(Run, path)


@pytest.mark.parametrize("typed", GUESSED)
def test_a_text_is_what_was_typed(tmp_path: Path, typed: str) -> None:
    runs = [
        load(Run, {}, [f"name={typed}", f"inner.words=[{typed}, a]", f"keep.statement=[{typed}]", f"map.a={typed}"]),
        of_file(
            tmp_path,
            f"name: {typed}\ninner:\n  words: [{typed}, a]\nkeep: {{statement: [{typed}]}}\nmap:\n  a: {typed}\n",
        ),
    ]
    for run in runs:
        assert (run.name, run.inner.words, run.keep, run.map) == (
            typed, [typed, "a"], {"statement": [typed]}, {"a": typed},
        )  # fmt: skip


@pytest.mark.parametrize("typed", [text for text in GUESSED if text not in ("null", "~")])
def test_a_text_that_may_be_missing_too_and_a_saved_config_keeps_it(tmp_path: Path, typed: str) -> None:
    run = load(Run, {}, [f"maybe={typed}", f"inners.a.words=[{typed}]"])
    assert (run.maybe, run.inners["a"].words) == (typed, [typed])
    assert of_file(tmp_path, f"maybe: {typed}\n").maybe == typed

    config.save(run, tmp_path / "saved.yaml")
    assert load(Run, tmp_path / "saved.yaml") == run


def test_keys_are_text_too(tmp_path: Path) -> None:
    assert of_file(tmp_path, "keep: {no: [01], 012: [on]}").keep == {"no": ["01"], "012": ["on"]}
    with pytest.raises(UserError, match="given twice"):
        of_file(tmp_path, "map: {no: a, no: b}")


def test_nothing_is_nothing_where_it_may_be(tmp_path: Path) -> None:
    for nothing in ("null", "~"):
        assert load(Run, {}, [f"maybe={nothing}"]).maybe is None
        assert of_file(tmp_path, f"maybe: {nothing}").maybe is None
    assert of_file(tmp_path, "maybe:").maybe is None
    assert load(Run, {}, ["name="]).name == ""


@pytest.mark.parametrize(
    "typed",
    ["a: b", "[draft] 1", "{x}", "a #b", "*", "&a", "!x", "%", "- a", "1,2", "a\tb", "é", "'", '"', "\\n", "|", "@x"],
)
def test_a_value_of_the_command_line_need_not_be_yaml(typed: str) -> None:
    assert load(Run, {}, [f"name={typed}"]).name == typed


def test_quotes_are_for_yaml_and_fall_away() -> None:
    run = load(Run, {}, ["name='01'", 'maybe="null"', "inner.words=['no', \"a, b\"]"])
    assert (run.name, run.maybe, run.inner.words) == ("01", "null", ["no", "a, b"])


def test_other_types_are_read_as_before(tmp_path: Path) -> None:
    run = load(
        Run, {}, ["rate=1e-3", "switch=on", "number=1_000", "inner.pair=[no, 3]", "anything.a=[1, no]", "order=off"]
    )
    assert (run.rate, run.switch, run.number, run.inner.pair) == (0.001, True, 1000, ("no", 3))
    assert (run.anything, run.order) == ({"a": [1, False]}, "off")
    assert of_file(tmp_path, "rate: 1e-3\nnumber: null\nanything: {a: 2}\norder: off").rate == 0.001


def test_anchors_and_merges_keep_text(tmp_path: Path) -> None:
    run = of_file(tmp_path, "inners:\n  a: &a {words: [no], number: 3}\n  b: {<<: *a, number: 4}\n")
    assert run.inners == {"a": Inner(words=["no"], number=3), "b": Inner(words=["no"], number=4)}


def test_a_date_where_no_text_is_wanted_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rate"):
        of_file(tmp_path, "rate: 2026-11-30")


def test_a_base_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "007").write_text("name: 1e3")
    assert of_file(tmp_path, "base: 007").name == "1e3"


@pytest.mark.parametrize(
    ("schema", "path", "expected"),
    [
        (Run, "name", str),
        (Run, "inners.x.words", list[str]),
        (Run, "keep.statement", list[str]),
        (Run, "no.such", Any),
        (Mapping[str, Sequence[str]], "a", Sequence[str]),
        (Inner | None, "number", int),
    ],
)
def test_the_type_of_a_field(schema: Any, path: str, expected: Any) -> None:
    assert typed_yaml.type_at(schema, path.split(".")) == expected


def test_without_a_schema_yaml_decides() -> None:
    assert typed_yaml.read("a: [01, no, x]", Any) == {"a": [1, False, "x"]}
    with pytest.raises(yaml.YAMLError):
        typed_yaml.read("a: !!python/name:os.system", Any)


def test_a_filter_of_writing_takes_what_was_typed() -> None:
    overrides = ["keep.statement=[01]", "keep.language=[no, en]", "out=2026_11_30", "corpus.ravdess.root=x"]
    written = load(WriteConfig, {}, overrides)
    assert written.keep == {"statement": ["01"], "language": ["no", "en"]}
    assert written.out == "2026_11_30"


@dataclass(frozen=True, kw_only=True)
class Outer:
    overrides: dict[str, Any] = field(default_factory=dict, metadata={typed_yaml.SCHEMA: Run})


def test_a_mapping_that_is_a_part_of_another_config_is_read_by_its_types(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("overrides: {name: 3.10, inner: {words: [no], number: 3}, rate: 0.1}")
    expected = {"name": "3.10", "inner": {"words": ["no"], "number": 3}, "rate": 0.1}
    assert load(Outer, path).overrides == expected
    overrides = ["overrides.name=3.10", "overrides.inner={words: [no], number: 3}", "overrides.rate=0.1"]
    assert load(Outer, {}, overrides).overrides == expected
