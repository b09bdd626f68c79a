import os
from pathlib import Path

import pytest

from shards.files import find_files
from triptych.config import UserError


def test_files_are_found_by_ending_through_links_and_without_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "deep/b.MP4", "deep/._b.mp4", "c.wav"):
        (tmp_path / "disk" / name).touch()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "disk")

    found = find_files(tmp_path / "corpus", (".mp4",))

    assert sorted(path.name for path in found) == ["a.mp4", "b.MP4"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clips would be missing, and nobody would know."""
    (tmp_path / "speaker").mkdir()
    listing = os.scandir

    def refuse(folder):
        if str(folder).endswith("speaker"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="speaker: the folder cannot be listed: Permission denied"):
        list(find_files(tmp_path, (".mp4",)))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: the folder cannot be listed: No such file"):
        list(find_files(tmp_path / "nowhere", (".mp4",)))
