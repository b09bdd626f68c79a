import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards import check, merge
from shards.write import WriteConfig, prepare, write, write_part
from shards.writing.work_folder import Work
from triptych.config import UserError, load


def config(root: Path, out: Path, **changes: Any) -> WriteConfig:
    corpus = {"voxceleb2": {"root": str(root), "transcripts": ["transcripts.ctm"]}}
    shares = {"train": 0.5, "valid": 0.25, "test": 0.25}
    fields = {"corpus": corpus, "out": str(out), "split": shares, "samples_per_shard": 1, "workers": 1, **changes}
    return load(WriteConfig, fields)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_parts_in_any_order_give_the_bytes_of_one_process(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, parts = make_corpus(), tmp_path / "parts"
    (root / "dev/mp4/id00001/video1/00000.mp4").write_bytes(b"broken")
    write(config(root, tmp_path / "whole", max_quarantined_share=0.5))

    for part in ("3/3", "1/3", "2/3"):
        write_part(config(root, parts, part=part, workers=2, max_quarantined_share=0.5))
    merge.merge(parts)

    assert files(parts) == files(tmp_path / "whole")


def test_shards_are_numbered_without_a_gap(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    """A planned shard whose clips are all unreadable is none; brace patterns of WebDataset know no gaps."""
    root, out = make_corpus(), tmp_path / "out"
    plan = prepare(config(root, out, max_quarantined_share=0.5))
    key = json.loads((out / "work" / "train-000001.jsonl").read_text())["key"]
    (root / "dev" / "mp4" / f"{key}.mp4").write_bytes(b"broken")

    manifest = write(config(root, out, max_quarantined_share=0.5))

    assert [shard.name for shard in plan.shards][2:4] == ["train-000002", "train-000003"]
    train = [shard.name for shard in manifest.shards if shard.split == "train"]
    assert train == [f"train-{number:06d}.tar" for number in range(3)]
    assert list(manifest.quarantined) == [key]
    assert check.inspect(out, manifest, quiet=True).problems == []


def test_a_missing_part_is_named_with_its_command(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    write_part(config(root, out, part="1/2"))

    with pytest.raises(UserError, match=r"4 of 8 shards are missing: train-000001, .*shards write .*work/config.yaml"):
        merge.run(str(out))
    again = load(WriteConfig, out / "work" / "config.yaml", ["part=2/2"])  # what that command would do
    write_part(again)
    assert merge.merge(out).written == 8


def test_a_merge_can_be_killed_at_any_moment(
    make_corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = make_corpus(), tmp_path / "out"
    key = "id00002/video2/00001"
    (root / "dev" / "mp4" / f"{key}.mp4").write_bytes(b"broken")
    write_part(config(root, out, max_quarantined_share=0.5))
    shutil.copytree(out, tmp_path / "whole")
    merge.merge(tmp_path / "whole")

    class Killed(BaseException):
        pass

    real, left = merge.write_atomically, 0

    def dies(path: Path, content: bytes | str) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        real(path, content)

    monkeypatch.setattr(merge, "write_atomically", dies)
    writes = 7 + 1 + 3 + 1  # indexes, vocabulary, durations, manifest
    for number in range(writes):
        left = number
        with pytest.raises(Killed):
            merge.merge(out)
        assert not (out / "manifest.json").exists()
    left = writes
    merge.merge(out)
    assert files(out) == files(tmp_path / "whole")


def test_of_a_merged_set_it_gives_the_manifest(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    """A job that Slurm starts twice must not fail, nor one that was killed while it cleaned up."""
    root, out = make_corpus(), tmp_path / "out"
    manifest = write(config(root, out))
    (out / "work").mkdir()

    assert write(config(root, out)) == merge.merge(out) == manifest
    assert not (out / "work").exists()


def test_a_shard_that_is_gone_again_is_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    write_part(config(root, out))
    (out / "work" / "valid-000001.tar").unlink()

    with pytest.raises(UserError, match=r"valid-000001.tar: the shard or its index is gone.*remove .*report.json"):
        merge.merge(out)
    (out / "work" / "valid-000001.report.json").unlink()
    assert write(config(root, out)).written == 8


def test_a_split_without_a_readable_clip_is_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    plan = prepare(config(root, out))
    whole = {}
    for shard in plan.shards:
        if shard.split == "test":
            key = json.loads((out / "work" / f"{shard.name}.jsonl").read_text())["key"]
            path = root / "dev" / "mp4" / f"{key}.mp4"
            whole[path] = path.read_bytes()
            path.write_bytes(b"broken")

    with pytest.raises(UserError, match="every clip of test is unreadable"):
        write(config(root, out, max_quarantined_share=0.5))
    for path, content in whole.items():
        path.write_bytes(content)
    assert write(config(root, out, retry=True)).written == 8


def test_too_many_unreadable_clips_over_all_parts_are_refused(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_corpus(), tmp_path / "out"
    for speaker in range(3):
        (root / f"dev/mp4/id0000{speaker}/video{speaker}/00000.mp4").write_bytes(b"broken")
    write_part(config(root, out, max_quarantined_share=0.5))

    with pytest.raises(UserError, match=r"3 clips cannot be read, more than max_quarantined_share \(0.3\) of 8"):
        merge.run(str(out), ["max_quarantined_share=0.3"])
    assert merge.merge(out).written == 5  # what was planned with


def test_nothing_planned_is_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to merge; `python -m shards write"):
        merge.merge(tmp_path)
    assert Work(tmp_path).plan() is None
