import random
from collections import Counter

import pytest

from shards.divisions.split import SplitConfig, account, divide, draw
from shards.record import RawClip, Word
from triptych.config import UserError


def corpus(num_speakers: int = 40, clips_each: int = 5, num_sentences: int = 30) -> list[RawClip]:
    return [
        RawClip(
            key=f"s{speaker}/{clip}",
            speaker=f"s{speaker}",
            duration_s=3.0,
            words=tuple(
                Word(text, i, i + 1)
                for i, text in enumerate(["Say", f"w{(speaker + 7 * clip) % num_sentences}", f"c{clip}"])
            ),
            source={"video": f"v{speaker}-{clip // 2}"},
        )
        for speaker in range(num_speakers)
        for clip in range(clips_each)
    ]


def group_of(clip: RawClip, by: str) -> str:
    if by == "speaker":
        return clip.speaker
    return clip.source["video"] if by == "video" else " ".join(word.text for word in (clip.words or ())[:2])


@pytest.mark.parametrize("by", ["speaker", "video", "transcript_prefix:2"])
def test_groups_are_on_one_side_and_shares_are_met(by: str) -> None:
    clips = corpus()

    splits = draw(clips, SplitConfig(by=by))

    assert splits.keys() == {clip.key for clip in clips}
    sides: dict[str, set[str]] = {}
    for clip in clips:
        sides.setdefault(group_of(clip, by), set()).add(splits[clip.key])
    assert all(len(side) == 1 for side in sides.values())
    counts = Counter(splits.values())
    assert abs(counts["valid"] - 20) <= 5
    assert abs(counts["test"] - 20) <= 5


def test_a_pure_function_of_seed_and_clips() -> None:
    clips = corpus()
    shuffled = random.Random(1).sample(clips, len(clips))

    assert draw(clips, SplitConfig()) == draw(shuffled, SplitConfig())
    assert draw(clips, SplitConfig()) != draw(clips, SplitConfig(seed=1))


@pytest.mark.parametrize("num_speakers", [3, 4, 8])
def test_few_groups_still_fill_every_split(num_speakers: int) -> None:
    assert set(draw(corpus(num_speakers), SplitConfig()).values()) == {"train", "valid", "test"}
    assert set(draw(corpus(num_speakers), SplitConfig(train=0.1, valid=0.1, test=0.8)).values()) == {
        "train",
        "valid",
        "test",
    }


def test_too_few_groups_are_refused_with_the_number() -> None:
    with pytest.raises(UserError, match="2 groups cannot fill train, valid, test"):
        draw(corpus(num_speakers=2), SplitConfig())
    assert set(draw(corpus(num_speakers=2), SplitConfig(train=0.5, valid=0, test=0.5)).values()) == {"train", "test"}


def test_clips_without_the_property_stand_alone() -> None:
    silent = [RawClip(key=f"silent-{i}", speaker="s", duration_s=1.0) for i in range(50)]

    splits = draw([*corpus(), *silent], SplitConfig(by="transcript_prefix:2"))

    assert len({splits[clip.key] for clip in silent}) == 3
    with pytest.raises(UserError, match="no clip has it"):
        draw(silent, SplitConfig(by="video"))


@pytest.mark.parametrize("by", ["speakers", "transcript_prefix:0", "transcript_prefix:x", "transcript_prefix"])
def test_unknown_rules_are_refused(by: str) -> None:
    with pytest.raises(ValueError, match="expected speaker, video or transcript_prefix:N"):
        SplitConfig(by=by)


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match="sum 1"):
        SplitConfig(train=0.9, valid=0.1, test=0.1)


def labelled(key: str, split: str | None = None, speaker: str | None = None, **source: str) -> RawClip:
    found = source if split is None else {**source, "split": split}
    return RawClip(key=key, speaker=speaker or key, duration_s=1.0, source=found)


def test_the_corpus_own_split_is_followed_and_clips_outside_are_counted() -> None:
    clips = [labelled("a", "train"), labelled("b", "valid"), labelled("c", "test"), labelled("d")]

    assigned = divide(clips, SplitConfig(by="source"))

    assert assigned.splits == {"a": "train", "b": "valid", "c": "test"}
    assert assigned.reasons == {"in no split of the corpus": 1}
    with pytest.raises(UserError, match="source: this corpus has no split of its own"):
        divide([labelled("d")], SplitConfig(by="source"))
    with pytest.raises(UserError, match=r"'dev'.* There are train, valid, test"):
        divide([labelled("a", "dev")], SplitConfig(by="source"))


def test_the_corpus_own_split_may_share_people_and_says_so_but_no_recording() -> None:
    shared_person = [labelled("a", "train", speaker="Joey"), labelled("b", "test", speaker="Joey")]
    config = SplitConfig(by="source")

    assigned = divide(shared_person, config)

    said = account(assigned, {"by": "source"})
    assert said["shared"] == ["1 speaker in both train and test (Joey)"]
    assert said["sha256"] == assigned.sha256
    with pytest.raises(UserError, match=r"by source leaks: 1 video in both train and test \(v1\)"):
        divide([labelled("a", "train", video="v1"), labelled("b", "test", video="v1")], config)


def test_a_protocols_split_is_followed() -> None:
    clips = [labelled(f"01-01-03-01-01-01-{actor:02d}", speaker=f"actor-{actor:02d}") for actor in range(1, 25)]

    assigned = divide(clips, SplitConfig(by="protocol:ravdess/hicmae_6fold/2"))

    assert [key[-2:] for key in assigned.keys["test"]] == ["05", "06", "07", "08"]
    assert [key[-2:] for key in assigned.keys["valid"]] == ["09", "10", "11", "12"]


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("sources", "Did you mean source"),
        ("protocol:ravdes/hicmae_6fold/2", "Did you mean ravdess"),
        ("protocol:ravdess/hicmae_6fol/2", "Did you mean hicmae_6fold"),
        ("protocol:ravdess/hicmae_6fold", "give one; it has folds 1 to 6"),
        ("protocol:ravdess/leave_one_actor_out/3", "name this one where clips are evaluated"),
    ],
)
def test_mistaken_rules_are_told_with_the_nearest(by: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SplitConfig(by=by)


def test_a_drawn_split_that_leaks_is_refused_unless_allowed_by_name() -> None:
    """Everyone is in one recording, so that a split by speaker has it on all sides."""
    clips = [labelled(f"c{number}", video="talk show") for number in range(30)]

    with pytest.raises(UserError, match=r"by speaker leaks: 1 video in both train and valid \(talk show\)"):
        divide(clips, SplitConfig())
    allowed = divide(clips, SplitConfig(allow=["video"]))
    assert {leak.kind for leak in allowed.leaks} == {"video"}
    with pytest.raises(ValueError, match=r"split\.allow: no 'videos'\. Did you mean video\?"):
        SplitConfig(allow=["videos"])


def test_copies_of_one_performance_are_never_on_two_sides_of_a_drawn_split() -> None:
    takes = [labelled(f"{kind}-{take}", f"s{take}", take=f"t{take}") for take in range(20) for kind in ("av", "audio")]
    with pytest.raises(UserError, match=r"by video leaks: .* takes in both train and"):
        divide([labelled(c.key, video=c.key, take=c.source["take"]) for c in takes], SplitConfig(by="video"))
