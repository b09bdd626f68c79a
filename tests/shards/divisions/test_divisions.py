import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shards.corpora.ravdess import RavdessConfig
from shards.divisions.divisions import cross_validation_sha256, divisions
from shards.divisions.truth import Truth
from triptych.config import UserError
from triptych.protocols import registry
from triptych.protocols.splits import Fold, SplitRule, split_sha256

RAVDESS = registry.find("ravdess")


def sizes(division):
    return {split: len(keys) for split, keys in division.keys.items()}


def actors(keys):
    return {int(key[-2:]) for key in keys}


def with_rule(*folds):
    return replace(RAVDESS, splits=(SplitRule(name="ravdess/mine", folds=folds, source="made up"),))


def test_each_actor_that_is_there_is_tested_once_and_the_next_one_validates(written, ravdess):
    found = divisions(written(ravdess([3, 7, 12, 24])), RAVDESS, "leave_one_actor_out")

    assert [actors(one.keys["test"]) for one in found] == [{3}, {7}, {12}, {24}]
    assert [actors(one.keys["valid"]) for one in found] == [{7}, {12}, {24}, {3}]
    assert [actors(one.keys["train"]) for one in found] == [{12, 24}, {3, 24}, {3, 7}, {7, 12}]
    assert [one.name for one in found] == [f"ravdess/leave_one_actor_out/{number}" for number in (1, 2, 3, 4)]
    assert found[0].facts["clips"] == "16 / 8 / 8; 2 / 1 / 1 speakers"
    assert "ours" in found[0].facts["split is from"]


def test_clips_are_divided_in_whatever_split_they_were_written(written, ravdess, by_actor):
    records = ravdess(range(1, 7))
    one_split = divisions(written(records), RAVDESS, "leave_one_actor_out")
    three = divisions(written(by_actor(records, [2, 3], [5])), RAVDESS, "leave_one_actor_out")

    assert [one.keys for one in one_split] == [one.keys for one in three]
    assert cross_validation_sha256(one_split) == cross_validation_sha256(three)


def test_the_hash_of_a_cross_validation_is_over_those_of_its_folds_in_order(written, ravdess):
    found = divisions(written(ravdess(range(1, 4))), RAVDESS, "leave_one_actor_out")

    hashes = [one.facts["split SHA-256"] for one in found]
    assert hashes == [split_sha256(one.keys) for one in found]
    assert cross_validation_sha256(found) == hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert cross_validation_sha256(found[::-1]) != cross_validation_sha256(found)


def test_one_fold_by_its_number(written, ravdess):
    shard_set = written(ravdess(range(1, 5)))

    (third,) = divisions(shard_set, RAVDESS, "leave_one_actor_out/3")

    assert actors(third.keys["test"]) == {3}
    for split, told in (
        ("leave_one_actor_out/5", "no fold 5; it has folds 1 to 4"),
        ("leave_one_actor_out/x", "the fold 'x' of leave_one_actor_out is no number"),
        ("leave_one_actor_ou", "Did you mean leave_one_actor_out"),
    ):
        with pytest.raises(UserError, match=told):
            divisions(shard_set, RAVDESS, split)


def test_folds_that_test_none_of_the_clips_are_left_out_and_told(written, ravdess):
    """Of the six sets of four actors, those of actors 13 to 24 are not there."""
    shard_set = written(ravdess(range(1, 15)))

    found = divisions(shard_set, RAVDESS, "hicmae_6fold_valid_is_test")

    assert [one.name[-1] for one in found] == ["1", "2", "3", "4"]
    told = found[0].facts["folds left out"]
    assert told.startswith("2 of 6, which test none of these clips: ravdess/hicmae_6fold_valid_is_test/5")
    assert sizes(found[3]) == {"train": 96, "valid": 16, "test": 16}


def test_a_rule_that_validates_on_test_clips_is_followed_and_says_so(written, ravdess):
    found = divisions(written(ravdess(range(1, 9))), RAVDESS, "hicmae_6fold_valid_is_test")

    assert all(one.keys["valid"] == one.keys["test"] for one in found)
    assert "valid is test" in found[0].facts["split note"]
    assert "32 clips in both valid and test" in found[0].facts["shared by design"]


