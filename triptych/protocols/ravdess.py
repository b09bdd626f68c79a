"""RAVDESS, speech part: 24 actors, two sentences, eight emotions, 1440 clips (96 neutral, 192 of each other).

Livingstone and Russo, PLoS ONE 13(5) e0196391, 2018. There is no official split: papers differ in theirs, so only
numbers over the same one compare. All rules place a performance, so that its av, video and audio files are together.
"""

import re
from dataclasses import replace
from hashlib import sha256
from itertools import product

from triptych.config import UserError
from triptych.protocols.leaks import Clip, Shared
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.splits import Fold, LeftOut, SplitRule, by_group, leave_one_out

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""In the order of the corpus's codes 01 to 08."""

_KEY = re.compile(r"0[1-3]-((0[12])-0[1-8]-0[12]-\d\d-\d\d-(\d\d))")

ACTORS_10FOLD = (
    (2, 5, 11),
    (3, 7, 8),
    (4, 14, 23),
    (10, 21, 24),
    (9, 16),
    (15, 22),
    (17, 18),
    (13, 20),
    (1, 6),
    (12, 19),
)
"""Men (odd) and then women (even), each in the order of the SHA-256 of "triptych ravdess actor NN", dealt in turn:
papers say ten folds of 24 actors and not which. Every fold has men and women."""
HICMAE_6FOLD = tuple(tuple(range(first, first + 4)) for first in range(1, 25, 4))
EMOBOX_6FOLD = ((1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22))
LUNA_JIMENEZ_5FOLD = ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22))
MPUC_VALID, MPUC_TEST = (8, 9, 20), (1, 4, 21)

_OURS = "validation is the next fold's actors, out of those that the paper trains on (ours)"


def take(clip: Clip) -> str | LeftOut:
    """The performance, "01-05-01-02-01-12": the name without the code of the modality; speech only.

    Raises:
        UserError: the key is no name of RAVDESS.
    """
    match = _KEY.fullmatch(clip.key.rsplit("/", 1)[-1])
    if match is None:
        raise UserError(f"{clip.key}: not a name of RAVDESS, like 01-01-05-01-02-01-12, which its splits read")
    return match[1] if match[2] == "01" else LeftOut("song: the protocol is of the speech part")


def _actor(clip: Clip) -> str | LeftOut:
    performance = take(clip)
    return performance if isinstance(performance, LeftOut) else f"actor {performance[-2:]}"


def _random_10fold() -> list[list[str]]:
    """The 1440 performances in the order of the SHA-256 of "triptych ravdess <take>", dealt to ten folds in turn."""
    codes = product(range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25))
    takes = [
        f"01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for emotion, intensity, statement, repetition, actor in codes
        if (emotion, intensity) != (1, 2)  # neutral is never strong
    ]
    takes.sort(key=lambda name: sha256(f"triptych ravdess {name}".encode()).digest())
    return [takes[number::10] for number in range(10)]


def _by_actor(name: str, folds: tuple[tuple[int, ...], ...], source: str, *, valid_is_test: bool = False) -> SplitRule:
    groups = [[f"actor {actor:02d}" for actor in actors] for actors in folds]
    return by_group(f"ravdess/{name}", groups, _actor, source=source, valid_is_test=valid_is_test)


def _mpuc(clip: Clip) -> tuple[str, ...] | LeftOut:
    performance = take(clip)
    if isinstance(performance, LeftOut):
        return performance
    actor = int(performance[-2:])
    return ("test",) if actor in MPUC_TEST else ("valid",) if actor in MPUC_VALID else ("train",)


SPLIT_RULES = (
    leave_one_out(
        "ravdess/leave_one_actor_out",
        _actor,
        source="one actor out, for as many actors as there are; validation is the next one there (ours)",
    ),
    _by_actor("actors_10fold", ACTORS_10FOLD, f"ten folds of actors, seeded; {_OURS}"),
    by_group(
        "ravdess/random_10fold",
        _random_10fold(),
        take,
        shared=(Shared("speaker"),),
        source="ten folds of performances without regard to the actor, seeded; validation is the next fold (ours)",
    ),
    _by_actor("hicmae_6fold", HICMAE_6FOLD, f"actors 01-04, 05-08, ... (HiCMAE's csv files); {_OURS}"),
    _by_actor(
        "hicmae_6fold_valid_is_test",
        HICMAE_6FOLD,
        "the same with HiCMAE's validation, which is the test set",
        valid_is_test=True,
    ),
    _by_actor("emobox_6fold", EMOBOX_6FOLD, f"EmoBox' groups of four actors; {_OURS}, where EmoBox shares speakers"),
    _by_actor("luna_jimenez_5fold", LUNA_JIMENEZ_5FOLD, f"Luna-Jimenez et al.'s groups; {_OURS}"),
    SplitRule(
        name="ravdess/mpuc",
        folds=(Fold(name="ravdess/mpuc", place=_mpuc),),
        source="the one split of actors in the code of Franceschini et al. (seed 42), whose paper says ten folds",
    ),
)

PUBLISHED = (
    Published(
        system="Franceschini et al. 2022, audio, faces and landmarks, linear",
        scores={"WA": 78.54},
        split="ten folds with actor split, which are not listed",
        source="Franceschini et al. 2022",
        grade="A",
        seed=True,
        note="2,880 files: av and video-only recordings; the released code has the one split `mpuc`",
    ),
    Published(
        system="Franceschini et al. 2022, the same without actor split",
        scores={"WA": 93.17},
        split="ten folds without actor split, which are not listed",
        source="Franceschini et al. 2022",
        grade="A",
        seed=True,
        note="people, and av and video-only files of one performance, are on both sides: no target",
    ),
    Published(
        system="HiCMAE-B, audio and video, fine-tuned",
        scores={"WA": 87.99},
        split="hicmae_6fold_valid_is_test",
        source="HiCMAE (folds read in its repository, the number as quoted by others)",
        grade="B",
        note="its code validates on the test folds",
    ),
    Published(
        system="VQ-MAE-AV",
        scores={"WA": 84.80},
        split="actor split",
        source="as quoted beside HiCMAE",
        grade="B",
    ),
    Published(
        system="Radoi et al., supervised",
        scores={"WA": 78.70},
        split="actor split",
        source="Franceschini et al. 2022",
        grade="A",
        note="as that paper quotes it",
    ),
    Published(system="people", scores={"WA": 80.0}, split="none", source="Franceschini et al. 2022", grade="A"),
)

RAVDESS = Protocol(
    name="ravdess",
    targets=(Target(label="emotion", form=EMOTIONS),),
    splits=SPLIT_RULES,
    published=PUBLISHED,
    note="RAVDESS speech (Livingstone and Russo 2018, CC BY-NC-SA 4.0); no official split, so compare over the same "
    "split only. Every sentence is said in every emotion: the words tell nothing.",
)
RAVDESS_7 = replace(
    RAVDESS,
    name="ravdess_7",
    targets=(
        Target(
            label="emotion",
            form=EMOTIONS,
            classes=tuple(name for name in EMOTIONS if name != "calm"),
            counted_as={"calm": "neutral"},
        ),
    ),
    published=(),
    note=f"{RAVDESS.note} Seven classes: calm counts as neutral.",
)
RAVDESS_6 = replace(
    RAVDESS,
    name="ravdess_6",
    targets=(Target(label="emotion", form=EMOTIONS, classes=EMOTIONS[2:]),),
    published=(),
    note=f"{RAVDESS.note} The six basic emotions: neutral and calm are left out.",
)
