import csv
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.__main__ import main
from shards.convert_pickle import convert
from shards.corpora.config import CorpusConfig
from shards.corpora.mosei import COLUMNS, MoseiConfig
from shards.corpora.mosi import MosiConfig
from shards.divisions.split import SplitConfig
from shards.reading.index import ShardSet
from shards.write import WriteConfig, write
from triptych.config import UserError

LIMIT = 10**7


def mult(protocol: int = 4, columns: int = 1, **changes: Any) -> bytes:
    """As MulT: ids [video, start, end] as bytes; five rows for training, two of them of one interval."""
    content: dict[str, Any] = {}
    for split, starts in (("train", (0.5, 2.25, 4.0, 4.0, -0.1)), ("valid", (1.0,)), ("test", (1.0,))):
        count = len(starts)
        content[split] = {
            "id": np.array(
                [[f"{split}_vid-1".encode(), str(start).encode(), str(start + 1.5).encode()] for start in starts]
            ),
            "labels": np.arange(count * columns, dtype=np.float32).reshape(count, 1, columns)[::-1] / 10,
            "vision": np.full((count, 4, 2), np.arange(count)[:, None, None], np.float32),
            "audio": np.full((count, 4, 3), -np.inf),
        } | changes
    return pickle.dumps(content, protocol)


def mmsa() -> bytes:
    """As MMSA: ids "video$_$clip", text, lengths."""
    content = {
        split: {
            "id": [f"-{split}V$_$12", "127908$_$3"] if split == "train" else [f"-{split}V$_$12"],
            "raw_text": ["I loved it  so", "no"][: 2 if split == "train" else 1],
            "regression_labels": np.array([1.5, -2.0])[: 2 if split == "train" else 1],
            "text_bert": np.zeros((2 if split == "train" else 1, 3, 50)),
            "audio_lengths": [4, 3][: 2 if split == "train" else 1],
        }
        for split in ("train", "valid", "test")
    }
    return pickle.dumps(content, 5)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_mults_rows_become_clips_with_their_arrays(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "mosi.pkl").write_bytes(mult(protocol))

    assert convert(tmp_path / "mosi.pkl", tmp_path / "out", LIMIT) == {"train": 5, "valid": 1, "test": 1}
    clips = {clip.key: clip for clip in MosiConfig(root=str(tmp_path), converted="out").clips()}

    assert list(clips) == [
        "test_vid-1/0001000_0002500",
        "train_vid-1/-000100_0001400",
        "train_vid-1/0000500_0002000",
        "train_vid-1/0002250_0003750",
        "train_vid-1/0004000_0005500",
        "train_vid-1/0004000_0005500_2",
        "valid_vid-1/0001000_0002500",
    ]
    clip = clips["train_vid-1/0002250_0003750"]
    assert clip.labels == {"sentiment": pytest.approx(0.3)}
    assert clip.source["split"] == "train"
    assert clip.speaker == clip.source["video"] == "train_vid-1"
    assert clip.duration_s == 1.5
    assert clip.words is None
    np.testing.assert_array_equal(np.load(clip.attachments["given_vision.npy"]), np.ones((4, 2), np.float32))
    assert np.isneginf(np.load(clip.attachments["given_audio.npy"])).all()
    assert clips["train_vid-1/-000100_0001400"].duration_s == 1.4
    twins = [clips[f"train_vid-1/0004000_0005500{end}"].labels["sentiment"] for end in ("", "_2")]
    assert twins == sorted(twins)


def test_mmsas_rows_have_text_and_no_times(tmp_path: Path) -> None:
    (tmp_path / "mosei.pkl").write_bytes(mmsa())
    convert(tmp_path / "mosei.pkl", tmp_path / "out", LIMIT)

    clips = {clip.key: clip for clip in MoseiConfig(root=str(tmp_path), converted="out").clips()}

    assert clips.keys() == {"-trainV/clip-12", "127908/clip-3", "-validV/clip-12", "-testV/clip-12"}
    loved = clips["-trainV/clip-12"]
    assert loved.words is not None
    assert [word.text for word in loved.words] == ["I", "loved", "it", "so"]
    assert loved.duration_s == loved.words[-1].end_s == pytest.approx(1.6)
    assert loved.source["word_times"] == "guessed"
    assert loved.labels == {"sentiment": 1.5}
    assert np.load(loved.attachments["given_text_bert.npy"]).shape == (3, 50)
    with (tmp_path / "out" / "segments.csv").open() as file:
        assert [row["audio_lengths"] for row in csv.DictReader(file)] == ["4", "3", "4", "4"]