def test_a_fold_with_test_clips_and_none_to_train_or_validate_on_is_refused_with_what_would_do(written, ravdess):
    shard_set = written(ravdess(range(1, 9)))
    with pytest.raises(
        UserError, match=r"hicmae_6fold/1: tests 32 of the 64 clips here and has none in train: .*leave_one_actor_out"
    ):
        divisions(shard_set, RAVDESS, "hicmae_6fold")
    with pytest.raises(UserError, match=r"actors_10fold/3: .* none in valid: .*actors_10fold/1, .*actors_10fold/2"):
        divisions(shard_set, RAVDESS, "actors_10fold")
    assert actors(divisions(shard_set, RAVDESS, "actors_10fold/1")[0].keys["test"]) == {2, 5}


def test_a_rule_none_of_whose_folds_is_there_is_refused_with_the_reason(written, ravdess, record):
    songs = [record(f"03-02-03-01-01-01-{actor:02d}", f"actor-{actor:02d}") for actor in range(1, 4)]
    with pytest.raises(UserError, match=r"mpuc: no fold tests any of the 16 clips here: 16 in train"):
        divisions(written(ravdess([2, 3])), RAVDESS, "mpuc")
    with pytest.raises(UserError, match=r"emobox_6fold: no fold tests any of the 3 clips here: 3 song: "):
        divisions(written(songs), RAVDESS, "emobox_6fold")
    with pytest.raises(UserError, match=r"leave_one_actor_out: no fold tests any of the 3 clips"):
        divisions(written(songs), RAVDESS, "leave_one_actor_out")


def test_clips_that_a_rule_leaves_out_are_counted(written, ravdess, record):
    song = record("03-02-03-01-01-01-01", "actor-01")

    found = divisions(written([*ravdess(range(1, 4)), song]), RAVDESS, "leave_one_actor_out")

    assert found[0].facts["left out by the split"] == "1 song: the protocol is of the speech part"
    assert all(song.key not in keys for one in found for keys in one.keys.values())


def test_validation_clips_may_come_from_a_list(written, record):
    keys = [f"Ses0{number}F_impro01_{letter}000" for number in (1, 2, 5) for letter in "FM"]
    shard_set = written([record(key, f"{key[:5]}{key[-4]}") for key in keys])

    (found,) = divisions(shard_set, registry.find("iemocap"), "sse_ft", listed=[keys[-1]])

    assert sizes(found) == {"train": 4, "valid": 1, "test": 2}
    assert "validation clips are test clips" in found.facts["split note"]
    for split, listed, told in (
        ("sse_ft", None, "from a list that you have"),
        ("session_5fold", keys, "takes no list"),
        ("", keys, "the shard set's own takes no list"),
    ):
        with pytest.raises(UserError, match=told):
            divisions(shard_set, registry.find("iemocap"), split, listed)


def test_published_counts_stand_beside_what_was_found(written, record):
    rows = [record(f"{split}/{number}", "Joey", split=split) for split in ("train", "valid", "test") for number in "ab"]

    (found,) = divisions(
        written([replace(row, source={"split": row.split}) for row in rows]), registry.find("meld"), "official"
    )

    assert found.facts["published"].startswith("9,989 / 1,109 / 2,610")
    assert found.facts["clips"] == "2 / 2 / 2; 1 / 1 / 1 speakers"
    assert "1 speaker in both train and test (Joey)" in found.facts["shared by design"]


def test_a_leak_that_the_rule_does_not_declare_is_refused(written, ravdess):
    twins = [replace(one, speaker="actor-01") for one in ravdess(range(1, 4))]
    with pytest.raises(UserError, match=r"leave_one_actor_out/1 leaks: 1 speaker in both train and valid \(actor-01\)"):
        divisions(written(twins), RAVDESS, "leave_one_actor_out")


