"""Text files of other programs: marks, codes, and that nothing reads a user's file past the one helper."""

import ast
import codecs
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.label_file import _rows
from shards.corpora.folds import read as read_folds
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.divisions.divisions import read_list
from shards.overlap import _of_list
from shards.transcripts import kaldi_ctm, sphinx_wdseg, textgrid, whisper_json
from shards.words import glove
from shards.words.words import read_counts
from shards.writing.assign import read_exclude
from triptych.config import UserError
from triptych.config import read as read_config
from triptych.text_files import decode_text, open_text, read_text

ROOT = Path(__file__).parents[2]

GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
1
"IntervalTier"
"words"
0
1
1
0
1
"é"
"""


def genders(path: Path) -> Any:
    return VoxCeleb2Config(root=str(path.parent), metadata=path.name)._genders(path.parent)


READERS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "exclude": (read_exclude, "list.txt", "é1-b_c0\nb\n"),
    "listed": (lambda path: read_list(str(path)), "keys.txt", "é1\nb\n"),
    "overlap": (lambda path: _of_list(path, "").clips, "list.txt", "é1\nb\n"),
    "vocabulary": (read_counts, "words.txt", "é 9\nso 3\n"),
    "ctm": (kaldi_ctm.read, "words.ctm", "é1 1 0.1 0.2 é\nu2 1 0.1 0.2 so\n"),
    "wdseg": (sphinx_wdseg.read, "a.wdseg", "SFrm EFrm SegAScr Word\n 0 10 -5 É\n"),
    "textgrid": (lambda path: textgrid.read(path, None), "a.TextGrid", GRID),
    "whisper": (whisper_json.read, "a.json", '{"segments": [{"words": [{"word": "é", "start": 0.1, "end": 0.2}]}]}'),
    "genders": (genders, "vox2_meta.csv", "VoxCeleb2 ID ,Gender ,é\nid1 ,m ,x\n"),
    "folds": (read_folds, "folds.json", '{"train": ["é"], "valid": ["b"], "test": ["c"]}'),
    "config": (lambda path: read_config(path, Any), "run.yaml", "é: a\n"),
    "labels": (lambda path: list(_rows(path, {"mood": ["é", "b"]})), "labels.csv", "key,mood\na,é\n"),
}
"""Name -> what reads such a file, what it is called, and one with a letter beyond ASCII."""
MARKED = {"utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


@pytest.fixture(params=sorted(READERS))
def reader(request: pytest.FixtureRequest) -> tuple[Callable[[Path], Any], str, str]:
    return READERS[request.param]


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_mark_changes_nothing(reader: Any, tmp_path: Path, encoding: str, newline: str) -> None:
    read, name, text = reader
    plain = tmp_path / name
    plain.write_bytes(text.encode())
    expected = read(plain)

    plain.write_bytes(MARKED[encoding] + text.replace("\n", newline).encode(encoding.removesuffix("-sig")))

    assert read(plain) == expected


def test_what_is_not_text_is_refused_by_file_and_line(reader: Any, tmp_path: Path) -> None:
    read, name, text = reader
    (tmp_path / name).write_bytes(text.encode("latin-1"))

    with pytest.raises(UserError, match=name) as error:
        read(tmp_path / name)

    assert "UTF-8" in str(error.value) or "utf-8" in str(error.value)
    assert "Traceback" not in str(error.value)


def test_the_line_of_the_first_wrong_byte_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" * 100_000 + "größer".encode("cp1252") + b"\n")
    with pytest.raises(UserError, match=r"a\.csv: is not UTF-8 in line 100001 \(bytes f6 df 65 72\); save it as UTF-8"):
        read_text(path)
    with pytest.raises(UserError, match="x: is not UTF-8 in line 2"):
        decode_text(b"a\n\xff", "x")
    assert read_text(path, errors="replace").count("\n") == 100_001


def test_half_a_utf_16_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(codecs.BOM_UTF16_LE + b"a\0b")
    with pytest.raises(UserError, match="is not UTF-16"):
        read_text(tmp_path / "a")


def test_line_ends_of_a_csv_are_left_to_csv(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(codecs.BOM_UTF8 + b'a,"b\r\nc"\r\n')
    with open_text(tmp_path / "a", newline="") as lines:
        assert lines.read() == 'a,"b\r\nc"\r\n'


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_word_vectors_with_a_mark(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / ("a.txt.gz" if pack is gzip.compress else "a.txt")
    path.write_bytes(pack(codecs.BOM_UTF8 + b"so 1 2\nit 3 4\n"))
    assert np.array_equal(glove.load(path, ["so"]).matrix[1], [1, 2])


def text_reads(source: str) -> list[int]:
    """Lines that read a file as text: `path.read_text()`, and `open(path)` or `path.open()` in a mode for that."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        is_open = isinstance(node.func, ast.Name) and node.func.id == "open"
        mode = [*node.args[1 if is_open else 0 :], *(word.value for word in node.keywords if word.arg == "mode")]
        texts = [each.value for each in mode if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        opens = is_open or (method == "open" and len(texts) == len(mode))  # av.open(source) is no file of text
        if method == "read_text" or (opens and not any(set("wax+b") & set(text) for text in texts)):
            found.append(node.lineno)
    return found


OWN_FILES = {
    "triptych/text_files.py": "the helper itself",
    "triptych/evaluation/results.py": "results.json",
    "triptych/report.py": "a run's own files",
    "triptych/refusals.py": "the kernel's account of this process",
    "triptych/release.py": "a run's own files",
    "triptych/training/checkpoint.py": "checkpoints",
    "triptych/training/run.py": "a run's own files",
    "triptych/models/saved.py": "a model's folder",
    "triptych/models/load.py": "an encoder's folder",
    "shards/corpora/synthetic.py": "the mark of a generated corpus",
    "shards/corpora/look_alikes/avec2017.py": "a generated corpus",
    "shards/divisions/pretrained_on.py": "a run's own files",
    "shards/writing/pool.py": "the kernel's account of a child",
    "shards/write.py": "the account of a part",
    "pretrain/train.py": "a run's own files",
    "finetune/ablation.py": "a run's own config",
    "finetune/outcome.py": "a run's own files",
    "finetune/attention.py": "a run's own files",
}
"""Who reads text without the helper, and what: files that the product itself wrote."""


def test_users_files_are_read_through_the_helper_alone() -> None:
    assert text_reads("a.read_text()\nb.open()\nopen(c)\nd.open('rb')\ne.open('w')\nread_text(f)\nav.open(g)") == [
        1,
        2,
        3,
    ]
    reading = set()
    for package in ("triptych", "shards", "pretrain", "finetune", "linear_probe"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = str(file.relative_to(ROOT))
            if text_reads(file.read_text()):
                reading.add(name)
    assert reading == set(OWN_FILES), "read a user's file by triptych.text_files; if it is the product's own, list it"
