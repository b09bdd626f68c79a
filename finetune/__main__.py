"""`python -m finetune CONFIG [a.b=c ...]`."""

import sys

from triptych import config as configs

HELP = """usage: python -m finetune CONFIG [a.b=c ...]
       torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node N -m finetune CONFIG [a.b=c ...]

Train an encoder and a head together on labelled clips. The step that is best on valid is kept, and what it says of the
held-out clips is scored once, after every choice. Several seeds give one row with its spread.

CONFIG is a file, or the name of one of configs/finetune/. Usually given as overrides:
  encoder=runs/<name>/encoder    a run's, a checkpoint's or a release's encoder; or a YAML file, or a name of
                                 configs/encoder/, that describes somebody else's model
  shards=<folder>                a shard set with labels
  out=<folder>                   report.md, results.json, predictions.csv, figures/, and a run folder for each seed

From scratch and frozen beside it: init=[random,frozen,pretrained]
Another benchmark:                protocol=mosei_emotion balanced=true, or another name in triptych/protocols
Cross-validation:                 split=leave_one_actor_out, or another rule of the protocol
Best of ten initialisations:      seeds=[0,1,2,3,4,5,6,7,8,9] best_of=10
How many labels it takes:         label_shares=[0.05,0.2,1]
Until valid gets no better:       trainer.patience=5
A part of the encoder fixed:      freeze=hub, towers, or all with unfreeze_every=200; layer_decay=0.9
Less memory:                      engine.precision=bf16, micro_batch=4, "engine.deepspeed={zero_stage: 2}"
With a recogniser's words:        transcripts.asr=<folder of python -m shards transcribe>
Another head:                     head.sse_ft={}, or mult, late_fusion, attention; finetune/heads/config.py
Several heads or settings, one table:   python -m finetune.ablation ROWS CONFIG [a.b=c ...]
Settings searched on valid:       python -m finetune.search SEARCH [a.b=c ...]
Attention drawn, clip by clip:    python -m finetune.attention <out>/runs/<run> out=<folder>

The same command goes on with what was interrupted.
All fields, with what they mean: finetune/config.py
"""


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP)) is not None:
        return status
    from finetune.config import FinetuneConfig
    from finetune.train import run

    return run(configs.load(FinetuneConfig, configs.find(arguments[0], "finetune"), arguments[1:]))


if __name__ == "__main__":
    configs.run_command(main)
