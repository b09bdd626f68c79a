"""What a trained run says of the held-out clips, kept beside it so that another start of the command asks it once.

    runs/pretrained-seed-0/predictions/all.npz          of all that the run is shown
    runs/pretrained-seed-0/predictions/text+audio.npz   with the other modalities removed
    runs/pretrained-seed-0/predictions/words-asr.npz    with the words of other transcripts

Legend: N clips, C outputs, R rows: one of a clip, or of a series as many as the clip has steps.
"""

import io
import json
import logging
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.config import Init
from finetune.evaluation import Said
from triptych.files import write_atomically

logger = logging.getLogger(__name__)

ALL = "all"
"""The condition of clips as they are."""


class Run(NamedTuple):
    """What is trained once for each division."""

    init: Init
    share: float
    """Of the training labels."""
    seed: int


class Best(NamedTuple):
    """What valid chose of a run."""

    step: int
    score: float
    """On valid."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is left of a run on one division: the step that valid chose, and what it says of the held-out clips."""

    best: Best
    said: Mapping[str, Said]
    """Condition, as ALL, "text+audio" or "words-asr" -> what it says."""


Outcomes = Mapping[Run, Sequence[Outcome]]
"""Run -> its outcome on each division."""


def read_best(folder: Path) -> Best | None:
    """What valid chose, of a run that has been evaluated."""
    file = folder / "best.json"
    if not file.exists():
        return None
    told = json.loads(file.read_text())
    return Best(told["step"], told["value"])


def keep(folder: Path, condition: str, shown: str, best: Best, said: Said) -> None:
    """Write what a finished run says, whole or not at all.

    Args:
        folder: of the run.
        condition: name of what it was shown.
        shown: hash of what was shown, where another start may show something else by the same name.
        best: the step that says it.
        said: of all held-out clips, one or more.
    """
    path = _path(folder, condition)
    path.parent.mkdir(exist_ok=True)
    rows = [np.atleast_2d(values) for values in said.values()]
    content = io.BytesIO()
    np.savez(
        content,
        keys=np.array(list(said)),
        lengths=np.array([len(values) for values in rows]),
        values=np.concatenate(rows),
        is_series=next(iter(said.values())).ndim == 2,
        step=best.step,
        score=best.score,
        shown=shown,
    )
    write_atomically(path, content.getvalue())


def kept(folder: Path, conditions: Mapping[str, str], keys: Collection[str]) -> dict[str, Said]:
    """What a run has said before, of those conditions that it was shown.

    Left out is what is damaged, which is told, of other clips or words, or of another step than valid chose.

    Args:
        folder: of the run.
        conditions: that are wanted -> hash of what they show, see `keep`.
        keys: of all held-out clips.
    """
    best, found = read_best(folder), {}
    for condition, shown in conditions.items():
        path = _path(folder, condition)
        if best is None or not path.exists():
            continue
        try:
            said = _read(path, shown, best)
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            logger.warning("warning: %s: is damaged (%s); the clips are predicted again", path, error)
            continue
        if said is not None and said.keys() == set(keys):
            found[condition] = said
    return found


def _path(folder: Path, condition: str) -> Path:
    return folder / "predictions" / f"{condition}.npz"


def _read(path: Path, shown: str, best: Best) -> Said | None:
    """None where another step says it, or of something else.

    Raises:
        ValueError: the arrays do not fit together; also other errors, see `kept`.
    """
    with np.load(path, allow_pickle=False) as file:  # each array is verified by the archive's CRC-32
        if (int(file["step"]), float(file["score"])) != best or str(file["shown"]) != shown:
            return None
        keys, lengths, values = file["keys"].tolist(), file["lengths"], file["values"]
        is_series = bool(file["is_series"])
    if len(keys) != len(lengths) or lengths.sum() != len(values):
        raise ValueError(f"{len(keys)} keys, {len(lengths)} lengths, {len(values)} rows")
    rows = np.split(values, np.cumsum(lengths)[:-1])
    return dict(zip(keys, rows if is_series else (row[0] for row in rows), strict=True))
