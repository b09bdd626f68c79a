import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards import check
from shards.reading.index import load_manifest
from triptych.config import UserError


def problems(folder: Path) -> list[tuple[str, str, str]]:
    found = check.inspect(folder, load_manifest(folder), quiet=True)
    return [(problem.check, problem.where, problem.what) for problem in found.problems]


def checks(folder: Path) -> set[str]:
    return {problem[0] for problem in problems(folder)}


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def overwrite(folder: Path, shard: str, key: str, extension: str, damage: Callable[[bytes], bytes]) -> int:
    """Change a member's payload in place; returns its offset."""
    index = json.loads((folder / f"{shard}.index.json").read_text())
    offset, size, _ = index["samples"][key][extension]
    tar = bytearray((folder / f"{shard}.tar").read_bytes())
    tar[offset : offset + size] = damage(bytes(tar[offset : offset + size]))
    (folder / f"{shard}.tar").write_bytes(tar)
    return offset


def flip(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]


def zero(payload: bytes) -> bytes:
    return bytes(len(payload))


def test_a_good_set_passes(tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_shards()
    assert problems(folder) == []
    assert check.run(str(folder)) == 0
    printed = capsys.readouterr().out
    assert "30 clips read in 7 shards" in printed
    assert "bad" not in printed


@pytest.mark.parametrize(("damage", "how"), [(flip, "CRC-32 differs"), (zero, "all bytes are zero")])
@pytest.mark.parametrize("extension", ["json", "wav", "lfbe.npy", "face_crops.npy"])
def test_a_damaged_member_is_named_with_its_place(
    tiny_shards: Callable[..., Path], damage: Callable[[bytes], bytes], how: str, extension: str
) -> None:
    folder = tiny_shards()
    offset = overwrite(folder, "train-000001", "train-speaker1/clip06", extension, damage)
    found = problems(folder)
    assert [problem[:2] for problem in found] == [("shards", "train-000001.tar"), ("members", "train-000001.tar")]
    assert f"train-speaker1/clip06.{extension} at byte {offset}: damaged, {how}" in found[1][2]


def test_a_damaged_header_is_found(tiny_shards: Callable[..., Path]) -> None:
    """Training reads by the index and would not notice; any other reader would lose the clips behind it."""
    folder = tiny_shards()
    index = json.loads((folder / "train-000001.index.json").read_text())
    offset = index["samples"]["train-speaker1/clip06"]["json"][0]
    tar = bytearray((folder / "train-000001.tar").read_bytes())
    tar[offset - 400] ^= 1
    (folder / "train-000001.tar").write_bytes(tar)
    assert checks(folder) == {"shards", "headers"}


def test_a_file_cut_short_is_named_with_the_clips_that_it_lost(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    size = (folder / "train-000000.tar").stat().st_size
    os.truncate(folder / "train-000000.tar", size // 2)
    found = problems(folder)
    assert "cut short" in found[0][2]
    lost = {problem[2].split(".")[0] for problem in found if problem[0] == "members"}
    assert "train-speaker0/clip04" in lost
    assert "train-speaker0/clip00" not in lost


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html><body>404 Not Found</body></html>", b"", b"\0" * 4096])
def test_a_page_in_place_of_a_tar_is_named(tiny_shards: Callable[..., Path], content: bytes) -> None:
    folder = tiny_shards()
    (folder / "valid-000000.tar").write_bytes(content)
    (found,) = problems(folder)
    assert found[:2] == ("shards", "valid-000000.tar")
    assert f"is not a tar; it starts with {content[:40]!r}" in found[2]


def test_durations_of_other_clips_are_named(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    (folder / "valid.durations.npy").write_bytes((folder / "train.durations.npy").read_bytes())
    ((check_name, where, what),) = problems(folder)
    assert (check_name, where) == ("durations", "valid.durations.npy")
    assert "not the file that was written" in what


def test_a_missing_shard_and_a_missing_index_are_named(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    (folder / "train-000002.tar").unlink()
    (folder / "valid-000001.index.json").unlink()
    found = problems(folder)
    assert [problem[:2] for problem in found] == [("shards", "train-000002.tar"), ("indexes", "valid-000001.tar")]
    assert "No such file" in found[0][2]
    assert "valid-000001.index.json: cannot be read" in found[1][2]


def test_what_could_not_be_looked_at_is_not_called_good(
    tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_shards()
    (folder / "train-000002.tar").unlink()
    assert check.run(str(folder)) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    results = {cells[1].strip(): cells[2].strip() for row in rows if (cells := row.split("│"))[1].strip()}
    assert results["shards"] == "bad: 1"
    assert [name for name, result in results.items() if result == "ok"] == ["accounting"]


def test_shards_swapped_for_one_another_are_found(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    shutil.copy(folder / "train-000000.tar", folder / "train-000001.tar")
    assert "shards" in checks(folder)


def test_an_index_of_another_writing_is_found(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    path = folder / "train-000001.index.json"
    index = json.loads(path.read_text())
    del index["samples"]["train-speaker1/clip06"]["wav"]
    path.write_text(json.dumps(index))
    assert checks(folder) == {"indexes"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(folder, lambda manifest: manifest["shards"][1].update(index_sha256=digest))
    (found,) = problems(folder)  # a writer that hashed a wrong index
    assert found[:2] == ("headers", "train-000001.tar")
    assert re.fullmatch(r"train-speaker1/clip06.wav at byte \d+: in the tar, but not in the index", found[2])


def test_a_group_on_two_sides_is_found(tiny_shards: Callable[..., Path]) -> None:
    """In the tiny set both splits speak the same sentences."""
    folder = tiny_shards(split={"by": "transcript_prefix:4"})
    found = problems(folder)
    assert {problem[0] for problem in found} == {"splits"}
    assert any("split by transcript_prefix:4) is in train and valid" in problem[2] for problem in found)
    for by in ("speaker", "video"):
        edit_manifest(folder, lambda manifest, by=by: manifest.update(split={"by": by}))
        assert problems(folder) == []


def test_a_clip_where_its_rule_does_not_put_it_is_found(tiny_shards: Callable[..., Path]) -> None:
    """The tiny set's clips have no split of the corpus, and no name of RAVDESS."""
    folder = tiny_shards(split={"by": "source"})
    found = problems(folder)
    assert {problem[0] for problem in found} == {"splits"}
    assert len(found) == 30
    assert found[0][2] == "is in train, where the split source does not put it"
    for by, told in (("ravdess/hicmae_6fold/2", "not a name of RAVDESS"), ("ravdes/mpuc", "Did you mean ravdess")):
        edit_manifest(folder, lambda manifest, by=by: manifest.update(split={"by": f"protocol:{by}"}))
        assert told in problems(folder)[0][2]


def test_a_key_in_two_splits_is_found(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    edit_manifest(
        folder,
        lambda m: m.update(shards=[*m["shards"], m["shards"][0]], written=m["written"] + 5, found=m["found"] + 5),
    )
    found = problems(folder)
    assert ("splits", "train-speaker0/clip00", "the key comes 2 times") in found


@pytest.mark.parametrize(
    ("change", "expected", "what"),
    [
        (lambda m: m.update(found=99), "accounting", "found 99 is not written 30"),
        (lambda m: m.update(written=29, found=31), "accounting", "its shards hold 30 clips"),
        (lambda m: m["counts"].update(words=1), "totals", "words: 1, the clips have"),
        (lambda m: m["counts"].update(seconds=7200), "totals", "seconds: 7200, the clips have"),
        (lambda m: m["labels"]["emotion"].update(happy=0), "totals", "labels"),
        (lambda m: m["features"][0].update(dtype="float32"), "features", "holds float16 [19, 20], expected float32"),
    ],
)
def test_a_manifest_that_says_something_else_is_found(
    tiny_shards: Callable[..., Path], change: Callable[[dict[str, Any]], Any], expected: str, what: str
) -> None:
    folder = tiny_shards()
    edit_manifest(folder, change)
    found = problems(folder)
    assert {problem[0] for problem in found} == {expected}
    assert what in found[0][2]


def test_a_feature_that_some_clips_lack_is_found(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    edit_manifest(folder, lambda m: m["features"][0].update(name="vgg"))
    found = problems(folder)
    assert len(found) == 28  # 30 clips, one of each split without sound
    assert found[0][2] == "train-speaker0/clip00.vgg.npy: is not there, and the clip has audio"


def test_another_vocabulary_is_found(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    (folder / "vocabulary.txt").write_text("zebra 3\n")
    (found,) = problems(folder)
    assert "not the vocabulary of these shards" in found[2]
    edit_manifest(folder, lambda m: m.update(vocabulary_sha256=hashlib.sha256(b"zebra 3\n").hexdigest()))
    (found,) = problems(folder)
    assert found[2].startswith("has 'zebra' where the training split gives")


def test_clips_that_reading_cuts_are_counted(
    tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_shards()
    edit_manifest(folder, lambda m: m["features"][0].update(max_length=20))
    assert check.run(str(folder)) == 0
    assert "clips are longer than lfbe keeps" in capsys.readouterr().out


def test_many_problems_are_printed_short(tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_shards()
    os.truncate(folder / "train-000000.tar", 1024)
    assert check.run(str(folder)) == 1
    printed = capsys.readouterr().out
    assert printed.count("train-000000.tar") <= 2 * check.SHOWN_PER_SHARD
    assert "more" in printed
    assert "copy the named shards again" in printed


def test_a_folder_that_is_no_shard_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no manifest.json"):
        check.run(str(tmp_path))
