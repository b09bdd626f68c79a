"""MOSEI, MOSI, MELD, AVEC and IEMOCAP: whose splits are the corpora's own, or sessions."""

import json

import pytest

from triptych.config import UserError
from triptych.protocols import mosei, mosi, registry
from triptych.protocols.standard_folds import StandardFolds


def folds_of(path):
    return {video: split for split, videos in json.loads(path.read_text()).items() for video in videos}


@pytest.mark.real
@pytest.mark.parametrize(("module", "counts"), [(mosei, "2249 / 300 / 678"), (mosi, "52 / 10 / 31")])
def test_the_sdks_folds_are_the_standard_ones_and_one_moved_video_is_not(real_data, module, counts):
    name = module.__name__.rsplit(".", 1)[-1]
    folds = folds_of(real_data / name / "standard_folds.json")
    assert module.STANDARD_FOLDS.verdict(folds) == f"the standard folds, {counts} videos"
    trained, tested = (next(video for video in folds if folds[video] == split) for split in ("train", "test"))
    with pytest.raises(UserError, match=f"{name}/standard: these are not the standard folds: {counts} videos"):
        module.STANDARD_FOLDS.verdict({**folds, trained: "test", tested: "train"})
    with pytest.raises(UserError, match=r"split\.by=source"):
        module.STANDARD_FOLDS.verdict({**folds, trained: "test"})


@pytest.mark.real
def test_mosis_videos_as_clips_follow_their_folds(real_data, clip):
    folds = folds_of(real_data / "mosi" / "standard_folds.json")
    clips = [
        clip(f"{video}/{part}", video, {"video": video, "split": folds[video]}) for video in folds for part in "ab"
    ]
    outside = clip("another/a", "another", {"video": "another"})
    assigned = registry.find_fold("mosi/standard").assign([*clips, outside])
    assert {split: len(keys) for split, keys in assigned.keys.items()} == {"train": 104, "valid": 20, "test": 62}
    assert assigned.note == "the standard folds, 52 / 10 / 31 videos"
    assert assigned.reasons == {"in no split of the corpus": 1}


def test_of_a_part_of_the_videos_it_cannot_be_told():
    folds = StandardFolds(name="x/standard", num_videos={"train": 2, "valid": 1, "test": 1}, sha256="0")
    told = folds.verdict({"a": "train", "b": "valid", "c": "test"})
    assert told == "1 / 1 / 1 of the 2 / 1 / 1 videos of the standard folds; of a part, the hash cannot tell"


def test_a_video_on_two_sides_is_refused_by_name(clip):
    sides = {"a": "train", "b": "valid", "c": "test", "d": "test"}
    clips = [clip(name, name, {"video": "v" if name in "ad" else name, "split": side}) for name, side in sides.items()]
    with pytest.raises(UserError, match=r"mosei/standard leaks: 1 video in both train and test \(v\)"):
        registry.find_fold("mosei_emotion/standard").assign(clips)


def test_meld_shares_characters_and_episodes_by_design_but_no_dialogue(clip):
    def row(split, dialogue, speaker):
        source = {"split": split, "dialogue": dialogue, "video": "s01e01"}
        return clip(f"{split}/{dialogue}/{speaker}", speaker, source)

    rows = [row("train", "a", "Joey"), row("valid", "b", "Joey"), row("test", "c", "Joey")]
    assigned = registry.find_fold("meld/official").assign(rows)
    assert {leak.kind for leak in assigned.leaks} == {"speaker", "video"}
    assert "characters" in assigned.note
    with pytest.raises(UserError, match=r"meld/official leaks: 1 dialogue in both train and test \(a\)"):
        registry.find_fold("meld/official").assign([*rows, row("test", "a", "Ross")])


def test_avec_has_no_need_of_a_test_part(clip):
    def windows(split, recording):
        source = {"split": split, "video": recording}
        return [clip(f"{recording}/{number}", recording, source) for number in range(3)]

    there = windows("train", "Train_01") + windows("valid", "Devel_01")
    for name in ("avec2017", "avec2019"):
        keys = registry.find(name).fold("official").assign(there).keys
        assert {split: len(found) for split, found in keys.items()} == {"train": 3, "valid": 3}
    with pytest.raises(UserError, match="none of 3 clips is in valid"):
        registry.find_fold("avec2017/official").assign(there[:3])


@pytest.fixture(scope="module")
def utterances(clip):
    """Two dialogues of each session, in each of which both speak, whoever wears the markers (the first letter)."""
    return [
        clip(
            f"Ses0{session}{wearer}_{dialogue}_{letter}{number:03d}",
            f"Ses0{session}{letter}",
            {
                "session": f"Ses0{session}",
                "dialogue": f"Ses0{session}{wearer}_{dialogue}",
                "video": f"Ses0{session}{wearer}_{dialogue}",
            },
        )
        for session in range(1, 6)
        for wearer, dialogue in (("F", "impro01"), ("M", "script02_1b"))
        for letter in "FM"
        for number in range(4)
    ]


def test_iemocaps_session_folds_train_on_three_sessions_and_share_nothing(utterances):
    rule = registry.find("iemocap").split("session_5fold")
    for number, fold in enumerate(rule.folds, start=1):
        assigned = fold.assign(utterances)
        assert {split: len(keys) for split, keys in assigned.keys.items()} == {"train": 48, "valid": 16, "test": 16}
        assert {key[:5] for key in assigned.keys["test"]} == {f"Ses0{number}"}
        assert {key[:5] for key in assigned.keys["valid"]} == {f"Ses0{number % 5 + 1}"}
        assert assigned.leaks == ()


def test_iemocaps_speaker_folds_go_by_who_speaks_and_say_what_validation_shares(utterances):
    rule = registry.find("iemocap").split("speaker_10fold")
    assert len(rule.folds) == 10
    assigned = rule.fold(2).assign(utterances)
    assert {key[:5] + key.split("_")[-1][0] for key in assigned.keys["test"]} == {"Ses01M"}
    assert {key[:5] + key.split("_")[-1][0] for key in assigned.keys["valid"]} == {"Ses01F"}
    assert len(assigned.keys["train"]) == 64
    assert {leak.kind for leak in assigned.leaks} == {"session", "video", "dialogue"}
    assert {(leak.first, leak.second) for leak in assigned.leaks} == {("valid", "test")}


def test_sse_fts_validation_inside_the_test_set_needs_its_list_and_is_marked(utterances):
    listed = [clip.key for clip in utterances if clip.key.startswith("Ses05F")]
    assigned = registry.find("iemocap").fold("sse_ft", listed=listed).assign(utterances)
    assert {split: len(keys) for split, keys in assigned.keys.items()} == {"train": 64, "valid": 8, "test": 16}
    assert set(assigned.keys["valid"]) == set(listed) < set(assigned.keys["test"])
    assert "validation clips are test clips" in assigned.note
    with pytest.raises(UserError, match="iemocap/sse_ft: takes its validation clips from a list"):
        registry.find_fold("iemocap/sse_ft")
    with pytest.raises(UserError, match=r"1 of the list are not of session 5, first: Ses01F_impro01_F000"):
        registry.find("iemocap").fold("sse_ft", listed=["Ses01F_impro01_F000"])
    with pytest.raises(UserError, match="session_5fold: takes no list"):
        registry.find("iemocap").fold("session_5fold", 1, listed=listed)


def test_names_of_another_corpus_are_refused(clip):
    with pytest.raises(UserError, match="dia0_utt1: not a name of IEMOCAP"):
        registry.find_fold("iemocap/session_5fold/1").assign([clip("dia0_utt1", "Joey")])
