"""What do recognition errors cost a model that was trained on the given words?

    python benchmarks/word_errors.py SHARDS out=FOLDER [rates=0.1,0.2,0.4] [seed=0]

writes the test clips' words, with errors at each rate (shards/word_errors.py, its shares of substitutions, deletions
and insertions), as FOLDER/<rate>.ctm, and prints what to put behind `python -m finetune CONFIG ...` for them: the same
trained runs are then tested on each. The errors are drawn, where a recogniser's go by sound: near in rate, not in kind.
"""

import sys
from pathlib import Path

from shards.index import ShardSet
from shards.transcripts.recognised import SILENCE
from shards.word_errors import WordErrors, WordErrorsConfig

options = {"rates": "0.1,0.2,0.4", "seed": "0", **dict(given.split("=", 1) for given in sys.argv[2:])}
shard_set, out = ShardSet(sys.argv[1]), Path(options["out"])
out.mkdir(parents=True, exist_ok=True)
test, counts, overrides = shard_set.split("test"), shard_set.word_counts(), []
for rate in options["rates"].split(","):
    heard = WordErrors(WordErrorsConfig(rate=float(rate), seed=int(options["seed"])), counts)
    path = out / f"{rate}.ctm"
    with path.open("w", encoding="utf-8") as file:
        for sample_id in range(len(test.keys)):
            record = test.record(sample_id)
            words = heard(record.words or (), record.key)
            for word in words:
                file.write(f"{record.key} 1 {word.start_s:.3f} {word.end_s - word.start_s:.3f} {word.text}\n")
            if not words:
                file.write(f"{record.key} 1 0.000 {record.duration_s:.3f} {SILENCE}\n")
    overrides.append(f"transcripts.errors{round(100 * float(rate))}={path}")
print(*overrides)
