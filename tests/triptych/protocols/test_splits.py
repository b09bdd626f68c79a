import hashlib

import pytest

from triptych.config import UserError
from triptych.protocols.leaks import Shared
from triptych.protocols.splits import Fold, LeftOut, by_group, leave_one_out, own_split, split_sha256


def by_key(clip):
    """Keys say their splits: "valid+test/3"."""
    splits = clip.key.split("/")[0]
    return LeftOut("asked to") if splits == "none" else tuple(splits.split("+"))


FOLD = Fold(name="made/up", place=by_key)


def clips_of(clip, *keys, **source):
    return [clip(key, f"speaker of {key}", source) for key in keys]


def test_the_hash_is_of_the_sorted_lines_of_key_tab_split():
    expected = hashlib.sha256(b"a\ttrain\nb\ttest\nc\ttrain\n").hexdigest()
    assert split_sha256({"train": ["c", "a"], "test": ["b"]}) == expected
    assert split_sha256({"test": ["b"], "train": ["a", "c"]}) == expected
    assert split_sha256({"train": ["b", "a"], "test": ["c"]}) != expected


def test_every_clip_is_assigned_or_left_out_with_a_reason(clip):
    clips = clips_of(clip, "train/2", "train/1", "valid/1", "none/1", "test/1")
    assigned = FOLD.assign(clips)
    assert assigned.keys == {"train": ("train/1", "train/2"), "valid": ("valid/1",), "test": ("test/1",)}
    assert assigned.left_out == {"none/1": "asked to"}
    assert assigned.reasons == {"asked to": 1}
    assert assigned.splits["valid/1"] == "valid"
    assert FOLD.assign(clips[::-1]).sha256 == assigned.sha256


def test_an_empty_split_is_refused_unless_the_rule_does_not_need_it(clip):
    clips = clips_of(clip, "train/1", "test/1", "none/1")
    with pytest.raises(UserError, match=r"made/up: none of 3 clips is in valid\. 1 left out: asked to"):
        FOLD.assign(clips)
    assert set(Fold(name="made/up", place=by_key, needs=("test",)).assign(clips).keys) == {"train", "test"}


@pytest.mark.parametrize("kind", ["speaker", "session", "video", "dialogue", "take"])
def test_a_leak_of_each_kind_is_refused_by_name(clip, kind):
    def tagged(key, name):
        return clip(key, name, {}) if kind == "speaker" else clip(key, f"speaker of {key}", {kind: name})

    clips = [tagged("train/1", "a"), tagged("train/2", "b"), tagged("valid/1", "c"), tagged("test/1", "b")]
    with pytest.raises(UserError, match=rf"made/up leaks: 1 {kind} in both train and test \(b\)"):
        FOLD.assign(clips)
    (told,) = FOLD.assign(clips, [Shared(kind)]).leaks
    assert (told.kind, told.first, told.second, told.names) == (kind, "train", "test", ("b",))
    with pytest.raises(UserError, match=f"1 {kind}"):  # declared for two other splits
        FOLD.assign(clips, [Shared(kind, ("valid", "test"))])


def test_a_clip_in_two_splits_is_refused(clip):
    clips = clips_of(clip, "train/1", "valid/1", "valid+test/1", "valid+test/2")
    with pytest.raises(UserError, match=r"2 clips in both valid and test \(valid\+test/1, valid\+test/2\)"):
        FOLD.assign(clips)


def test_many_leaks_are_counted_and_the_first_named(clip):
    clips = [clip(f"{split}/{number}", f"s{number}") for split in ("train", "test", "valid") for number in range(9)]
    with pytest.raises(UserError, match=r"9 speakers in both train and valid \(s0, s1, s2, \.\.\.\); 9 speakers"):
        FOLD.assign(clips)


def test_the_same_recording_under_two_keys_is_found_and_clips_left_out_do_not_leak(clip):
    clips = clips_of(clip, "train/1", "valid/1", "test/1") + clips_of(clip, "none/1", "test/2", video="v")
    assert FOLD.assign(clips).leaks == ()


def test_folds_over_groups_test_each_group_once_and_validate_on_the_next(clip):
    rule = by_group("x/y", [["a"], ["b"], ["c"]], lambda clip: clip.speaker, source="made up")
    clips = [clip(name, name) for name in "abcd"]
    tested = [rule.fold(number).assign(clips).keys for number in (1, 2, 3)]
    assert tested == [
        {"train": ("c",), "valid": ("b",), "test": ("a",)},
        {"train": ("a",), "valid": ("c",), "test": ("b",)},
        {"train": ("b",), "valid": ("a",), "test": ("c",)},
    ]
    assert rule.fold(1).assign(clips).reasons == {"d is in no fold of x/y": 1}
    with pytest.raises(UserError, match="x/y: give one; it has folds 1 to 3"):
        rule.fold()
    with pytest.raises(UserError, match="x/y: no fold 4; it has folds 1 to 3, as x/y/1"):
        rule.fold(4)


def test_one_out_makes_a_fold_of_each_group_that_the_clips_have(clip):
    def speaker(clip):
        return LeftOut("nobody") if clip.speaker == "-" else clip.speaker

    rule = leave_one_out("x/out", speaker, source="made up")
    clips = [clip(f"{name}/{number}", name) for name in ("d", "a", "-", "c") for number in range(2)]
    folds = rule.all_folds(clips)
    assert [fold.name for fold in folds] == ["x/out/1", "x/out/2", "x/out/3"]
    assigned = [fold.assign(clips) for fold in folds]
    assert [(found.keys["test"], found.keys["valid"]) for found in assigned] == [
        (("a/0", "a/1"), ("c/0", "c/1")),
        (("c/0", "c/1"), ("d/0", "d/1")),
        (("d/0", "d/1"), ("a/0", "a/1")),
    ]
    assert assigned[0].reasons == {"nobody": 2}
    with pytest.raises(UserError, match="none of 4 clips is in train"):
        rule.all_folds(clips[:4])[0].assign(clips[:4])
    with pytest.raises(UserError, match="x/out: its folds depend on the clips that there are; write them by another"):
        rule.fold(1)


def test_the_corpus_own_split_is_read_and_a_wrong_one_told_with_the_nearest(clip):
    assert own_split(clip("a", "s", {"split": "valid"})) == ("valid",)
    assert own_split(clip("a", "s")) == LeftOut("in no split of the corpus")
    with pytest.raises(UserError, match=r"a: its corpus says split 'tests'\. Did you mean test\?"):
        own_split(clip("a", "s", {"split": "tests"}))
