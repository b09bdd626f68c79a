"""IEMOCAP: ten actors in five sessions, one man and one woman each, scripted and improvised (Busso et al. 2008)."""

import re
from collections.abc import Collection
from dataclasses import replace

from triptych.config import UserError
from triptych.protocols.leaks import KINDS, Clip, Shared
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.splits import Fold, LeftOut, Place, SplitRule, by_group

EMOTIONS = (
    "angry",
    "happy",
    "neutral",
    "sad",
    "excited",
    "frustrated",
    "surprised",
    "fearful",
    "disgust",
    "other",
    "undecided",
)
SESSIONS = tuple(f"Ses0{number}" for number in range(1, 6))

_UTTERANCE = re.compile(r"(Ses0[1-5])[FM]_\w+_([FM])\w*")


def _parts(key: str) -> tuple[str, str]:
    """Session and who speaks, ("Ses01", "F"), of an utterance's name. The first letter in it is who wears markers.

    Raises:
        UserError: the key is no name of IEMOCAP.
    """
    match = _UTTERANCE.fullmatch(key.rsplit("/", 1)[-1])
    if match is None:
        raise UserError(f"{key}: not a name of IEMOCAP, like Ses01F_impro01_F000, which its splits read")
    return match[1], match[2]


def _session(clip: Clip) -> str | LeftOut:
    return _parts(clip.key)[0]


def _one_speaker_out(session: str, letter: str) -> Place:
    def place(clip: Clip) -> tuple[str, ...]:
        its_session, its_letter = _parts(clip.key)
        if its_session != session:
            return ("train",)
        return ("test",) if its_letter == letter else ("valid",)

    return place


def _sse_ft(listed: Collection[str]) -> Fold:
    """Session 5 is the test set, and the listed part of it is the validation set too."""
    names = {name.rsplit("/", 1)[-1] for name in listed}
    if strange := sorted(name for name in names if _parts(name)[0] != SESSIONS[-1]):
        raise UserError(f"split iemocap/sse_ft: {len(strange)} of the list are not of session 5, first: {strange[0]}")

    def place(clip: Clip) -> tuple[str, ...]:
        if _parts(clip.key)[0] != SESSIONS[-1]:
            return ("train",)
        return ("valid", "test") if clip.key.rsplit("/", 1)[-1] in names else ("test",)

    return Fold(
        name="iemocap/sse_ft",
        place=place,
        shared=tuple(Shared(kind, ("valid", "test")) for kind in KINDS),
        note="validation clips are test clips: settings were chosen on a part of the test set, so scores are too high",
    )


SESSION_5FOLD = by_group(
    "iemocap/session_5fold",
    [[session] for session in SESSIONS],
    _session,
    source="five folds, one session out each; validation is the next session, out of those that papers train on (ours)",
)
SPEAKER_10FOLD = SplitRule(
    name="iemocap/speaker_10fold",
    folds=tuple(
        Fold(
            name=f"iemocap/speaker_10fold/{number}",
            place=_one_speaker_out(session, letter),
            shared=tuple(Shared(kind, ("valid", "test")) for kind in ("session", "video", "dialogue")),
            note="validation is the other speaker of the test session: the other side of the same dialogues",
        )
        for number, (session, letter) in enumerate(
            ((session, letter) for session in SESSIONS for letter in ("F", "M")), start=1
        )
    ),
    source="ten folds, one speaker out each (Ses01F, Ses01M, ...); the other of the session validates",
)
SSE_FT = SplitRule(
    name="iemocap/sse_ft",
    listed=_sse_ft,
    source="SSE-FT's released label files: sessions 1-4 train, session 5 test, whose 518 validation clips are among "
    "its 1,241 test clips",
)

_PUBLISHED = (
    Published(
        system="emotion2vec, sound, frozen, linear",
        scores={"WA": 71.8},
        split="session_5fold",
        source="as quoted of its paper",
        grade="B",
        note="about; the validation split is another one",
    ),
    Published(
        system="HiCMAE-B, sound and picture, fine-tuned",
        scores={"WA": 68.36, "UA": 68.21},
        split="five folds by session",
        source="HiCMAE, Table 10, as quoted",
        grade="B",
    ),
    Published(
        system="AV-HuBERT, sound and picture",
        scores={"WA": 46.45},
        split="five folds by session",
        source="HiCMAE, Table 10, as quoted",
        grade="B",
        note="sound alone 58.54: joining a weak face branch can lose",
    ),
    Published(
        system="WavLM-large, frozen",
        scores={"UA": 69.47},
        split="EmoBox' folds",
        source="EmoBox",
        grade="B",
    ),
)

IEMOCAP = Protocol(
    name="iemocap",
    targets=(
        Target(
            label="emotion",
            form=EMOTIONS,
            classes=("angry", "happy", "neutral", "sad"),
            counted_as={"excited": "happy"},
        ),
    ),
    metrics=("WA", "UA", "weighted F1"),
    select="UA",
    splits=(SESSION_5FOLD, SPEAKER_10FOLD, SSE_FT),
    published=_PUBLISHED,
    note="Four classes, excited counts as happy: 5,531 utterances. Scripted dialogues repeat in all sessions, so their "
    "words are known from training.",
)
IEMOCAP_HAPPY = replace(
    IEMOCAP,
    name="iemocap_happy",
    targets=(Target(label="emotion", form=EMOTIONS, classes=("neutral", "happy", "sad", "angry")),),
    published=(
        Published(
            system="SSE-FT",
            scores={
                "happy accuracy": 86.5,
                "happy weighted F1": 85.7,
                "sad accuracy": 86.7,
                "sad weighted F1": 86.2,
                "angry accuracy": 89.4,
                "angry weighted F1": 89.0,
                "neutral accuracy": 76.0,
                "neutral weighted F1": 75.9,
            },
            split="sse_ft",
            source="Siriwardhana et al. 2020",
            grade="A",
            seed=True,
            note="each emotion against the rest; 518 of its test clips chose the checkpoint",
        ),
    ),
    note="Four classes without excited, as MulT and SSE-FT have them, who score each against the rest.",
)
IEMOCAP_6 = replace(
    IEMOCAP,
    name="iemocap_6",
    targets=(
        Target(
            label="emotion",
            form=EMOTIONS,
            classes=("happy", "sad", "neutral", "angry", "excited", "frustrated"),
        ),
    ),
    metrics=("weighted F1", "WA", "UA"),
    select="weighted F1",
    published=(
        Published(
            system="MiSTER-E, speech and text",
            scores={"weighted F1": 70.9},
            split="not said in the abstract",
            source="abstract of arXiv 2602.23300",
            grade="A",
        ),
    ),
    note="Six classes, as work on conversations has them.",
)
