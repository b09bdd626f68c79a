"""`python -m finetune.search CONFIG [a.b=c ...]`."""

import os
import sys
import warnings

from triptych import config as configs
from triptych.config import UserError

HELP = """usage: python -m finetune.search CONFIG [a.b=c ...]

Search settings of a fine-tuning: each trial trains with other values of the fields in `space`, suggested by TPE, and
Hyperband stops those that fall behind. Trials are compared by the protocol's metric on valid, with one seed; no
test clip or label is read. What is found is then trained over all seeds, and tested, by

  python -m finetune <out>/best.yaml

CONFIG is a file, or the name of one of configs/search/. Usually given as overrides:
  overrides.encoder=runs/<name>/encoder    any field of the fine-tuning that is searched around
  overrides.shards=<folder>
  out=<folder>                             report.md, best.yaml, figures/, trials/<number>/ and the journal study.jsonl
  trials=<number>                          may be raised later

The same command goes on with what was interrupted. Started several times, also on other nodes that see the folder, it
shares the trials out: give each its GPU by CUDA_VISIBLE_DEVICES. A trial whose worker was lost is taken up by the next
that is free. All fields, with what they mean: finetune/search/config.py
"""


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP)) is not None:
        return status
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'triptych-pretrain[search]'") from None
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("a trial trains in one process: start the command itself several times, without torchrun")
    from finetune.search.config import SearchConfig
    from finetune.search.work import run

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial has its line from us
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return run(configs.load(SearchConfig, configs.find(arguments[0], "search"), arguments[1:]))


if __name__ == "__main__":
    configs.run_command(main)
