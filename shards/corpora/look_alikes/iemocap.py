"""IEMOCAP's folders, tiny: five sessions, seven dialogues of four utterances each, the woman and the man in turn.

Wrong with it as with the release: files of macOS that start with ._, a turn that nobody labelled, a remark in a
transcription, a rating without a value, a comment that is not UTF-8, noises among the words, and an utterance without
alignment. One sentence wav is missing too, which is a fault of this one alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.corpora.look_alikes.people import PX, Utterance, in_turn, utter, write_wav
from shards.corpora.look_alikes.picture import write_picture
from shards.corpora.synthetic_script import EMOTIONS
from shards.record import Word

DIALOGUES = (
    "Ses01F_impro01",
    "Ses01M_script01_1",
    "Ses02F_impro01",
    "Ses02M_script01_1",
    "Ses03F_impro01",
    "Ses04M_script01_1",
    "Ses05F_impro01",
)
UNALIGNED = "Ses01M_script01_1_M000"
MISSING_WAV = "Ses02M_script01_1_F001"

_CODES = {"neutral": "neu", "happy": "hap", "sad": "sad", "angry": "ang"}
_CHOSEN = {"neutral": "Neutral", "happy": "Happiness", "sad": "Sadness", "angry": "Anger"}
_RATED = {"neutral": (3, 2, 2), "happy": (4, 3, 3), "sad": (2, 2, 1), "angry": (1, 4, 5)}
"""Valence, activation, dominance."""


def make(folder: Path, seed: int) -> None:
    """Fill an empty folder with 28 utterances: seven of each mood, one of them undecided, one excited."""
    for place, dialogue in enumerate(DIALOGUES):
        first = place % len(EMOTIONS)
        moods = EMOTIONS[first:] + EMOTIONS[:first]  # else women would have two of them only
        session = folder / f"Session{dialogue[4]}"
        aligned = session / "sentences" / "ForcedAlignment" / dialogue
        names = [f"{dialogue}_{letter}{number:03d}" for number in range(2) for letter in "FM"]
        said = [utter(seed, f"{name[:5]}{name[-4]}", name, mood) for name, mood in zip(names, moods, strict=True)]
        frames, _, starts = in_turn(said)
        _write_labels(session / "dialog", dialogue, list(zip(names, moods, said, starts, strict=True)))
        speaks_left = [name[-4] == dialogue[5] for name in names]
        picture = _side_by_side(frames, [len(utterance.frames) for utterance in said], speaks_left)
        write_picture(session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi", picture)
        for name, utterance in zip(names, said, strict=True):
            if name != MISSING_WAV:
                write_wav(session / "sentences" / "wav" / dialogue / f"{name}.wav", utterance.samples)
            if name != UNALIGNED:
                _write_alignment(aligned / f"{name}.wdseg", utterance.words)


def _side_by_side(frames: NDArray[np.uint8], lengths: Sequence[int], speaks_left: Sequence[bool]) -> NDArray[np.uint8]:
    """Two people in one picture, 3:2, black above and below; who listens keeps still and grey."""
    picture = np.zeros((len(frames), 2 * PX, 3 * PX, 3), np.uint8)
    rows, width = slice(PX // 2, PX // 2 + PX), 3 * PX // 2
    picture[:, rows] = 128
    margin = (width - PX) // 2
    sides = np.repeat(np.where(speaks_left, 0, width), lengths) + margin
    for shown, face, start in zip(picture, frames, sides, strict=True):
        shown[rows, start : start + PX] = face
    return picture


def _write_labels(dialog: Path, dialogue: str, turns: Sequence[tuple[str, str, Utterance, float]]) -> None:
    """A turn: name, mood, what is said, and where it starts."""
    evaluated, spoken = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], []
    for name, mood, utterance, start_s in turns:
        end_s = start_s + len(utterance.frames) / 25
        code = {"Ses01F_impro01_M001": "xxx", "Ses02F_impro01_M001": "exc"}.get(name, _CODES[mood])
        valence, activation, dominance = _RATED[mood]
        rated = f"val {valence}; act {activation};"
        evaluated += [
            f"[{start_s:.4f} - {end_s:.4f}]\t{name}\t{code}\t[{valence:.4f}, {activation + 0.5:.4f}, {dominance:.4f}]",
            f"C-E2:\t{_CHOSEN[mood]};\t()",
            f"C-E4:\t{_CHOSEN[mood]}; Frustration;\t(as a caf\xe9)",
            f"C-{name[-4]}1:\tNeutral state;\t()",
            f"A-E3:\t{rated} dom  {dominance};\t()",
            f"A-E4:\t{rated} dom  ;\t()\n",
        ]
        spoken.append(f"{name} [{start_s:08.4f}-{end_s:08.4f}]: {utterance.text}")
    spoken.insert(2, f"{dialogue}_MXX0 [000.0000-000.5000]: [LAUGHTER] Yes.")
    spoken.append("M: [BREATHING]")
    for kind, lines in (("EmoEvaluation", evaluated), ("transcriptions", spoken)):
        (dialog / kind).mkdir(parents=True, exist_ok=True)
        (dialog / kind / f"{dialogue}.txt").write_text("\n".join(lines) + "\n", encoding="latin-1")
        (dialog / kind / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07Mac OS X")


def _write_alignment(path: Path, words: Sequence[Word]) -> None:
    """As Sphinx writes it: frames of 10 ms, the last one of a word included."""
    lines = ["\t SFrm  EFrm    SegAScr Word"]
    now = 0
    for place, word in enumerate(words):
        first, last = round(word.start_s * 100), round(word.end_s * 100) - 1
        if now < first:
            lines.append(f"\t{now:5d} {first - 1:5d} {-40000:10d} {'<s>' if place == 0 else '++BREATHING++'}")
        lines.append(f"\t{first:5d} {last:5d} {-90000:10d} {word.text.upper()}{'(2)' if place % 2 else ''}")
        now = last + 1
    lines += [f"\t{now:5d} {now + 4:5d} {-20000:10d} </s>", f" Total score: {-90000 * len(words):11d}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
