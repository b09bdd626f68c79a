import os
import subprocess

import pytest

from triptych import provenance
from triptych.files import sha256, write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.json", b"old")

    def broken(descriptor):
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="gone"):
        write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_the_hash_is_the_one_that_sha256sum_gives(tmp_path):
    write_atomically(tmp_path / "abc", "abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


def test_an_installation_inside_another_checkout_has_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages.py"))
    assert provenance.commit() is None
