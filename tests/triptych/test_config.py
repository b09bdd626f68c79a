from dataclasses import dataclass
from typing import Literal

import pytest

from triptych import config


@dataclass(frozen=True, kw_only=True)
class Loader:
    batch_size: int = 4
    rate: float = 0.5
    order: Literal["shuffled", "fixed"] = "shuffled"

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"loader.batch_size: {self.batch_size} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Choice:
    first: Loader | None = None
    second: Loader | None = None

    def __post_init__(self):
        config.check_one_of(self, "choice")


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    choice: Choice
    loader: Loader = Loader()


FIRST = Choice(first=Loader())


def write(path, text):
    path.write_text(text)
    return path


def test_file_then_overrides_give_the_frozen_dataclass(tmp_path):
    path = write(tmp_path / "run.yaml", "name: a\nchoice: {first: {}}\nloader: {batch_size: 8, rate: 1e-3}\n")
    run = config.load(Run, path, ["loader.batch_size=16", "name=b"])
    assert run == Run(name="b", choice=FIRST, loader=Loader(batch_size=16, rate=0.001))


def test_a_base_is_read_first(tmp_path):
    write(tmp_path / "base.yaml", "name: a\nchoice: {first: {}}\nloader: {batch_size: 8, rate: 0.25}\n")
    path = write(tmp_path / "run.yaml", "base: base.yaml\nloader: {rate: 0.75}\n")
    assert config.load(Run, path) == Run(name="a", choice=FIRST, loader=Loader(batch_size=8, rate=0.75))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name: a\nloader: {batchsize: 8}\n", [], r"loader\.batchsize.*Did you mean: 'batch_size'"),
        ("name: a\nloader: {batch_size: many}\n", [], r"loader\.batch_size.*many"),
        ("name: a\nloader: {order: random}\n", [], r"loader\.order.*shuffled"),
        ("name: a\nname: b\n", [], "given twice"),
        ("loader: {}\n", [], "required and not given: .*name"),
        ("name: ${oc.env:HOME}\n", [], "interpolation"),
        ("name: a\n", ["name=${oc.env:HOME}"], "interpolation"),
        ("name: a\n", ["loader.batch_size"], "expected key.path=value"),
        ("name: a\nchoice: {first: {}}\n", ["loader.batch_size=0"], "at least 1"),
        ("name: a\nchoice: {second: {}}\n", [], None),
        ("name: a\nchoice: {first: {}, second: {}}\n", [], "exactly one of first, second"),
        ("- a\n", [], "mapping"),
        ("name: !!python/object/apply:os.getcwd []\n", [], "could not determine a constructor"),
    ],
)
def test_a_wrong_config_is_refused_with_the_path_and_the_way_out(tmp_path, text, overrides, message):
    path = write(tmp_path / "run.yaml", text)
    if message is None:
        assert config.load(Run, path, overrides).choice.second == Loader()
        return
    with pytest.raises(config.UserError, match=message) as caught:
        config.load(Run, path, overrides)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value) or "given twice" in str(caught.value) or "constructor" in str(caught.value)


def test_saved_config_loads_back_equal(tmp_path):
    run = Run(name="a", choice=FIRST, loader=Loader(batch_size=2))
    config.save(run, tmp_path / "config.yaml")
    assert config.load(Run, tmp_path / "config.yaml") == run


def test_missing_config_names_the_shipped_ones():
    with pytest.raises(config.UserError, match="neither a file nor a shipped config of pretrain"):
        config.find("khara", "pretrain")


def test_an_override_that_is_no_yaml_is_told_as_such() -> None:
    with pytest.raises(config.UserError, match=r"override 'loader.rate=\[1,': the value is no YAML") as error:
        config.load(Run, {}, ["loader.rate=[1,"])
    assert "\n" not in str(error.value)


def test_a_flat_config_has_every_value_by_its_path_and_keeps_what_is_empty():
    values = {
        "trainer": {"max_steps": 5, "sizes": (1, 2)},
        "words": {},
        "head": {"linear": {"pooled": ["audio"]}},
    }
    assert config.flatten(values) == {
        "trainer.max_steps": 5,
        "trainer.sizes": [1, 2],
        "words": {},
        "head.linear.pooled": ["audio"],
    }
