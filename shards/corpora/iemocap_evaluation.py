"""IEMOCAP's EmoEvaluation files: what the annotators said of each utterance of a dialogue.

[6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]      consensus; V, A, D
C-E2:<TAB>Neutral; Anger;<TAB>(comment)         what annotator E2 chose; F1 and M1 are the actors themselves
A-E3:<TAB>val 3; act 2; dom  2;<TAB>()          what annotator E3 rated, 1 to 5; a value may be missing
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from triptych.config import UserError
from triptych.text_files import read_text

EMOTIONS = {
    "neu": "neutral",
    "fru": "frustrated",
    "ang": "angry",
    "hap": "happy",
    "sad": "sad",
    "sur": "surprised",
    "exc": "excited",
    "fea": "fearful",
    "dis": "disgust",
    "oth": "other",
    "xxx": "undecided",
}
"""Code of the consensus -> class. Undecided: no emotion had the votes of more than half of the annotators."""

_CHOICES = {
    "neutral state": "neutral",
    "frustration": "frustrated",
    "anger": "angry",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "fear": "fearful",
}
_NUMBER = r"-?\d+(?:\.\d+)?"
_CONSENSUS = re.compile(
    rf"\[({_NUMBER}) - ({_NUMBER})\]\s+(\S+)\s+([a-z]{{3}})\s+\[({_NUMBER}), ({_NUMBER}), ({_NUMBER})\]\s*"
)
_ANNOTATOR = re.compile(r"([AC])-([EFM]\d+):([^(]*)")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One utterance."""

    utterance: str
    start_s: float
    """In the dialogue's recording."""
    end_s: float
    emotion: str
    """Of EMOTIONS' classes."""
    valence: float
    activation: float
    dominance: float
    votes: list[str] = field(default_factory=list)
    """As E2:neutral+angry, in the order of the file."""
    ratings: list[str] = field(default_factory=list)
    """Valence, activation and dominance, as E3:3/2/2; - where one is missing."""


def read(path: Path) -> Iterator[Evaluation]:
    """The utterances of a file.

    Raises:
        UserError: the file cannot be read, or an utterance's line is not as above.
    """
    try:
        lines = read_text(path, errors="replace").splitlines()  # comments are of any encoding
    except OSError as error:
        raise UserError(f"{path}: the evaluation cannot be read: {error.strerror}") from None
    found: Evaluation | None = None
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):
            if found is not None:
                yield found
            found = _consensus(line, f"{path}, line {number}")
        elif found is not None and (match := _ANNOTATOR.match(line)):
            kind, annotator, said = match.groups()
            chosen = [" ".join(part.split()) for part in said.split(";") if part.strip()]
            if kind == "C":
                names = (choice.lower() for choice in chosen)
                found.votes.append(f"{annotator}:{'+'.join(_CHOICES.get(name, name) for name in names)}")
            else:
                rated = dict(part.partition(" ")[::2] for part in chosen)
                found.ratings.append(
                    f"{annotator}:{'/'.join(rated.get(name) or '-' for name in ('val', 'act', 'dom'))}"
                )
    if found is not None:
        yield found


def _consensus(line: str, where: str) -> Evaluation:
    match = _CONSENSUS.fullmatch(line)
    if match is None or match[4] not in EMOTIONS:
        raise UserError(
            f"{where}: {line!r}; expected [start - end], the utterance, one of {', '.join(EMOTIONS)}, and "
            "[valence, activation, dominance], with tabs between"
        )
    start, end, utterance, code, valence, activation, dominance = match.groups()
    return Evaluation(
        utterance=utterance,
        start_s=float(start),
        end_s=float(end),
        emotion=EMOTIONS[code],
        valence=float(valence),
        activation=float(activation),
        dominance=float(dominance),
    )
