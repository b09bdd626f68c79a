"""`python -m shards look_alike CORPUS out=FOLDER [seed=0]`: made-up files in the layout of a licensed corpus.

Same folders, names, columns and codes as the real files, and what is known to be wrong with them; tiny, and of drawn
faces and made-up voices. So every command can be tried, and a pipeline tested, before the licence has come. Then

    python -m shards write CORPUS corpus.CORPUS.root=FOLDER out=SHARDS

The words and moods are those of the generated corpus (`python -m shards write synthetic`): a score over them says
nothing about people.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from omegaconf import MISSING
from rich.console import Console

from triptych.config import UserError, load, nearest
from triptych.refusals import move

CORPORA: tuple[str, ...] = ("avec2017", "avec2019", "iemocap", "meld", "mosei", "mosi", "ravdess")
"""Each is the module `shards.corpora.look_alikes.<name>` with `make(folder, seed)`, which fills an empty folder."""


@dataclass(frozen=True, kw_only=True)
class LookAlikeConfig:
    """What is made."""

    out: str = MISSING
    """Folder to make; refused where it exists."""
    seed: int = 0
    """The same seed makes the same corpus."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Make the files; returns the exit status, 0.

    Raises:
        UserError: no such corpus, or a folder that is there already or cannot be made.
    """
    config = load(LookAlikeConfig, {}, overrides)
    make(target, Path(config.out), config.seed)
    Console().print(f"{config.out}: files like those of {target}", soft_wrap=True, markup=False)
    return 0


def make(corpus: str, out: Path, seed: int = 0) -> None:
    """Make the folder `out`, whole or not at all.

    Args:
        corpus: of CORPORA.
        out: must not exist yet.
        seed: of all that is drawn.

    Raises:
        UserError: no such corpus, or a folder that is there already or cannot be made.
    """
    if corpus not in CORPORA:
        raise UserError(f"look_alike: no {corpus!r}.{nearest(corpus, CORPORA)}")
    if out.exists():
        raise UserError(f"out: {out} is there already; remove it, or choose another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            folder = Path(scratch) / "made"
            folder.mkdir()
            import_module(f"shards.corpora.look_alikes.{corpus}").make(folder, seed)
            move(folder, out)
    except OSError as error:
        raise UserError(f"out: {out} cannot be written: {error.strerror}") from None
