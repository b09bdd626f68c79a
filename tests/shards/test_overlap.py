"""Which videos two corpora share: ids are recognised exactly, and what is no id is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.__main__ import main
from shards.overlap import OverlapConfig, overlap
from shards.record import ClipRecord, video_id
from triptych.config import UserError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ViyQVpGW05w", "ViyQVpGW05w"),
        ("-iRBcNs9_8-", "-iRBcNs9_8-"),
        ("ViyQVpGW05w[3]", "ViyQVpGW05w"),
        ("ViyQVpGW05w_13", "ViyQVpGW05w"),
        ("ViyQVpGW0_3", "ViyQVpGW0_3"),  # 11 characters: the end belongs to the id
        ("ViyQVpGW0_3_3", "ViyQVpGW0_3"),
        ("ViyQVpGW05", None),
        ("ViyQVpGW05wx", None),
        ("ViyQVpGW05w_", None),
        ("ViyQVpGW05w[]", None),
        ("ViyQVpGW05w[3", None),
        ("ViyQVpGW05w_a", None),
        ("ViyQVpGW05w\n", None),
        ("ViyQVpGW05ü", None),
        ("266791", None),
        ("266791_3", None),
        ("", None),
    ],
)
def test_an_id_has_eleven_characters_and_perhaps_a_segment(name: str, found: str | None) -> None:
    assert video_id(name) == found


def write_list(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture
def shards(shard_set_of: Callable[..., Path]) -> str:
    """Six minutes: of video A two clips to train on and one to test on, of B and of no video one each."""

    def clip(number: int, split: str, video: str | None) -> tuple[ClipRecord, dict[str, bytes]]:
        record = ClipRecord(
            key=f"a/{number}",
            speaker="a",
            split=split,
            duration_s=72.0,
            has_audio=True,
            has_video=False,
            words=None,
            source={} if video is None else {"video": video},
            labels={},
        )
        return record, {"json": json.dumps(record.to_json()).encode()}

    videos = [("train", "AAAAAAAAAA1"), ("train", "AAAAAAAAAA1"), ("test", "AAAAAAAAAA1"), ("train", "BBBBBBBBBB1")]
    return str(shard_set_of([clip(number, *pair) for number, pair in enumerate([*videos, ("valid", None)])]))


def compare(target: str, other: str, tmp_path: Path, **settings: Any) -> list[str]:
    out = tmp_path / "exclude.txt"
    exclude = overlap(target, OverlapConfig(other=other, out=str(out), **settings))
    assert out.read_text().splitlines() == exclude
    return exclude


def rows(printed: str) -> list[list[str]]:
    """The cells of the table's rows."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]


