"""What a probe works with: features of every system, labels of train and valid, and test clips whose labels are shut.

Legend: N clips of the shard set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linear_probe import targets
from linear_probe.config import ProbeConfig
from linear_probe.rows import Row, features
from linear_probe.select import Chosen, Lesson, Trial, choose
from linear_probe.table import Table
from shards.divisions.divisions import Division
from shards.divisions.truth import Truth, has_all_labels, share_of, shuffled
from triptych.config import UserError
from triptych.evaluation.significance import Units
from triptych.protocols.protocol import Protocol

LEARNT = ("train", "valid")


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a row's heads are: chosen for each division, for each of its sources."""

    row: Row
    chosen: tuple[tuple[Chosen, ...], ...]
    """[sources][divisions]"""
    trials: tuple[tuple[Trial, ...], ...]
    """[sources]: all that was tried."""

    @property
    def valid_score(self) -> float:
        """Mean over sources, divisions and seeds."""
        return float(np.mean([one.valid_score for source in self.chosen for one in source]))


@dataclass(frozen=True)
class Study:
    """Features, divisions and labels; rows are fitted by `learn` and tested by `predict`."""

    config: ProbeConfig
    protocol: Protocol
    divisions: Sequence[Division]
    truth: Truth
    tables: Mapping[str, Table]
    """Source -> its features; all have the same clips and rows."""
    device: torch.device
    """Where heads are fitted, a view at a time; features, labels and what is said stay in memory."""

    @cached_property
    def table(self) -> Table:
        """Any of the tables, for keys and rows."""
        return next(iter(self.tables.values()))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {key: index for index, key in enumerate(self.table.keys)}

    def clips(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """[N] places of clips in the table."""
        return np.array([self._place[key] for key in keys], dtype=np.int64)

    @cached_property
    def test_keys(self) -> tuple[str, ...]:
        """Held-out clips, division by division."""
        return tuple(key for division in self.divisions for key in division.keys["test"])

    @cached_property
    def learning(self) -> tuple[tuple[str, ...], Units]:
        """Clips that some division trains or validates on, with their labels; those without are left out.

        Raises:
            UserError: none has any.
        """
        keys = sorted({key for division in self.divisions for split in LEARNT for key in division.keys[split]})
        values = self.truth.of(keys)
        there = has_all_labels(values)
        if not there.any():
            labels = ", ".join(target.label for target in self.protocol.targets)
            raise UserError(
                f"none of the {len(keys)} clips to learn from has a label that {self.protocol.name} scores: {labels}"
            )
        return tuple(key for key, wanted in zip(keys, there, strict=True) if wanted), values[there]

    def learn(self, row: Row, *, share: float = 1.0) -> Learnt:
        """Fit the grid on a row's views and choose on valid; no label of a division's test clips has a part in it.

        Args:
            row: of the table.
            share: of the training labels; a smaller one is inside a larger.
        """
        y, lessons = self._lessons(self.learning[1], share)
        return self._learnt(row, [self._choose(row, source, y, lessons) for source in row.sources])

    def learn_shuffled(self, row: Row, seeds: Sequence[int]) -> Learnt:
        """The same with labels that say nothing, shuffled once a seed among the clips to learn from."""
        found = []
        for seed in seeds:
            y, lessons = self._lessons(shuffled(self.learning[1], seed), share=1.0)
            found.append(self._choose(row, row.sources[0], y, lessons))
        return self._learnt(replace(row, sources=row.sources[:1] * len(seeds)), found)

    def _choose(self, row: Row, source: str, y: Tensor, lessons: Sequence[Lesson]) -> tuple[list[Chosen], list[Trial]]:
        views = ((view, features(self.tables[source], view).to(self.device)) for view in row.views)
        return choose(self.config.heads, self.protocol, views, y.to(self.device), lessons, self.config.seeds)

    def _learnt(self, row: Row, found: Sequence[tuple[list[Chosen], list[Trial]]]) -> Learnt:
        chosen, trials = zip(*found, strict=True)
        return Learnt(row=row, chosen=tuple(map(tuple, chosen)), trials=tuple(map(tuple, trials)))

    def outputs(self, learnt: Learnt, shown: tuple[str, ...] | None = None) -> Tensor:
        """[S, R, C]: what each run (source and seed) says at the rows of `test_keys`.

        Args:
            learnt: of `learn`.
            shown: fewer modalities than the heads were fitted with.
        """
        runs = []
        for source, chosen in zip(learnt.row.sources, learnt.chosen, strict=True):
            views = [one.view if shown is None else one.view.shown(shown) for one in chosen]
            whole = {view: features(self.tables[source], view) for view in dict.fromkeys(views)}
            tested = [
                (one, whole[view][self._test_rows(division)])
                for division, one, view in zip(self.divisions, chosen, views, strict=True)
            ]
            for run in range(len(self.config.seeds)):
                runs.append(torch.cat([one.outputs(run, x.to(self.device)).cpu() for one, x in tested]))
        return torch.stack(runs)

    def _test_rows(self, division: Division) -> Tensor:
        return torch.from_numpy(targets.rows_of(self.table, self.clips(division.keys["test"])))

    def _lessons(self, values: Units, share: float) -> tuple[Tensor, list[Lesson]]:
        keys = self.learning[0]
        y = targets.place(self.table, self.clips(keys), values, self.protocol)
        value_of = dict(zip(keys, range(len(keys)), strict=True))
        lessons = []
        for division in self.divisions:
            own = {split: [key for key in division.keys[split] if key in value_of] for split in LEARNT}
            if share < 1:
                own["train"] = list(share_of(own["train"], values[[value_of[key] for key in own["train"]]], share, 0))
            for split, found in own.items():
                if not found:
                    raise UserError(f"{division.name}: no clip of {split} has a label that {self.protocol.name} scores")
            rows = {split: targets.rows_with_labels(self.table, self.clips(own[split]), y) for split in LEARNT}
            lessons.append(Lesson(division=division.name, train=rows["train"], valid=rows["valid"]))
        return y, lessons
