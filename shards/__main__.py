"""python -m shards write|check|show ..."""

import sys
from pathlib import Path

from triptych.config import UserError, find, load, run_command

HELP = """\
python -m shards write CONFIG [a.b=c ...]   raw corpus -> shard set; CONFIG is a file or a shipped name (grid, ...)
python -m shards check FOLDER               read a shard set again and compare every hash and count
python -m shards show FOLDER [a.b=c ...]    look at what is in a shard set

Fields of CONFIG are those of shards.write.WriteConfig; a.b=c overrides one of them, as in out=/data/shards."""


def main() -> int:
    """Run the command that the arguments name."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0 if arguments else 2
    command, *rest = arguments
    if command not in ("write", "check", "show"):
        raise UserError(f"{command}: no such command; there are write, check and show (python -m shards --help)")
    if not rest:
        raise UserError(
            f"{command}: {'CONFIG' if command == 'write' else 'FOLDER'} is missing (python -m shards --help)"
        )
    target, *overrides = rest
    # imported one by one: each command loads only what it needs
    if command == "write":
        from shards.write import WriteConfig, write

        write(load(WriteConfig, find(target, "shards"), overrides))
        return 0
    if command == "check":
        from shards import check

        if overrides:
            raise UserError(f"check: takes one folder; unexpected: {' '.join(overrides)}")
        return check.run(Path(target))
    from shards import show

    return show.run(Path(target), overrides)


if __name__ == "__main__":
    run_command(main)
