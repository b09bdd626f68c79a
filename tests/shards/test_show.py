import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.image import imread

from shards import show
from shards.record import ClipRecord
from triptych.config import UserError


def test_tables_and_sheet(tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_shards()
    assert show.run(str(folder)) == 0
    printed = capsys.readouterr().out
    for text in ("tiny, split by speaker", "found 32 = written 30 + filtered 1 + quarantined 1", "broken", "emotion"):
        assert text in printed
    assert imread(folder / "labels.png").shape[0] > 100
    picture = imread(folder / "contact_sheet.png")
    assert picture.shape[0] > 4 * 200
    assert picture[..., :3].min() < 0.5


def test_what_a_split_shares_by_design_is_said(
    tiny_shards: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    leak = "1 speaker in both train and test (Joey)"
    split = {"by": "protocol:meld/official", "shared": [leak], "note": "characters are in all splits", "sha256": "abc"}
    show.run(str(tiny_shards(split=split)), ["num=0"])
    printed = capsys.readouterr().out
    for said in (f"by design: {leak}", "note: characters are in all splits", "as divided: abc"):
        assert said in printed


def test_clips_are_chosen_by_key_and_the_picture_goes_where_it_is_told(
    tiny_shards: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_shards()
    out = tmp_path / "sheet.png"
    show.run(str(folder), [f"out={out}", "clips=valid-speaker0/clip01,train-speaker0/clip02"])  # no words; no sound
    assert imread(out).shape[0] > 2 * 200
    assert not (folder / "contact_sheet.png").exists()


def test_the_pictures_can_be_left_out(tiny_shards: Callable[..., Path]) -> None:
    folder = tiny_shards()
    show.run(str(folder), ["num=0"])
    assert not list(folder.glob("*.png"))


def test_a_set_with_labels_alone_has_their_picture(
    shard_set_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    record = ClipRecord(
        key="a",
        speaker="s",
        split="train",
        duration_s=1.0,
        has_audio=False,
        has_video=False,
        words=None,
        source={},
        labels={"emotion": "sad", "sentiment": 1.5},
    )
    folder = shard_set_of([(record, {"json": json.dumps(record.to_json()).encode()})])
    show.run(str(folder))
    printed = capsys.readouterr().out
    assert "no contact sheet: these clips have neither picture, sound, words nor series" in printed
    assert "sentiment, a number" in printed
    assert [path.name for path in folder.glob("*.png")] == ["labels.png"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clips=nobody", "no clip has the key 'nobody'; a key looks like 'train-speaker0/clip00'"),
        ("nun=3", "Did you mean: 'num'"),
        ("out=/nowhere/at/all.png", "cannot be written"),
        ("out=sheet.xyz", "cannot be written"),
    ],
)
def test_a_mistake_is_named(tiny_shards: Callable[..., Path], override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        show.run(str(tiny_shards()), [override])
