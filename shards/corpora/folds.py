"""Which video of CMU-MOSEI or CMU-MOSI is for training, validation or test: the SDK's own file, or one in JSON.

cmu_mosei_std_folds.py    standard_train_fold = ["hh04W3xXa5s", ...], standard_valid_fold, standard_test_fold
folds.json                {"train": ["hh04W3xXa5s", ...], "valid": [...], "test": [...]}
"""

import ast
import json
from pathlib import Path

from shards.record import SPLITS
from triptych.config import UserError
from triptych.text_files import read_text

_PYTHON = {f"standard_{split}_fold": split for split in SPLITS}
MAX_BYTES = 2**24
"""MOSEI's has 45 kB."""


def read(path: Path) -> dict[str, str]:
    """Video -> split. A Python file is parsed and never run.

    Raises:
        UserError: the file cannot be read, lacks one of the lists, or has a video in two of them.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // 2**20} MiB")
        text = read_text(path)
        lists = _assigned(text) if path.suffix == ".py" else json.loads(text)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the folds cannot be read: {error.strerror}") from None
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: the folds cannot be read: {error}") from None
    splits: dict[str, str] = {}
    for split in SPLITS:
        videos = lists.get(split) if isinstance(lists, dict) else None
        if not isinstance(videos, list) or not all(isinstance(video, str) for video in videos):
            raise UserError(
                f"{path}: no list of videos for {split}; expected the SDK's cmu_mosei_std_folds.py "
                f"({', '.join(_PYTHON)}), or JSON with {', '.join(SPLITS)}"
            )
        for video in videos:
            if splits.setdefault(video, split) != split:
                raise UserError(f"{path}: {video} is in {splits[video]} and in {split}")
    return splits


def _assigned(source: str) -> dict[str, object]:
    """The literal lists that a Python file assigns."""
    return {
        _PYTHON[target.id]: ast.literal_eval(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in _PYTHON
    }
