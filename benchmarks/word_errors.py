"""What do recognition errors cost a model that was trained on the given words?

    python benchmarks/word_errors.py SHARDS out=FOLDER ["rates=[0.1,0.2,0.4]"] [seed=0]

writes the test clips' words, with errors at each rate (shards/reading/word_errors.py, its shares of substitutions,
deletions and insertions), as FOLDER/<rate>.ctm, and prints what to put behind `python -m finetune CONFIG ...` for them:
the same trained runs are then tested on each. The errors are drawn, where a recogniser's go by sound: near in rate, not
in kind.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.reading.index import ShardSet
from shards.reading.word_errors import WordErrors, WordErrorsConfig
from shards.transcripts.recognised import SILENCE
from triptych.config import load, run_command


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the command."""

    out: str
    rates: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.4])
    seed: int = 0


def main(arguments: Sequence[str]) -> int:
    """The command; see the module."""
    if not arguments:
        print(__doc__)
        return 2
    settings = load(Settings, {}, arguments[1:])
    shard_set, out = ShardSet(arguments[0]), Path(settings.out)
    test, counts, overrides = shard_set.split("test"), shard_set.word_counts(), []
    out.mkdir(parents=True, exist_ok=True)
    for rate in settings.rates:
        heard = WordErrors(WordErrorsConfig(rate=rate, seed=settings.seed), counts)
        path = out / f"{rate:g}.ctm"
        with path.open("w", encoding="utf-8") as file:
            for record in map(test.record, range(len(test))):
                words = heard(record.words or (), record.key)
                for word in words:
                    file.write(f"{record.key} 1 {word.start_s:.3f} {word.end_s - word.start_s:.3f} {word.text}\n")
                if not words:
                    file.write(f"{record.key} 1 0.000 {record.duration_s:.3f} {SILENCE}\n")
        overrides.append(f"transcripts.errors{round(100 * rate)}={path}")
    print(*overrides)
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
