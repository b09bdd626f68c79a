import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from shards.pictures.contact_sheet import Clip, contact_sheet
from shards.record import ClipRecord, Word

SERIES = {"arousal": {"rate_hz": 10.0, "values": [0.1 * number for number in range(20)]}}


def clip(**fields: Any) -> Clip:
    """Two seconds without anything but what is given."""
    there: dict[str, Any] = {"has_audio": False, "has_video": False, "words": None, "labels": {}, **fields}
    record = ClipRecord(key="a/b", speaker="s", split="train", duration_s=2.0, source={}, **there)
    return Clip(record, {})


def panels(figure: Figure | None) -> list[list[str]]:
    """The texts of each panel, by clip and from top to bottom."""
    assert figure is not None
    return [["|".join(text.get_text() for text in axis.texts) for axis in part.axes] for part in figure.subfigs]


def test_only_what_the_clips_have_gets_a_panel() -> None:
    words = (Word("hello", 0.1, 0.5), Word("there", 0.6, 0.9))
    assert panels(contact_sheet([clip(words=words), clip(words=())])) == [["hello|there"], ["nothing spoken"]]
    assert panels(contact_sheet([clip(labels=SERIES), clip()])) == [[""], ["no series"]]
    assert contact_sheet([clip(labels={"sentiment": 1.0})]) is None


def test_a_series_is_a_curve_on_the_clips_axis_and_not_in_the_title() -> None:
    figure = contact_sheet([clip(labels={"emotion": "sad", "sentiment": 1 / 3, **SERIES})])
    assert figure is not None
    (part,) = figure.subfigs
    assert part.get_suptitle() == "a/b   speaker s   train   2.00 s   emotion: sad, sentiment: 0.333"
    (axis,) = part.axes
    (curve,) = axis.lines
    assert curve.get_xdata()[[0, 10, 19]] == pytest.approx([0.0, 1.0, 1.9])
    assert list(curve.get_ydata()) == SERIES["arousal"]["values"]
    assert axis.get_xlim() == (0.0, 2.0)


def test_words_that_would_cover_each_other_are_on_different_lines() -> None:
    far = [Word("alpha", 0.0, 0.2), Word("beta", 1.0, 1.2)]
    near = [Word("extraordinarily", 0.0, 0.05), Word("conscientious", 0.05, 0.1)]

    def heights(words: list[Word]) -> set[float]:
        figure = contact_sheet([clip(words=tuple(words))])
        assert figure is not None
        return {text.get_position()[1] for text in figure.subfigs[0].axes[0].texts}

    assert len(heights(far)) == 1
    assert len(heights(near)) == 2


def test_what_an_encoder_is_given_stands_under_the_frames() -> None:
    crops = np.arange(50, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), dtype=np.uint8)
    content = io.BytesIO()
    np.save(content, crops)
    with_crops = Clip(clip(words=()).record, {"face_crops.npy": content.getvalue()})

    figure = contact_sheet([with_crops, clip(words=())])

    assert panels(figure) == [[""], ["no crops"]]
    assert figure is not None
    shown = [image.get_array()[0, 0] for image in figure.subfigs[0].axes[0].images]
    assert shown == pytest.approx(np.arange(10) * 4.75, abs=0.5)  # of two seconds less the slack, at their times
