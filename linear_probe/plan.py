"""What a probe of one corpus will do, made before anything is read: rows, divisions, and which features they need."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from linear_probe.baselines import Baseline, Baselines
from linear_probe.blocks import Block, Source
from linear_probe.config import ProbeConfig, ScoredConfig
from linear_probe.extract import extract
from linear_probe.rows import Row, encoder_views, subsets
from linear_probe.sources import EncoderSource
from linear_probe.study import Study
from shards.divisions.evaluation_set import EvaluationSet
from shards.reading.encoders import Opened
from triptych.evaluation.answers import rate_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One corpus, every system."""

    config: ProbeConfig
    data: EvaluationSet
    rows: Sequence[Row]
    """Baselines before the first encoder of their architecture."""
    encoder_rows: Sequence[Row]
    """Of `rows`: those of the encoders."""
    pairs: Sequence[tuple[str, str]]
    """Titles of rows whose difference is wanted."""
    curve_rows: Sequence[Row]
    """Those of a learning curve: of the first inputs, without the inputs' own."""
    sources: Mapping[str, Source]
    facts: Mapping[str, str]

    @property
    def wanted(self) -> dict[str, list[Block]]:
        """Source -> blocks, those of the rows with fewer modalities shown included."""
        wanted: dict[str, dict[Block, None]] = {}
        for row in self.rows:
            reduced = subsets(row) if self.config.missing and row in self.encoder_rows else []
            for view in row.views:
                blocks = [block for one in (view, *map(view.shown, reduced)) for block in one.blocks]
                for source in row.sources:
                    wanted.setdefault(source, {}).update(dict.fromkeys(blocks))
        return {source: list(blocks) for source, blocks in wanted.items()}

    def study(self) -> Study:
        """Extract the features, or take them from the cache; labels of test clips stay shut."""
        tables = extract(
            self.data.shard_set,
            self.sources,
            self.wanted,
            cache=Path(self.config.features) if self.config.features else None,
            batch_size=self.config.micro_batch,
            workers=self.config.workers,
            device=device(),
        )
        return Study(self.config, self.data.protocol, self.data.divisions, self.data.truth, tables, device())


def device() -> torch.device:
    """Where encoders run and heads are fitted."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_plan(config: ProbeConfig, scored: ScoredConfig) -> Plan:
    """Find out what there is to do.

    Raises:
        UserError: no such encoder, protocol, class, split, modality, output or layer; labels that no clip has; a split
            that leaks.
    """
    data = EvaluationSet.open(
        scored.shards, config.cache, scored.protocol, scored.classes, split=scored.split, listed=scored.listed
    )
    rate_hz = rate_of(data.protocol)
    known = Baselines(config.baselines, rate_hz, device(), data.shard_set)
    asked: dict[str, _Asked] = {}
    facts: dict[str, str] = {}
    for name, given in config.named_encoders().items():
        opened = data.open_encoder(given)
        rows = tuple(
            Row(system=name, inputs=inputs, sources=(name,), views=views)
            for inputs in dict.fromkeys(config.inputs or ["+".join(opened.encoder.inputs)])
            for views in [encoder_views(config, name, opened.encoder, inputs, rate_hz)]
        )
        shown = {modality for row in rows for modality in row.modalities}
        facts |= _facts(data, name, given, opened, shown)
        asked[name] = _Asked(opened, rows, known.beside(name, opened, shown))
    encoder_rows = [row for one in asked.values() for row in one.rows]
    table = {row.title: row for one in asked.values() for row in one.table()}
    first, *others = next(iter(asked.values())).rows
    return Plan(
        config=config,
        data=data,
        rows=list(table.values()),
        encoder_rows=encoder_rows,
        pairs=[
            *(pair for one in asked.values() for pair in one.pairs()),
            *((first.title, row.title) for row in others),
        ],
        curve_rows=[row for row in table.values() if row.inputs == first.inputs and row.views == first.views],
        sources={source: one for every in asked.values() for source, one in every.sources().items()},
        facts=facts,
    )


@dataclass(frozen=True)
class _Asked:
    """An encoder with its rows and what stands beside them."""

    opened: Opened
    rows: Sequence[Row]
    baselines: Sequence[Baseline]

    def table(self) -> list[Row]:
        """Its rows, each below those of its baselines."""
        return [each for row in self.rows for each in (*(one.row(row) for one in self.baselines), row)]

    def pairs(self) -> list[tuple[str, str]]:
        """Titles of its rows and of the baselines that they are compared with."""
        return [(row.title, one.row(row).title) for row in self.rows for one in self.baselines if one.compared]

    def sources(self) -> dict[str, Source]:
        """Those of its rows and of its baselines."""
        (own,) = {source for row in self.rows for source in row.sources}
        found: dict[str, Source] = {own: EncoderSource(self.opened.encoder.to(device()), self.opened.identity)}
        for baseline in self.baselines:
            found |= baseline.sources
        return found


def _facts(data: EvaluationSet, name: str, given: str, opened: Opened, shown: Collection[str]) -> dict[str, str]:
    """Title -> what a reader must know of an encoder."""
    inputs = {modality: spec for modality, spec in opened.encoder.inputs.items() if modality in shown}
    known = data.facts_of(given, opened, inputs, f"encoder {name}")
    facts = {f"encoder {name}": known.identity, **{f"{title} for {name}": text for title, text in known.suits.items()}}
    return facts | ({f"scored clips in the pretraining of {name}": known.pretrained_on} if known.pretrained_on else {})
