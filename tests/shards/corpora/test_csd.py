import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from shards.corpora import csd, folds
from triptych.config import UserError


def write(path: Path, fill: Callable[[h5py.Group], Any]) -> Path:
    """A file with one good entry, and what `fill` puts into its group of data."""
    with h5py.File(path, "w") as file:
        data = file.create_group("All Labels/data")
        entry(data, "good", [[1.0]], [[0.0, 1.0]])
        file["All Labels/metadata/dimension names"] = [json.dumps(["sentiment"])]
        fill(data)
    return path


def entry(data: h5py.Group, name: str, features: Any, intervals: Any) -> None:
    data[f"{name}/features"] = np.array(features)
    data[f"{name}/intervals"] = np.array(intervals)


def test_rows_of_a_video_come_with_their_intervals_and_the_files_metadata(tmp_path: Path) -> None:
    def fill(data: h5py.Group) -> None:
        entry(data, "aligned[0]", [[2.0]], [[3.0, 4.0]])
        entry(data, "aligned[1]", [[3.0]], [[4.0, 5.0]])
        entry(data, "words", [[b"yes"], [b"sp"]], [[-0.5, 0.5], [0.5, 1.0]])
        data["flat/features"] = [7.0]
        data["flat/intervals"] = [[0.0, 1.0]]

    found = csd.read(write(tmp_path / "a.csd", fill))

    assert found.root == "All Labels"
    assert found.metadata == {"dimension names": ["sentiment"]}
    assert found.videos.keys() == {"good", "aligned", "words", "flat"}
    assert found.videos["aligned"].features.tolist() == [[2.0], [3.0]]
    assert found.videos["aligned"].intervals.tolist() == [[3.0, 4.0], [4.0, 5.0]]
    assert found.videos["words"].features.tolist() == [[b"yes"], [b"sp"]]
    assert found.videos["flat"].features.tolist() == [[7.0]]


def lengths(data: h5py.Group) -> None:
    entry(data, "bad", [[1.0], [2.0]], [[0.0, 1.0]])


def no_number(data: h5py.Group) -> None:
    entry(data, "bad", [[1.0]], [[0.0, np.nan]])


def no_intervals(data: h5py.Group) -> None:
    data["bad/features"] = [[1.0]]


def one_sided(data: h5py.Group) -> None:
    entry(data, "bad", [[1.0]], [[0.0]])


def references(data: h5py.Group) -> None:
    data.create_dataset("bad/features", data=[[data.ref]], dtype=h5py.ref_dtype)
    data["bad/intervals"] = [[0.0, 1.0]]


def elsewhere(data: h5py.Group) -> None:
    data["bad"] = h5py.ExternalLink("/etc/other.h5", "/data")


def outside(data: h5py.Group) -> None:
    data.create_dataset("bad/features", (1, 1), "f4", external=[("/etc/hostname", 0, 4)])
    data["bad/intervals"] = [[0.0, 1.0]]


def huge(data: h5py.Group) -> None:
    data.create_dataset("bad/features", (10**6, 10**4), "f4", chunks=(1000, 1000), compression="gzip")
    data["bad/intervals"] = [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lengths, "bad has 2 rows of features and 1 intervals"),
        (no_number, "bad has an interval that is no number"),
        (no_intervals, "bad has no intervals in the file itself"),
        (one_sided, "intervals of bad are float64 of shape .1, 1."),
        (references, "features of bad are object of shape"),
        (elsewhere, "bad has no features in the file itself"),
        (outside, "bad has no features in the file itself"),
        (huge, "features of bad take more than 256 MiB"),
    ],
)
def test_a_bad_entry_is_told_by_name(tmp_path: Path, fill: Callable[[h5py.Group], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        csd.read(write(tmp_path / "a.csd", fill))


def test_what_is_no_computational_sequence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.csd").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"page.csd: .* no HDF5 file"):
        csd.read(tmp_path / "page.csd")
    with pytest.raises(UserError, match="there is no such file"):
        csd.read(tmp_path / "none.csd")
    with h5py.File(tmp_path / "other.csd", "w") as file:
        file["weights"] = [1.0]
    with pytest.raises(UserError, match="no group /<name>/data"):
        csd.read(tmp_path / "other.csd")


def test_folds_are_those_of_the_sdks_file_which_is_not_run(tmp_path: Path) -> None:
    python = tmp_path / "cmu_mosei_std_folds.py"
    python.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nstandard_train_fold = ['a', '-b']\n"
        "standard_valid_fold=['c']\nstandard_test_fold = []\nother = print\n"
    )
    (tmp_path / "folds.json").write_text('{"train": ["a", "-b"], "valid": ["c"], "test": []}')

    assert folds.read(python) == {"a": "train", "-b": "train", "c": "valid"}
    assert folds.read(tmp_path / "folds.json") == folds.read(python)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("folds.json", '{"train": ["a"], "valid": ["a"], "test": []}', "a is in train and in valid"),
        ("folds.json", '{"train": ["a"], "valid": ["b"]}', "no list of videos for test"),
        ("folds.json", '["a"]', "no list of videos for train"),
        ("folds.json", "{", "the folds cannot be read"),
        ("folds.py", "standard_train_fold = open('a').read()", "the folds cannot be read"),
        ("folds.py", "standard_train_fold = [", "the folds cannot be read"),
    ],
)
def test_bad_folds_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        folds.read(tmp_path / name)