def test_shards_are_counted_by_split_against_a_list(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_list(
        tmp_path / "ids.txt", "# the test set", "AAAAAAAAAA1_0", "AAAAAAAAAA1_1", "CCCCCCCCCC1_0", "", "9"
    )

    assert compare(shards, other, tmp_path) == ["AAAAAAAAAA1"]

    printed = capsys.readouterr().out
    assert rows(printed) == [
        ["pretraining", "train", "2", "1", "3", "2", "0.06", "0.04"],
        ["pretraining", "test", "1", "1", "1", "1", "0.02", "0.02"],
        ["pretraining", "all splits", "2", "1", "4", "3", "0.08", "0.06"],
        ["evaluation", "all", "3", "1", "4", "2", "–", "–"],
    ]
    assert "1 shared videos" in printed
    assert "evaluation: 1 names (1 clips) are no YouTube id and were not compared, first: 9" in printed
    assert "pretraining: 1 clips have no video" in printed


def test_the_exclude_list_has_the_names_of_the_pretraining_corpus(shards: str, tmp_path: Path) -> None:
    """`write` looks for exactly these."""
    segments = write_list(tmp_path / "ids.txt", "AAAAAAAAAA1[0]", "AAAAAAAAAA1[12]", "CCCCCCCCCC1[0]")

    assert compare(segments, shards, tmp_path) == ["AAAAAAAAAA1[0]", "AAAAAAAAAA1[12]"]


@pytest.mark.parametrize(
    ("name", "lines", "settings"),
    [
        ("ids.json", ['{"train": ["BBBBBBBBBB1"], "test": ["AAAAAAAAAA1"]}'], {}),
        ("ids.json", ['["BBBBBBBBBB1", "AAAAAAAAAA1"]'], {}),
        ("ids.csv", ["FileName,score", "BBBBBBBBBB1_0,1", "AAAAAAAAAA1_4,2"], {}),
        ("ids.csv", ["BBBBBBBBBB1,1", "AAAAAAAAAA1,2"], {}),
        ("ids.csv", ['score,"video id"', "1,BBBBBBBBBB1", "2,AAAAAAAAAA1", "3"], {"column": "video id"}),
    ],
)
def test_lists_in_their_usual_forms(
    shards: str, tmp_path: Path, name: str, lines: list[str], settings: dict[str, str]
) -> None:
    other = write_list(tmp_path / name, *lines)

    assert compare(shards, other, tmp_path, **settings) == ["AAAAAAAAAA1", "BBBBBBBBBB1"]


def test_a_corpus_is_compared_before_it_is_written(shards: str, tmp_path: Path) -> None:
    for video in ("AAAAAAAAAA1", "CCCCCCCCCC1"):
        clip = tmp_path / "raw" / "mp4" / "id1" / video / "00001.mp4"
        clip.parent.mkdir(parents=True)
        clip.touch()
    out = tmp_path / "exclude.txt"
    setting = f"corpus.voxceleb2.root={tmp_path / 'raw'}"

    assert main(["overlap", "voxceleb2", f"other={shards}", f"out={out}", setting]) == 0

    assert out.read_text() == "AAAAAAAAAA1\n"


def test_nothing_shared_is_an_empty_list(shards: str, tmp_path: Path) -> None:
    assert compare(shards, write_list(tmp_path / "ids.txt", "CCCCCCCCCC1"), tmp_path) == []


def test_what_cannot_be_compared_is_refused(shards: str, tmp_path: Path) -> None:
    """Nothing shared would be a false comfort."""
    numbers = write_list(tmp_path / "ids.txt", "266791", "126872")
    with pytest.raises(UserError, match=r"ids\.txt: no video of it has a YouTube id.* its videos: 126872, 266791"):
        compare(shards, numbers, tmp_path)
    with pytest.raises(UserError, match=r"data/nowhere: is not there; expected a shard set"):
        compare(shards, "data/nowhere", tmp_path)
    with pytest.raises(UserError, match=r"no config 'voxceleb'.*voxceleb2"):
        compare(shards, "voxceleb", tmp_path)
    bad = write_list(tmp_path / "bad.json", '{"train": {"a": 1}}')
    with pytest.raises(UserError, match=r"bad\.json: train: expected a list of ids"):
        compare(shards, bad, tmp_path)
    table = write_list(tmp_path / "ids.csv", "video,score", "AAAAAAAAAA1,1")
    with pytest.raises(UserError, match=r"has no 'id'; there are video, score"):
        compare(shards, table, tmp_path, column="id")


def test_settings_of_a_corpus_and_the_output_must_make_sense(shards: str, tmp_path: Path) -> None:
    other = write_list(tmp_path / "exclude.txt", "AAAAAAAAAA1")
    with pytest.raises(UserError, match=r"out: .* is one of the lists to compare"):
        compare(shards, other, tmp_path)
    ids = write_list(tmp_path / "ids.txt", "AAAAAAAAAA1")
    with pytest.raises(UserError, match=r"neither of the sides is a corpus config"):
        main(["overlap", shards, f"other={ids}", "corpus.voxceleb2.root=raw", f"out={tmp_path / 'x'}"])
    with pytest.raises(UserError, match=r"each of the sides is a corpus config"):
        main(["overlap", "voxceleb2", "other=grid", "corpus.voxceleb2.root=raw", f"out={tmp_path / 'x'}"])


@pytest.mark.real
def test_the_folds_of_mosei_and_mosi_share_nothing(real_data: Path, tmp_path: Path, capsys) -> None:
    mosei, mosi = (str(real_data / name / "standard_folds.json") for name in ("mosei", "mosi"))

    assert compare(mosei, mosi, tmp_path) == []

    assert "pretraining: 459 names (459 clips) are no YouTube id" in capsys.readouterr().out
    labels = str(real_data / "mosei" / "sse_ft_label_file_test.csv")
    assert {video_id(segment) for segment in compare(labels, mosei, tmp_path)} <= set(
        json.loads(Path(mosei).read_text())["test"]
    )
