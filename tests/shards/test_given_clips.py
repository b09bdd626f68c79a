"""What a corpus may say of a clip beside its files, all the way through the writer: no media, unusable."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards import check, show
from shards.add_features import AddFeaturesConfig, add_features
from shards.corpora.config import CorpusConfig
from shards.corpora.ravdess import RavdessConfig
from shards.divisions.split import SplitConfig
from shards.features.config import AudioFeature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.media.media_form import StoreConfig
from shards.merge import merge
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader, StreamConfig, TrainLoader
from shards.record import Cut, Manifest, RawClip, Word
from shards.write import WriteConfig, prepare, run, write, write_part
from triptych.config import UserError

BOTH = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4)), video=VideoFeature(face_crops=FaceCropsConfig()))
WORDS = (Word("hello", 0.0, 0.5), Word("there", 0.5, 1.0))
Given = Callable[..., WriteConfig]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Given:
    """`given(clips, **changes)`: the config that writes these clips."""

    def configured(clips: Sequence[RawClip], **changes: Any) -> WriteConfig:
        def found(self: RavdessConfig) -> Iterator[RawClip]:
            return iter(clips)

        monkeypatch.setattr(RavdessConfig, "clips", found)
        fields: dict[str, Any] = {
            "corpus": CorpusConfig(ravdess=RavdessConfig(root="nowhere")),
            "out": str(tmp_path / "out"),
            "split": SplitConfig(train=0.5, valid=0.5, test=0),
            "samples_per_shard": 3,
            "workers": 1,
        }
        return WriteConfig(**{**fields, **changes})

    return configured


def speechless(number: int, **changes: Any) -> RawClip:
    clip = RawClip(key=f"c{number}", speaker=f"s{number}", duration_s=1.5 + number, words=WORDS, labels={"mood": "sad"})
    return replace(clip, **changes)


def test_a_clip_without_media_keeps_its_words_and_labels(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    manifest = write(given([speechless(number) for number in range(8)], features=BOTH))

    assert (manifest.written, manifest.counts["without_audio"], manifest.counts["without_video"]) == (8, 8, 8)
    assert (manifest.counts["seconds"], manifest.counts["words"]) == (40, 16)
    shard_set = ShardSet(out)
    assert shard_set.split("train").extensions(0) == ["json"]
    assert check.run(str(out)) == 0
    assert show.run(str(out)) == 0
    assert (out / "contact_sheet.png").stat().st_size > 1000
    given_labels, vocabulary = {"mood": ("happy", "sad")}, shard_set.vocabulary()
    evaluation = EvalLoader(
        shard_set, build(BOTH), vocabulary=vocabulary, labels=given_labels, batch_size=4, rank=0, world=1
    )
    stream = StreamConfig(shards=str(out), features=BOTH, global_batch=4, micro_batch=4)
    training = TrainLoader(shard_set, stream, vocabulary=vocabulary, labels=given_labels, seed=0, rank=0, world=1)
    for batch in (*evaluation.batches(), *next(training.steps(0))):
        present = {name: track.present.tolist() for name, track in batch.tracks.items()}
        assert present == {"text": [True] * 4, "audio": [False] * 4, "video": [False] * 4}
        assert batch.tracks["text"].times[0].tolist() == [[0.0, 0.5], [0.5, 1.0]]
        assert batch.labels["mood"].tolist() == [1] * 4


def test_clips_with_and_without_media_stand_side_by_side(
    given: Given, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_clip(tmp_path / "a.mp4", seconds=1.0)
    whole = [RawClip(key=f"m{number}", speaker=f"m{number}", video=path) for number in range(4)]
    sound = FeaturesConfig(audio=BOTH.audio)

    manifest = write(given([*whole, *(speechless(number) for number in range(4))]))
    again = add_features(AddFeaturesConfig(shards=str(tmp_path / "out"), out=str(tmp_path / "more"), features=sound))

    assert manifest.counts["without_audio"] == again.counts["without_audio"] == 4
    assert check.run(str(tmp_path / "more")) == 0
    split = ShardSet(tmp_path / "more").split("train")
    kinds = {key: split.extensions(number) for number, key in enumerate(split.keys)}
    assert {extension for key, kind in kinds.items() if key[0] == "m" for extension in kind} == {
        "json",
        "lfbe.npy",
        "mp4",
    }
    assert all(kind == ["json"] for key, kind in kinds.items() if key[0] == "c")


def test_what_belongs_to_a_clip_without_media_is_stored(given: Given, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n")
    attached = {"notes.csv": tmp_path / "notes.csv"}

    write(given([speechless(number, attachments=attached) for number in range(4)]))

    assert ShardSet(tmp_path / "out").split("train").read(0)["notes.csv"] == b"a,b\n"


@pytest.mark.parametrize("form", ["original", "frames"])
def test_cuts_of_one_recording_are_clips(
    given: Given, make_clip: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    """Six that follow each other from before its start to its end, and one after it."""
    path, out = make_clip(tmp_path / "long.mp4", seconds=3.0), tmp_path / "out"
    cuts = [Cut(start_s=0.5 * number - (number == 0), end_s=0.5 * (number + 1)) for number in (*range(6), 9)]
    clips = [
        RawClip(key=f"u{number}", speaker=f"s{number}", video=path, cut=cut, words=(Word("a", 1.2, 1.3),))
        for number, cut in enumerate(cuts)
    ]
    store = StoreConfig(media="frames", size=(32, 32)) if form == "frames" else StoreConfig()

    manifest = write(given(clips, features=BOTH, store=store, max_quarantined_share=0.2))

    assert list(manifest.quarantined) == ["u6"]
    assert "outside of the recording" in manifest.quarantined["u6"]
    assert manifest.written == 6
    assert check.run(str(out)) == 0
    split = ShardSet(out).split("train")
    media = {"original": {"mp4"}, "frames": {"frames.npz", "m4a"}}[form]
    for number, key in enumerate(split.keys):
        members = split.read(number)
        assert members.keys() == {"json", "lfbe.npy", "face_crops.npy"} | media
        record = json.loads(members["json"])
        assert record["duration_s"] == pytest.approx(0.5, abs=0.001)
        assert record["words"][0]["start_s"] == pytest.approx(0.2 if key == "u0" else 1.2)  # 1 s earlier, or as given
    loader = EvalLoader(ShardSet(out), build(BOTH), vocabulary=None, batch_size=3, rank=0, world=1, split="train")
    (batch,) = loader.batches()
    assert all(track.present.all() for track in batch.tracks.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "clip a: has neither media nor duration_s"),
        ({"duration_s": 1.0, "audio": Path("a.wav")}, "clip a: has both media and duration_s"),
        ({"duration_s": 0.0}, r"clip a: duration_s 0\.0; expected more than 0"),
        ({"duration_s": float("nan")}, "clip a: duration_s nan"),
    ],
)
def test_a_clip_that_cannot_be_is_a_bug_of_the_corpus(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RawClip(key="a", speaker="b", **fields)


def some_unusable() -> list[RawClip]:
    lost = [RawClip(key=f"x{number}", speaker="x", unusable="its file is missing") for number in range(2)]
    return [*(speechless(number) for number in range(8)), *lost]


def test_unusable_clips_are_quarantined_with_their_reason(given: Given, tmp_path: Path) -> None:
    """Written in parts, merged by hand, and taken on by a set with features."""
    config = given(some_unusable(), max_quarantined_share=0.2)
    for part in ("1/2", "2/2"):
        write_part(replace(config, part=part))

    manifest = merge(tmp_path / "out")

    assert (manifest.found, manifest.written) == (10, 8)
    assert manifest.quarantined == {"x0": "its file is missing", "x1": "its file is missing"}
    assert manifest == Manifest.from_json(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert check.run(str(tmp_path / "out")) == 0
    more = AddFeaturesConfig(shards=str(tmp_path / "out"), out=str(tmp_path / "more"), features=BOTH)
    assert add_features(more).quarantined == manifest.quarantined


def test_too_many_unusable_clips_stop_before_anything_is_opened(given: Given, tmp_path: Path) -> None:
    config = given(some_unusable(), max_quarantined_share=0.19)

    with pytest.raises(UserError) as caught:
        write(config)

    told = str(caught.value)
    assert "2 of 10 clips are unusable, more than max_quarantined_share (0.19)" in told
    assert "First: x0: its file is missing; x1: its file is missing" in told
    assert "max_quarantined_share=0.2" in told
    assert list((tmp_path / "out").iterdir()) == []
    assert write(given(some_unusable()[:8])).written == 8  # in the same folder, with what was missing put right


def test_a_check_lists_unusable_clips_and_keeps_the_limit(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = given(some_unusable(), check=True)
    run_check = prepare(config)

    assert run_check.quarantined.keys() == {"x0", "x1"}
    with pytest.raises(UserError, match=r"2 of 10 clips are unusable.*work keeps what was found: remove it"):
        write(replace(config, check=False))
    (tmp_path / "my.yaml").write_text(f"corpus: {{ravdess: {{root: nowhere}}}}\nout: {tmp_path / 'b'}\n")
    assert run(str(tmp_path / "my.yaml"), ["check=true"]) == 0
    told = capsys.readouterr().out
    assert "found 10 = to write 8 + filtered 0 + unusable 2" in told
    assert "unusable: x1: its file is missing" in told
    assert "the writing will stop: 2 of 10 clips are unusable" in told
    assert write(replace(config, check=False, max_quarantined_share=0.2)).written == 8


def test_unusable_clips_may_be_filtered_and_are_never_all(given: Given, tmp_path: Path) -> None:
    excluded = [replace(clip, source={"kind": clip.key[0]}) for clip in some_unusable()]
    assert write(given(excluded, keep={"kind": ["c"]})).filtered == {"kind=x": 2}
    with pytest.raises(UserError, match=r"every one of 2 clips is unusable\. First: x0"):
        prepare(given(excluded[8:], max_quarantined_share=1.0, out=str(tmp_path / "never")))
