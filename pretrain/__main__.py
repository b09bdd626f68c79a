"""Pretrain an encoder on a shard set.

    python -m pretrain CONFIG [a.b=c ...]                              one process
    torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m pretrain CONFIG [a.b=c ...]    on one machine
    sbatch --nodes=8 ... slurm/pretrain.sbatch CONFIG [a.b=c ...]      many nodes

CONFIG is a YAML file or the name of a shipped one (configs/pretrain). The fields are those of pretrain.config; any of
them can be overridden, as in `optimizer.lr=3e-4`. `check=true` trains nothing and says what the run would need.

The run lies in <runs>/<name>. The same command again continues it from its newest checkpoint, with the same clips,
masks and losses as if it had never stopped. Exit code 75 means: asked to stop, saved, start me again.
"""

import atexit
import os
import sys

from pretrain.config import PretrainConfig
from pretrain.train import pretrain
from triptych.config import find, help_status, load, run_command


def main() -> int:
    """The command."""
    arguments = sys.argv[1:]
    if (status := help_status(arguments, str(__doc__))) is not None:
        return status
    return pretrain(load(PretrainConfig, find(arguments[0], "pretrain"), arguments[1:]))


def leave(code: int) -> None:
    """End this process with its exit handlers (loader workers, logs) but without the interpreter's teardown.

    After ZeRO stage 3 over gloo the teardown aborts now and then (torch 2.11, deepspeed 0.19), and exit code 134 would
    call a finished run failed, and a preempted one not worth starting again.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        run_command(main)
    except SystemExit as done:
        leave(int(done.code or 0))
