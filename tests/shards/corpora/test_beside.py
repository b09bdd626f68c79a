import logging
from pathlib import Path

import pytest

from shards.corpora.beside import attach_files, mirrored
from shards.record import RawClip
from triptych.config import UserError

CLIPS = [RawClip(key=f"id1/v1/0000{number}", speaker="id1", duration_s=1.0) for number in range(4)]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_are_found_below_any_further_folder_and_what_is_missing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "id1/v1/00000.csv", "dev/id1/v1/00001.csv", "id9/v1/00001.csv", "id1/v1/00003.txt", "00002.csv")

    with caplog.at_level(logging.WARNING):
        clips = attach_files(CLIPS, "landmarks.csv", mirrored(tmp_path, ".csv", 3), tmp_path)

    assert [clip.attachments.get("landmarks.csv") for clip in clips] == [
        tmp_path / "id1/v1/00000.csv",
        tmp_path / "dev/id1/v1/00001.csv",
        None,
        None,
    ]
    assert "2 of 4 clips have no landmarks.csv" in caplog.text
    assert "2 files are of no clip" in caplog.text


def test_two_files_of_one_clip_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/id1/v1/00000.csv", "b/id1/v1/00000.csv")

    with pytest.raises(UserError, match=r"b/id1/v1/00000\.csv: id1/v1/00000 is also at .*a/id1/v1/00000\.csv"):
        mirrored(tmp_path, ".csv", 3)


def test_a_folder_that_fits_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no landmarks\.csv for any clip; .*id1/v1/00000, and there is no such file"):
        attach_files(CLIPS, "landmarks.csv", mirrored(tmp_path, ".csv", 3), tmp_path)
    touch(tmp_path, "flat.csv")
    with pytest.raises(UserError, match=r"expected names like id1/v1/00000, and its files are named like flat"):
        attach_files(CLIPS, "landmarks.csv", mirrored(tmp_path, ".csv", 3), tmp_path)