def test_the_sets_own_split_is_one_division_with_the_manifests_account(written, ravdess, by_actor):
    records = by_actor(ravdess(range(1, 6)), [1], [4])
    said = {"by": "speaker", "train": 0.6, "valid": 0.2, "test": 0.2, "seed": 3, "sha256": "f" * 64, "note": "mind"}

    (own,) = divisions(written(records, said), RAVDESS, "")

    assert own.name == "by speaker"
    assert [actors(own.keys[split]) for split in ("train", "valid", "test")] == [{2, 3, 5}, {1}, {4}]
    assert own.facts["split"] == "the shard set's own, by speaker"
    assert own.facts["split is from"] == "train 0.6, valid 0.2, test 0.2, seed 3"
    assert own.facts["split SHA-256"] == split_sha256(own.keys)
    assert own.facts["split SHA-256 as divided"].startswith("f" * 64)
    assert own.facts["split note"] == "mind"


def test_leaks_of_the_sets_own_split_are_found_again_unless_the_manifest_declares_them(written, ravdess, by_actor):
    records = [replace(one, source={"session": "x"}) for one in by_actor(ravdess(range(1, 6)), [1], [4])]
    with pytest.raises(UserError, match=r"by speaker of .* leaks: 1 session in both train and valid"):
        divisions(written(records), RAVDESS, "")
    (allowed,) = divisions(written(records, {"by": "speaker", "allow": ["session"]}), RAVDESS, "")
    assert allowed.facts["shared by design"].count("1 session in both") == 3
    (by_design,) = divisions(written(records, {"by": "source"}), RAVDESS, "")
    assert by_design.keys == allowed.keys


def test_a_set_without_a_test_split_says_what_to_do(written, ravdess):
    with pytest.raises(UserError, match=r"no clips in valid, test; name a rule of the protocol"):
        divisions(written(ravdess([1, 2])), RAVDESS, "")


def test_no_rule_can_look_at_a_label(written, ravdess):
    seen = set()

    def honest(clip):
        seen.add((clip.key, clip.speaker, clip.source["take"]))
        return ({"01": "test", "02": "valid"}.get(clip.key[-2:], "train"),)

    shard_set = written(ravdess([1, 2, 3]))
    (found,) = divisions(shard_set, with_rule(Fold(name="ravdess/mine", place=honest)), "mine")
    assert sizes(found) == {"train": 8, "valid": 8, "test": 8}
    assert len(seen) == 24
    cheat = Fold(name="ravdess/mine", place=lambda clip: ("test",) if clip.labels["emotion"] == "sad" else ("train",))
    with pytest.raises(AttributeError, match="no attribute 'labels'"):
        divisions(shard_set, with_rule(cheat), "mine")


def test_test_labels_change_neither_divisions_nor_what_is_trained_and_chosen_on(written, ravdess, by_actor):
    """What proves that nothing before the scores reads them: they may be anything."""
    records = by_actor(ravdess(range(1, 7)), [1], [4])
    others = [replace(one, labels={"emotion": "calm"}) if one.split == "test" else one for one in records]
    first, second = written(records), written(others)

    for split in ("", "leave_one_actor_out/4"):  # both test actor 4, whose labels differ
        (one,), (two,) = divisions(first, RAVDESS, split), divisions(second, RAVDESS, split)
        assert one == two
        visible = [*one.keys["train"], *one.keys["valid"]]
        truths = Truth(first, RAVDESS), Truth(second, RAVDESS)
        assert truths[0].of(visible).tolist() == truths[1].of(visible).tolist()
        assert truths[0].read == truths[1].read == set(visible)
        assert truths[0].of(one.keys["test"]).tolist() != truths[1].of(one.keys["test"]).tolist()


@pytest.mark.real
def test_480_real_recordings_of_eight_actors_are_eight_folds(real_data: Path, written, record):
    clips = RavdessConfig(root=str(real_data / "ravdess"), modality="audio").clips()
    shard_set = written([record(clip.key, clip.speaker, labels=clip.labels, **clip.source) for clip in clips])

    found = divisions(shard_set, RAVDESS, "leave_one_actor_out")

    assert [sizes(one) for one in found] == [{"train": 360, "valid": 60, "test": 60}] * 8
    assert cross_validation_sha256(found) == "d19c42f421374488d8abcfe51e992edb1e7c6a3e37be02898c8811854abfd949"
    tested = Counter(key for one in found for key in one.keys["test"])
    assert (len(tested), set(tested.values())) == (480, {1})
