"""python -m shards write|merge|check|show ..."""

import sys
from collections.abc import Sequence
from importlib import import_module

from triptych.config import UserError, help_status, nearest, run_command

COMMANDS = {
    "write": ("CONFIG", "raw corpus -> shard set; CONFIG is a file or a shipped name (grid, ...)"),
    "features": (
        "SHARDS",
        "shard set -> a new one in out=FOLDER with precomputed features, a frozen encoder's, or other words",
    ),
    "merge": ("FOLDER", "after all parts of `write` or `features`: their reports -> one shard set with a manifest"),
    "transcribe": ("CONFIG", "raw corpus -> word times by a speech recogniser, for a corpus without transcripts"),
    "check": ("FOLDER", "read a shard set again and compare every hash and count"),
    "vocabulary": ("FOLDER ...", "one vocabulary for one or several shard sets: what it covers; out=FILE writes it"),
    "overlap": ("SHARDS", "videos that a pretraining and an evaluation corpus share, and a list to leave them out"),
    "look_alike": (
        "CORPUS",
        "made-up files in the layout of a licensed corpus, in out=FOLDER: try it without the licence",
    ),
    "convert_pickle": (
        "FILE",
        "pickled features of MMSA or MulT -> csv and npy files in out=FOLDER, running nothing in it",
    ),
    "show": ("FOLDER", "look at what is in a shard set: tables, and a picture of some clips"),
    "attention": ("SHARDS", "pictures of what an encoder attends to in chosen clips, over time and across modalities"),
}
"""Name -> argument and what it does. A command is the module `shards.<name>` with `run(target, overrides) -> status`;
only the one that is asked for is imported."""
MODULES = {"features": "add_features"}
"""Command -> its module where that is not called the same: `shards.features` are the features themselves."""


def _help() -> str:
    lines = [f"python -m shards {name:<10} {argument} [a.b=c ...]" for name, (argument, _) in COMMANDS.items()]
    width = max(map(len, lines))
    text = "\n".join(f"{line:<{width}}   {does}" for line, (_, does) in zip(lines, COMMANDS.values(), strict=True))
    return f"{text}\n\na.b=c sets one field of the config, as in out=/data/shards. More: python -m shards NAME --help"


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name."""
    if (status := help_status(arguments[:1], _help())) is not None:
        return status
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"{command}: no such command.{nearest(command, COMMANDS)}")
    module = import_module(f"shards.{MODULES.get(command, command)}")
    if (status := help_status(rest, str(module.__doc__), least=0)) is not None:
        return status
    if not rest:
        raise UserError(f"{command}: {COMMANDS[command][0]} is missing (python -m shards --help)")
    target, *overrides = rest
    ended: int = module.run(target, overrides)
    return ended


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
