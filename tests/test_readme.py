"""README's tree is the house as it is: what it names is there, and what is there on the top two floors is named."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("triptych", "shards", "pretrain", "finetune", "linear_probe")
NAMED_WHOLE = (*PACKAGES, "configs", "slurm", "docs")
"""Folders whose every file and folder is named; of the others one line says what is in them."""
MOST_SIDE_BY_SIDE = 16
NAME = re.compile(r"[\w.-]+(?:\.py|\.md|\.sbatch|/)")


def tree(readme: str) -> list[tuple[str, list[str], str]]:
    """(folder, names, text) of each line of the tree, lines that go on joined; a top folder lies in ""."""
    block = re.search(r"## The tree\n\n```\n(.*?)```", readme, re.DOTALL)
    assert block
    found: list[tuple[str, list[str], str]] = []
    top = ""
    for line in block[1].splitlines():
        indent = len(line) - len(line.lstrip())
        head, _, text = line.strip().partition("  ")
        names = head.split(" ")
        if indent <= 2 and all(NAME.fullmatch(name) for name in names):
            top = names[0] if indent == 0 else top
            found.append((top if indent else "", names, text.strip()))
        else:  # it goes on with the text of the line above
            folder, names, text = found[-1]
            found[-1] = (folder, names, f"{text} {line.strip()}")
    return found


def missing(readme: str, root: Path) -> list[str]:
    """What the tree names and the house has not."""
    gone = []
    for folder, names, text in tree(readme):
        gone += [folder + name for name in names if not (root / folder / name).exists()]
        rooms = [root / folder / name for name in names if name.endswith("/")]
        for name in re.findall(r"[\w-]+(?:\.py|/)", text):
            if rooms and not any(list(room.rglob(name.rstrip("/"))) for room in rooms):
                gone.append(f"{folder}{' '.join(names)}: {name}")
    return gone


def unnamed(readme: str, tracked: list[str]) -> list[str]:
    """Tracked files and folders of the top two floors that the tree does not name."""
    named = {folder + name for folder, names, _ in tree(readme) for name in names}
    there = set()
    for path in tracked:
        top, *rest = path.split("/")
        if rest:
            there.add(top + "/")
        if top in NAMED_WHOLE and rest:
            there.add(f"{top}/{rest[0]}" + ("/" if len(rest) > 1 else ""))
    return sorted(there - named - {f"{package}/__init__.py" for package in PACKAGES})


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if not name.startswith(".")]


def test_what_the_tree_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(tree(readme)) > 20
    assert missing(readme, ROOT) == []


def test_the_top_two_floors_are_named() -> None:
    assert unnamed((ROOT / "README.md").read_text(), tracked()) == []


def test_few_files_lie_side_by_side_at_the_top() -> None:
    for package in PACKAGES[:2]:
        files = [name for name in tracked() if re.fullmatch(rf"{package}/[^/]+\.py", name)]
        assert 5 < len(files) <= MOST_SIDE_BY_SIDE, files


def test_a_name_too_many_and_one_too_few_are_found(tmp_path: Path) -> None:
    lines = ["shards/    clips", "  read.py gone.py    loaders", "  media/   decode.py; no.py:", "      far.py too"]
    readme = "\n".join(["## The tree", "", "```", *lines, "```"])
    (tmp_path / "shards" / "media").mkdir(parents=True)
    for name in ("read.py", "media/decode.py"):
        (tmp_path / "shards" / name).touch()
    assert missing(readme, tmp_path) == ["shards/gone.py", "shards/media/: no.py", "shards/media/: far.py"]
    files = ["shards/read.py", "shards/write.py", "shards/media/decode.py", "shards/words/words.py", "tests/a.py"]
    assert unnamed(readme, files) == ["shards/words/", "shards/write.py", "tests/"]
