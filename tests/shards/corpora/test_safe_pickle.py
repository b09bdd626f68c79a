import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.corpora import safe_pickle
from triptych.config import UserError

LIMIT = 10**6


def dumped(tmp_path: Path, value: Any, protocol: int = 4) -> Path:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def arrays(value: Any) -> Any:
    """With arrays in place of what stands for them."""
    if isinstance(value, safe_pickle.Stored):
        return value.values
    if isinstance(value, dict):
        return {key: arrays(item) for key, item in value.items()}
    return [arrays(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("protocol", range(6))
def test_numbers_text_containers_and_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    value = {
        "train": {
            "vision": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
            "audio": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "big endian": np.arange(3, dtype=">i4"),
            "id": np.array([[b"v", b"0.5", b"1"]]),
            "raw_text": np.array(["yes", "ü"]),
            "objects": np.array(["a", b"b", None], dtype=object),
            "empty": np.zeros((0, 3)),
            "scalar": np.float32(1.5),
        },
        "plain": [1, -2.5, "text", b"\xff\x00", None, True],
    }

    read = arrays(safe_pickle.load(dumped(tmp_path, value, protocol), LIMIT))

    assert read["plain"] == value["plain"]
    for name, expected in value["train"].items():
        np.testing.assert_array_equal(read["train"][name], expected)
        if isinstance(expected, np.ndarray):
            assert read["train"][name].dtype == expected.dtype


def test_arrays_of_older_numpy_are_read(tmp_path: Path) -> None:
    path = dumped(tmp_path, np.arange(3.0), 2)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))

    assert arrays(safe_pickle.load(path, LIMIT)).tolist() == [0.0, 1.0, 2.0]


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch ran",)),
        (eval, ("open('ran', 'w')",)),
        (exec, ("open('ran', 'w')",)),
        (getattr, ("", "join")),
        (np.load, ("a.npy",)),
        (np.fromfile, ("a.bin",)),
        (np.memmap, ("ran",)),
        (open, ("ran", "w")),
        (__import__, ("os",)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_other_function_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: tuple[Any, ...], protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = dumped(tmp_path, {"deep": [{"inside": Calls(function, *arguments)}]}, protocol)

    with pytest.raises(UserError, match=rf"a\.pkl: the pickle is refused: it holds .*\.{function.__name__};"):
        safe_pickle.load(path, LIMIT)

    assert not (tmp_path / "ran").exists()


HEAD = b"\x80\x04"
ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("copyreg", HEAD + b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR."),
        ("an attribute of a known module", HEAD + b"\x8c\x05numpy\x8c\x0bndarray.dot\x93."),
        ("an array made by a class", HEAD + ARRAY + b"(K\x01tR."),
        ("a class without reduce", HEAD + ARRAY + b")\x81."),
        ("huge empty array", HEAD + RECONSTRUCT + b"(" + ARRAY + b"(\x8a\x05\x00\x00\x00\x00\x10tC\x01btR."),
        ("a change of a stand-in", HEAD + RECONSTRUCT + b"N}\x8c\x05_callK\x01s\x86b."),
        ("a change of a stand-in by a dict", HEAD + RECONSTRUCT + b"}\x8c\x05_callK\x01sb."),
        ("a call of a string", HEAD + b"\x8c\x01a)R."),
        ("a list out of a tuple", HEAD + b")K\x01a."),
        ("a stack without a value", HEAD + b"0."),
        ("an extension", HEAD + b"\x82\x01."),
        ("a persistent id", HEAD + b"Pname\n."),
        ("text in another encoding", HEAD + b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."),
        ("cut short", pickle.dumps(np.arange(3.0))[:-20]),
        ("no pickle", b"PK\x03\x04"),
        ("nothing", b""),
    ],
)
def test_hand_made_attacks_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match="the pickle is refused"):
        safe_pickle.load(tmp_path / "a.pkl", LIMIT)
    # and the next file is read as if nothing had been
    assert arrays(safe_pickle.load(dumped(tmp_path, np.arange(2)), LIMIT)).tolist() == [0, 1]


def test_a_memo_of_many_entries_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(HEAD + b"K\x05r\xff\xff\xff\x7f.")
    assert safe_pickle.load(tmp_path / "a.pkl", LIMIT) == 5


def test_bytes_do_not_pass_for_objects(tmp_path: Path) -> None:
    """A dtype of objects whose flags say that they are plain would make numpy take bytes for pointers."""
    path = dumped(tmp_path, np.array([None], dtype=object), 2)
    forged = path.read_bytes()
    start, end = forged.index(b"]"), forged.index(b"t", forged.index(b"]"))
    forged = forged[:start] + b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tR" + forged[end:]
    path.write_bytes(forged)
    with pytest.raises(UserError, match="the pickle is refused"):
        safe_pickle.load(path, LIMIT)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix, the subclass that is at hand
def test_subclasses_and_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"numpy\.matrix"):
        safe_pickle.load(dumped(tmp_path, np.matrix([[1]]), 2), LIMIT)
    with pytest.raises(UserError, match="refused"):
        safe_pickle.load(dumped(tmp_path, np.zeros(1, dtype=[("a", "f4")]), 2), LIMIT)
    with pytest.raises(UserError, match="refused"):
        safe_pickle.load(dumped(tmp_path, np.zeros(1, dtype="M8[s]"), 2), LIMIT)


def test_a_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the limit is 0.0 GB \(max_gb\)"):
        safe_pickle.load(dumped(tmp_path, [1]), 3)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        safe_pickle.load(tmp_path / "none.pkl", LIMIT)
