from types import SimpleNamespace

import pytest

from shards.features.config import FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.faces import FacesConfig
from shards.reading.suits import check_suits
from triptych.config import UserError
from triptych.labels import Number, Series
from triptych.modalities import FeatureSpec

INPUTS = {
    name: FeatureSpec(name=name, modality=name, version=1, rate_hz=None, shape=(), dtype="int64")
    for name in ("text", "audio", "video")
}
EMOTION = {"emotion": ("happy", "sad")}


@pytest.fixture
def shard_set():
    """Ten clips with sound and words, none with a picture."""
    manifest = SimpleNamespace(
        labels={"emotion": {"sad": 10}},
        numbers={"sentiment": {"rate_hz": None}, "arousal": {"rate_hz": 10.0}},
        counts={"without_words": 2, "without_audio": 0, "without_video": 10},
        written=10,
        features=[],
    )
    counts = {"the": 60, "cat": 30, "naïve": 10}
    return SimpleNamespace(location="shards", manifest=manifest, word_counts=lambda: counts)


def test_what_is_absent_and_how_many_words_are_known_is_told(shard_set):
    told = check_suits(shard_set, INPUTS, ("the", "naïve", "dog"), EMOTION)
    assert told["absent"] == "no clip has video"
    assert told["known words"].startswith("70.0 %")
    assert check_suits(shard_set, {"audio": INPUTS["audio"]}, (), EMOTION) == {}


def test_a_set_that_cannot_serve_is_refused(shard_set):
    with pytest.raises(UserError, match="no clip has the label 'mood'; there are: emotion, sentiment, arousal"):
        check_suits(shard_set, INPUTS, ("the",), {"mood": ("sad",)})
    with pytest.raises(UserError, match="no clip has video, which is all"):
        check_suits(shard_set, {"video": INPUTS["video"]}, (), EMOTION)
    with pytest.raises(UserError, match="none of the words here"):
        check_suits(shard_set, INPUTS, ("chat",), EMOTION)


@pytest.mark.parametrize("labels", [{"sentiment": Number()}, {"arousal": Series(10.0)}, EMOTION])
def test_a_label_of_the_form_asked_for_is_fine(shard_set, labels):
    assert check_suits(shard_set, {"audio": INPUTS["audio"]}, (), labels) == {}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"sentiment": ("sad", "happy")}, "label sentiment is a number, and is asked for as a class"),
        ({"emotion": Number()}, "label emotion is a class, and is asked for as a number"),
        ({"arousal": Series(25.0)}, "label arousal is a series at 10 Hz, and is asked for as a series at 25 Hz"),
    ],
)
def test_a_label_of_another_form_is_refused(shard_set, labels, message):
    with pytest.raises(UserError, match=message):
        check_suits(shard_set, {"audio": INPUTS["audio"]}, (), labels)


def boxed(*box: float) -> FeatureSpec:
    return build(FeaturesConfig(video=VideoFeature(face_crops=FaceCropsConfig(box=box))))["video"].spec


def test_a_box_of_other_frames_is_refused(shard_set):
    shard_set.manifest.counts["without_video"] = 0
    grid, ravdess = boxed(0.527, 0.3125, 0.321, 0.402), boxed(0.0, 0.25, 1.0, 0.5)
    shard_set.manifest.features = [ravdess.to_json()]

    with pytest.raises(UserError, match=r"reads the box \[0\.527, .*and the box of these frames is \[0\.0, 0\.25"):
        check_suits(shard_set, {"video": grid}, (), EMOTION)

    assert check_suits(shard_set, {"video": ravdess}, (), EMOTION) == {}
    assert check_suits(shard_set, {"video": boxed(0.0, 0.25, 1.0, 0.5)}, (), EMOTION) == {}
    followed = build(FeaturesConfig(video=VideoFeature(faces=FacesConfig())))["video"]
    shard_set.manifest.features = [followed.spec.to_json()]
    assert check_suits(shard_set, {"video": grid}, (), EMOTION) == {}  # nothing says what the frames are like
