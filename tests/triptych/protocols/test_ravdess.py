import hashlib
from collections import Counter

import pytest

from triptych.config import UserError
from triptych.protocols import ravdess, registry

PROTOCOL = registry.find("ravdess")


def sizes(assigned):
    return {split: len(keys) for split, keys in assigned.keys.items()}


@pytest.mark.parametrize(
    ("name", "actors"),
    [
        ("hicmae_6fold", [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        ("emobox_6fold", [[1, 11, 20, 21], [4, 10, 12, 14], [8, 9, 19, 23]]),
        ("luna_jimenez_5fold", [[2, 5, 14, 15, 16], [3, 6, 7, 13, 18]]),
    ],
)
def test_published_actor_folds(ravdess_names, name, actors):
    first = PROTOCOL.fold(name, 1).assign(ravdess_names)
    tested = [{int(key[-2:]) for key in first.keys[split]} for split in ("test", "valid")]
    assert tested == [set(actors[0]), set(actors[1])]
    each = 60 * len(actors[0])
    assert sizes(first) == {"train": 1440 - 2 * each, "valid": each, "test": each}
    assert first.leaks == ()


@pytest.mark.parametrize(
    ("name", "num_folds"),
    [
        ("leave_one_actor_out", 24),
        ("actors_10fold", 10),
        ("random_10fold", 10),
        ("hicmae_6fold", 6),
        ("emobox_6fold", 6),
        ("luna_jimenez_5fold", 5),
    ],
)
def test_every_clip_is_tested_once_over_the_folds_and_never_trained_on_then(ravdess_names, name, num_folds):
    folds = PROTOCOL.split(name).all_folds(ravdess_names)
    assert len(folds) == num_folds
    assigned = [fold.assign(ravdess_names) for fold in folds]
    tested = Counter(key for found in assigned for key in found.keys["test"])
    assert len(tested) == 1440
    assert set(tested.values()) == {1}
    assert all(sum(sizes(found).values()) == 1440 for found in assigned)


def test_ten_folds_of_actors_follow_their_documented_draw():
    def order(actors):
        return sorted(actors, key=lambda n: hashlib.sha256(f"triptych ravdess actor {n:02d}".encode()).hexdigest())

    dealt = order(range(1, 25, 2)) + order(range(2, 25, 2))
    assert tuple(tuple(sorted(dealt[number::10])) for number in range(10)) == ravdess.ACTORS_10FOLD
    assert all({actor % 2 for actor in fold} == {0, 1} for fold in ravdess.ACTORS_10FOLD)


HASHES = {
    "leave_one_actor_out": "8c503f4200a50fe04c7d8f568048596ffb12af34791e5ab9a0f1b0aa89e5bfaa",
    "actors_10fold": "16c5a90efa25d887b13d1d6fea65667a786f8dfe720aa84233d63d799ecb73b6",
    "random_10fold": "d039b6f94460621b3477e608d24c7f708f4acd9def12261e963310d3f9e5a9e9",
    "hicmae_6fold": "f0ce06e40a8d04026b2c978aa3eb0e8d11a6749b5d88c5175d16dc9951d2fd71",
    "emobox_6fold": "3115eab0b042f663c9cf4d6b98798f5b6747518721f1d6caecade88ca5ab0074",
    "luna_jimenez_5fold": "d292d8d14405d6d0671179a519f1819023a20c2cba55fe0a23fc6263085d8392",
    "mpuc": "3d1531b73a9c9576c08ae74b2bbae9d5707fa57fe55917c2fdafe29d1878d403",
}
"""SHA-256 over the hashes of all folds of the 1440 audio-visual speech clips: the folds may never change."""


@pytest.mark.parametrize("name", HASHES)
def test_folds_stay_as_they_are(ravdess_names, name):
    folds = PROTOCOL.split(name).all_folds(ravdess_names)
    hashes = "".join(fold.assign(ravdess_names).sha256 for fold in folds)
    assert hashlib.sha256(hashes.encode()).hexdigest() == HASHES[name]


def test_ten_folds_without_regard_to_actors_share_them_and_say_so(ravdess_names):
    assigned = PROTOCOL.fold("random_10fold", 3).assign(ravdess_names)
    assert sizes(assigned) == {"train": 1152, "valid": 144, "test": 144}
    assert {leak.kind for leak in assigned.leaks} == {"speaker"}


@pytest.mark.parametrize("name", ["random_10fold", "hicmae_6fold"])
def test_the_files_of_one_performance_are_together(ravdess_names, clip, name):
    twins = [clip(f"{code}{c.key[2:]}", c.speaker, c.source) for c in ravdess_names for code in ("01", "02", "03")]
    assigned = PROTOCOL.fold(name, 2).assign(twins)
    assert not [leak for leak in assigned.leaks if leak.kind == "take"]
    assert all(assigned.splits[f"03{key[2:]}"] == split for key, split in assigned.splits.items())


def test_hicmaes_own_validation_is_its_test_set_and_is_marked(ravdess_names):
    assigned = PROTOCOL.fold("hicmae_6fold_valid_is_test", 1).assign(ravdess_names)
    assert assigned.keys["valid"] == assigned.keys["test"]
    assert sizes(assigned) == {"train": 1200, "valid": 240, "test": 240}
    assert "valid is test" in assigned.note
    assert {(leak.first, leak.second) for leak in assigned.leaks} == {("valid", "test")}
    with pytest.raises(UserError, match=r"hicmae_6fold_valid_is_test/1: uses clips, as .* in valid and test"):
        assigned.splits  # noqa: B018  what a shard set would hold


def test_the_one_split_of_franceschinis_code(ravdess_names):
    assigned = PROTOCOL.fold("mpuc").assign(ravdess_names)
    assert sizes(assigned) == {"train": 1080, "valid": 180, "test": 180}
    assert {key[-2:] for key in assigned.keys["test"]} == {"01", "04", "21"}


def test_songs_and_unknown_actors_are_left_out_and_other_names_refused(ravdess_names, clip):
    fold = PROTOCOL.fold("hicmae_6fold", 1)
    extra = [clip("01-02-03-01-01-01-01", "actor-01"), clip("01-01-03-01-01-01-25", "actor-25")]
    assigned = fold.assign([*ravdess_names, *extra])
    assert assigned.left_out[extra[0].key].startswith("song")
    assert assigned.left_out[extra[1].key] == "actor 25 is in no fold of ravdess/hicmae_6fold"
    with pytest.raises(UserError, match="dia0_utt1: not a name of RAVDESS"):
        fold.assign([clip("dia0_utt1", "Joey")])
