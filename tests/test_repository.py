"""What must not be in the repository: large files, a machine's paths, registries, and ways to run what a file says."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe", "benchmarks")
MAX_BYTES = 1_000_000
MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home|Users|mnt)/\w|--?(?:extra-)?index-url|--find-links|://[^\s/]*@")
HERE = Path(__file__).name
"""This file names what it forbids."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def dangers(source: str) -> Iterator[str]:
    """`line: what` for every call that runs or unpickles what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: import {name}" for name in named if name in _MODULES)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in _CALLS
                or (name == "torch.load" and given.get("weights_only") != "True")
                or given.get("allow_pickle", "False") != "False"
                or given.get("shell", "False") != "False"
                or given.get("trust_remote_code", "False") != "False"
            ):
                yield f"{node.lineno}: {name}"


_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib"}
_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}


def test_no_file_is_large() -> None:
    assert [str(file) for file in tracked() if file.stat().st_size > MAX_BYTES] == []


def test_no_path_of_a_machine_and_no_registry() -> None:
    found = []
    for file in tracked():
        if file.name == HERE:
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
            if MACHINE.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize("line", ["root: /home/me/data", "'/work/x'", "-e --index-url x", "https://u:p@host/x"])
def test_a_path_of_a_machine_is_found(line: str) -> None:
    assert MACHINE.search(line)


def test_nothing_runs_what_a_file_says() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 10
    assert [f"{file.relative_to(ROOT)}:{danger}" for file in files for danger in dangers(file.read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
    ],
)
def test_what_runs_a_file_is_found(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_plain_loads_are_allowed() -> None:
    source = "model.eval(); torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.safe_load(t)"
    assert list(dangers(source)) == []
