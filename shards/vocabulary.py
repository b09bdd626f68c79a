"""`python -m shards vocabulary SHARDS ... [size=88000] [min_count=1] [out=FILE] [glove=FILE]`: words of a run.

A shard set's own vocabulary holds every word of its training split. This command counts the training splits of one or
several sets together (a set is its folder, or a file of "word count" lines), keeps the most frequent words, and says
which share of the running words they cover, in each set, and what is left out. With out=FILE it writes them, most
frequent first, and

    python -m pretrain CONFIG stream.vocabulary=FILE

trains with these words in place of the set's own. With glove=FILE it also says which of them have a GloVe vector
(.txt, .gz, or ARCHIVE.zip/MEMBER).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shards.reading.index import ShardSet
from shards.words import glove
from shards.words.words import Vocabulary, read_counts
from triptych.config import UserError, load
from triptych.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which words a vocabulary holds."""

    shards: list[str]
    """Folders of shard sets, or files of "word count" lines."""
    size: int = 88_000
    """Most words; Khare et al. (2021) have 88,000 on VoxCeleb2."""
    min_count: int = 1
    """Least count of a word: what is said once can hardly be learnt, and may be misheard."""
    out: str | None = None
    """File to write; not written when not given."""
    glove: str | None = None
    """Word vectors in GloVe's text format, to see which words they have."""

    def __post_init__(self) -> None:
        for name in ("size", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; expected 1 or more")
        if twice := [name for name, count in Counter(map(_resolved, self.shards)).items() if count > 1]:
            raise ValueError(f"shards: {twice[0]} is given twice, and its words would count double")


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards vocabulary SHARDS ... [a.b=c ...]`; returns the exit status, 0."""
    more = [argument for argument in overrides if "=" not in argument]
    settings = [argument for argument in overrides if "=" in argument]
    build(load(VocabularyConfig, {"shards": [target, *more]}, settings))
    return 0


def build(config: VocabularyConfig) -> Vocabulary:
    """Count, choose and print; write where `out` is given.

    Raises:
        UserError: no shard set or a bad file, no word at all, vectors that cannot be read, or `out` exists already.
    """
    out = None if config.out is None else Path(config.out)
    if out is not None and out.exists():
        raise UserError(f"{out}: is there already, and a run may depend on it; choose another out=FILE")
    counts = {name: _counts(name) for name in config.shards}
    total = Counter[str]()
    for counted in counts.values():
        total.update(counted)
    if not total:
        raise UserError(f"{', '.join(config.shards)}: no word; were these shards written with transcripts?")
    often = {word: count for word, count in total.items() if count >= config.min_count}
    vocabulary = Vocabulary(Vocabulary.from_counts(often).words[: config.size])
    if not vocabulary.words:
        raise UserError(
            f"min_count: {config.min_count} leaves no word; the most frequent one comes {max(total.values())}x"
        )
    vectors = None if config.glove is None else glove.load(Path(config.glove), vocabulary.words)
    _print(config, vocabulary, counts, total)
    console = Console()
    if vectors is not None:
        console.print(f"{config.glove}: {vectors.told(total)}", soft_wrap=True, markup=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, vocabulary.to_bytes(total))
        console.print(f"written: {out}; train with it by stream.vocabulary={out}", soft_wrap=True, markup=False)
    return vocabulary


def _counts(name: str) -> dict[str, int]:
    path = Path(name)
    return read_counts(path) if path.is_file() else ShardSet(name).word_counts()


def _resolved(name: str) -> str:
    return str(Path(name).resolve())


def _print(
    config: VocabularyConfig, vocabulary: Vocabulary, counts: Mapping[str, Mapping[str, int]], total: Mapping[str, int]
) -> None:
    """A row for each set, and one for each reason to leave words out."""
    table = Table(title=f"vocabulary of {len(vocabulary.words):,} words")
    for column in ("", "different words", "running words", "covered"):
        table.add_column(column, justify="right" if column else "left")
    kept = set(vocabulary.words)
    rows = dict(counts) if len(counts) == 1 else {**counts, "together": total}
    for name, counted in rows.items():
        running = sum(counted.values())
        covered = sum(count for word, count in counted.items() if word in kept)
        share = f"{100 * covered / running:.2f} %" if running else "–"
        table.add_row(escape(name), f"{len(counted):,}", f"{running:,}", share)
    table.add_section()
    rare = {word: count for word, count in total.items() if count < config.min_count}
    beyond = {word: count for word, count in total.items() if word not in kept and word not in rare}
    for reason, left_out in ((f"rarer than {config.min_count}", rare), (f"beyond the first {config.size:,}", beyond)):
        if left_out:
            table.add_row(f"left out: {reason}", f"{len(left_out):,}", f"{sum(left_out.values()):,}", "")
    Console().print(table)
