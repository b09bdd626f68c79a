from types import SimpleNamespace

import pytest

from shards.suits import check_suits
from triptych.config import UserError
from triptych.modalities import FeatureSpec

INPUTS = {
    name: FeatureSpec(name=name, modality=name, version=1, rate_hz=None, shape=(), dtype="int64")
    for name in ("text", "audio", "video")
}


@pytest.fixture
def shard_set():
    """Ten clips with sound and words, none with a picture."""
    manifest = SimpleNamespace(
        labels={"emotion": {"sad": 10}},
        counts={"without_words": 2, "without_audio": 0, "without_video": 10},
        written=10,
    )
    counts = {"the": 60, "cat": 30, "naïve": 10}
    return SimpleNamespace(location="shards", manifest=manifest, word_counts=lambda: counts)


def test_what_is_absent_and_how_many_words_are_known_is_told(shard_set):
    told = check_suits(shard_set, INPUTS, ("the", "naïve", "dog"), "emotion")
    assert told["absent"] == "no clip has video"
    assert told["known words"].startswith("70.0 %")
    assert check_suits(shard_set, {"audio": INPUTS["audio"]}, (), "emotion") == {}


def test_a_set_that_cannot_serve_is_refused(shard_set):
    with pytest.raises(UserError, match="no clip has the label 'mood'; there are: emotion"):
        check_suits(shard_set, INPUTS, ("the",), "mood")
    with pytest.raises(UserError, match="no clip has video, which is all"):
        check_suits(shard_set, {"video": INPUTS["video"]}, (), "emotion")
    with pytest.raises(UserError, match="none of the words here"):
        check_suits(shard_set, INPUTS, ("chat",), "emotion")
