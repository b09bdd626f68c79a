"""`python -m finetune CONFIG [a.b=c ...]`."""

import sys

from triptych import config as configs

HELP = """usage: python -m finetune CONFIG [a.b=c ...]
       torchrun --standalone --nproc-per-node N -m finetune CONFIG [a.b=c ...]

Train an encoder and a linear head together on labelled clips. The step that is best on valid is kept, and scored once
on test. Several seeds give one row with its spread; init=[pretrained,random] adds training from scratch beside it.

CONFIG is a file, or the name of one of configs/finetune/. Usually given as overrides:
  encoder=runs/<name>/encoder    a run's, a checkpoint's or a release's encoder
  shards=<folder>                a shard set with labels
  out=<folder>                   report.md, results.json, predictions.csv, figures/, and a run folder for each seed

The same command goes on with what was interrupted.
All fields, with what they mean: finetune/config.py
"""


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0 if arguments else 2
    from finetune.config import FinetuneConfig
    from finetune.train import run

    return run(configs.load(FinetuneConfig, configs.find(arguments[0], "finetune"), arguments[1:]))


if __name__ == "__main__":
    configs.run_command(main)
