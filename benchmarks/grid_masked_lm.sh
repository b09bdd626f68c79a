#!/usr/bin/env bash
# Which of its senses does the encoder read a hidden word from? Four ways to hide it, three seeds each, one report.
#
#   benchmarks/grid_masked_lm.sh GRID_ROOT [OUT]
#
# GRID_ROOT: clips in VoxCeleb2's layout with transcripts.ctm and vox2_meta.csv. OUT: default runs/grid_masked_lm.
# No held-out sentence shares its first four words with a training one. Settings were chosen on the validation split;
# each run reads the test split once, when it ends. 8 minutes a seed on 2 idle CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=${1:?usage: $0 GRID_ROOT [OUT]}
out=${2:-runs/grid_masked_lm}
export OMP_NUM_THREADS=1

if [ ! -f "$out/shards/manifest.json" ]; then
    python -m shards write grid corpus.voxceleb2.root="$root" out="$out/shards"
fi
python -m shards check "$out/shards"
runs=()
for seed in 0 1 2; do
    for config in grid_text_only grid grid_hide_text_audio grid_hide_all; do
        name=$config-seed-$seed
        torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m pretrain "$config" \
            runs="$out" name="$name" seed="$seed" stream.shards="$out/shards"
        runs+=("$out/$name")
    done
done
python -m triptych.report "${runs[@]}" out="$out/report" title="Masked words of GRID"
