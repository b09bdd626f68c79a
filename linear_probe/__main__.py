"""`python -m linear_probe CONFIG [a.b=c ...]`."""

import sys

from linear_probe.config import ProbeConfig
from triptych import config as configs

HELP = """usage: python -m linear_probe CONFIG [a.b=c ...]

Ask a frozen encoder what it knows: encode labelled clips, fit a linear classifier on the training split, choose its
strength on valid, score test once. Beside it stand the majority class, plain means of the inputs, and the same encoder
untrained.

CONFIG is a file, or the name of one of configs/linear_probe/. Usually given as overrides:
  encoder=runs/<name>/encoder    a run's, a checkpoint's or a release's encoder
  shards=<folder>                a shard set with labels
  out=<folder>                   a new folder for report.md, results.json, predictions.csv and figures/

Several encoders in one table:  encoders.a=<folder> encoders.b=<folder>
What each modality knows:       inputs=[text+audio+video,text,audio,video]
All fields, with what they mean: linear_probe/config.py
"""


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0 if arguments else 2
    config = configs.load(ProbeConfig, configs.find(arguments[0], "linear_probe"), arguments[1:])
    from linear_probe.probe import run  # torch loads slowly: a typo in the config should not wait for it

    run(config)
    print(f"report: {config.out}/report.md")
    return 0


if __name__ == "__main__":
    configs.run_command(main)
