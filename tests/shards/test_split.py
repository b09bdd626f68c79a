import random
from collections import Counter

import pytest

from shards.record import RawClip, Word
from shards.split import SplitConfig, draw
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
