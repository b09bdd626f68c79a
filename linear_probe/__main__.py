"""`python -m linear_probe CONFIG [a.b=c ...]`."""

import sys

from linear_probe.config import ProbeConfig
from triptych import config as configs

HELP = """usage: python -m linear_probe CONFIG [a.b=c ...]

Ask a frozen encoder what it knows: encode labelled clips once, fit a grid of heads on the training split, choose one on
valid, open the test labels, score once. Beside it stand constants, plain means of the inputs, the same encoder
untrained, and a control with shuffled labels.

CONFIG is a file, or the name of one of configs/linear_probe/. Usually given as overrides:
  encoder=runs/<name>/encoder    a run's, a checkpoint's or a release's encoder; or a YAML file, or a name of
                                 configs/encoder/, that describes somebody else's model
  shards=<folder>                a shard set with labels
  out=<folder>                   a new folder for report.md, results.json, predictions.csv, grid.csv and figures/

Several encoders in one table:  encoders.a=<folder> encoders.b=<folder>
Cross-validation:               split=leave_one_actor_out, or another rule of the protocol
What each modality knows:       inputs=[text+audio+video,text,audio,video]
Which layer knows it:           layers=[all], or layers=[stack] heads.linear={} for a learned weighted sum
How many labels it takes:       label_shares=[0.01,0.1,1]
Several corpora, one matrix:    on.mosi.shards=<folder> on.mosi.protocol=mosi on.meld.shards=...
While a pretraining runs:       watch=runs/<name>, in place of encoder and out
The next time without encoding: features=<folder>

All fields, with what they mean: linear_probe/config.py
"""


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP)) is not None:
        return status
    config = configs.load(ProbeConfig, configs.find(arguments[0], "linear_probe"), arguments[1:])
    if config.watch:
        from linear_probe.watch import watch  # torch loads slowly: a typo in the config should not wait for it

        watch(config)
        return 0
    from linear_probe.probe import run

    run(config)
    print(f"report: {config.out}/report.md")
    return 0


if __name__ == "__main__":
    configs.run_command(main)
