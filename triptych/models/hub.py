"""What all models of transformers have in common here: quiet, plainly described, and without anybody's code."""

import json
from pathlib import Path
from typing import Any

LEFT_OUT = ("_name_or_path", "auto_map", "dtype", "transformers_version")
"""Of a model's own config: where it lay, code that is never run, and what is decided here."""


def be_quiet() -> None:
    """No warnings and no progress bars from transformers."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # what its warnings tell of weights is an error here
    logging.disable_progress_bar()


def plain(settings: Any) -> dict[str, Any]:
    """transformers' config as JSON types, from which `AutoConfig.for_model(**plain)` builds it again."""
    told = json.loads(settings.to_json_string(use_diff=False))
    return {key: value for key, value in told.items() if key not in LEFT_OUT}


def not_loaded(setting: str, name: str, what: str, error: Exception) -> str:
    """The message where a part of a model cannot be had.

    Args:
        setting: key in the config.
        name: of the model, or its folder.
        what: the part.
        error: of transformers.
    """
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(name).is_dir():
        return f"{setting}: {name}: its {what} cannot be loaded from this folder: {reason}"
    return (
        f"{setting}: {name} is no folder here, and its {what} cannot be had from the model hub: {reason} Without a "
        "connection, download it on another machine (hf download NAME --local-dir FOLDER) and give the folder's path"
    )