def test_seven_labels_are_moseis(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(mult(columns=7))
    convert(tmp_path / "a.pkl", tmp_path / "out", LIMIT)

    clip = next(clip for clip in MoseiConfig(root=str(tmp_path), converted="out").clips() if "test" in clip.key)

    assert list(clip.labels) == [column.name for column in COLUMNS]
    assert clip.labels["fear"] == pytest.approx(0.6)


def without_ids() -> bytes:
    return pickle.dumps({split: {"labels": np.zeros((2, 4, 2))} for split in ("train", "valid", "test")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without_ids(), "train has no ids, as MulT's file of IEMOCAP"),
        (pickle.dumps({"train": {}}), "expected a dict of train, valid, test"),
        (pickle.dumps([1]), "expected a dict of train, valid, test"),
        (mult(id=np.array([["a/../b", "0", "1"]])), "expected 1 or 7 finite numbers"),
        (mult(labels=[0.0], id=[["../b", "0", "1"]], vision=None, audio=None), "id .*; expected .video, start, end."),
        (mult(labels=[0.0], id=[["b", "nan", "1"]], vision=None, audio=None), "id .*; expected .video, start, end."),
        (mult(labels=[0.0], id=["nothing"], vision=None, audio=None), "id 'nothing'; expected"),
        (mult(labels=[np.nan], id=["a$_$1"], vision=None, audio=None), "expected 1 or 7 finite numbers"),
        (mult(vision=np.zeros((9, 1))), "vision of train has not a row of numbers for each of the 5 ids"),
        (mult(vision=np.array(["a"] * 5)), "vision of train has not a row of numbers for each of the 5 ids"),
    ],
)
def test_other_contents_are_refused_and_nothing_is_left(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "a.pkl", tmp_path / "out", LIMIT)
    assert os.listdir(tmp_path) == ["a.pkl"]


def test_the_command_makes_the_folder_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pkl").write_bytes(mult())
    command = ["convert_pickle", str(tmp_path / "a.pkl"), f"out={tmp_path / 'out'}"]

    assert main(command) == 0
    assert "5 train, 1 valid, 1 test segments" in capsys.readouterr().out
    with (tmp_path / "out" / "segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["video"] == "train_vid-1"
    with pytest.raises(UserError, match="is there already"):
        main(command)
    with pytest.raises(UserError, match="max_gb"):
        main([*command[:2], f"out={tmp_path / 'other'}", "max_gb=0.0"])


def test_a_changed_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(mult())
    convert(tmp_path / "a.pkl", tmp_path / "out", LIMIT)
    table = tmp_path / "out" / "segments.csv"
    table.write_text(table.read_text().replace("train-000001", "../other"))
    with pytest.raises(UserError, match="not as convert_pickle writes it"):
        list(MosiConfig(root=str(tmp_path), converted="out").clips())
    with pytest.raises(UserError, match="make it with convert_pickle"):
        list(MosiConfig(root=str(tmp_path), converted="none").clips())


def test_converted_arrays_go_into_the_samples(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(mmsa())
    convert(tmp_path / "a.pkl", tmp_path / "converted", LIMIT)
    corpus = CorpusConfig(mosei=MoseiConfig(root=str(tmp_path), converted="converted"))
    split = SplitConfig(by="video", train=0.5, valid=0.25, test=0.25)

    manifest = write(WriteConfig(corpus=corpus, out=str(tmp_path / "out"), split=split, workers=1))

    assert (manifest.found, manifest.written) == (4, 4)
    train = ShardSet(str(tmp_path / "out")).split("train")
    content = train.read(0, ("json", "given_text_bert.npy"))
    assert np.load(io.BytesIO(content["given_text_bert.npy"])).shape == (3, 50)
