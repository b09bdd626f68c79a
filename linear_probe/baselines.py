"""Rows that an encoder is read against: the same architecture untrained, and its inputs without any encoder."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from linear_probe.blocks import Block, Layer, Source
from linear_probe.config import BaselinesConfig
from linear_probe.rows import Row, View
from linear_probe.sources import EncoderSource, InputMeans
from shards.features.words import WORDS
from shards.reading.encoders import Opened
from shards.reading.index import ShardSet
from shards.words.words import Vocabulary
from triptych.modalities import reads_words
from triptych.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A system that stands beside an encoder, with its inputs."""

    system: str
    sources: Mapping[str, Source]
    """Its runs."""
    views: Callable[[Row], tuple[View, ...]]
    """Of the encoder's row -> what a head may see of this one."""
    compared: bool
    """Whether the difference to the encoder is wanted."""

    def row(self, beside: Row) -> Row:
        """The row beside an encoder's."""
        return Row(system=self.system, inputs=beside.inputs, sources=tuple(self.sources), views=self.views(beside))


class Baselines:
    """The baselines of several encoders: those of one architecture share them, those of one kind of inputs too.

    Args:
        config: which ones.
        rate_hz: of a series; None of clips.
        device: of the untrained encoders.
        shard_set: that is read.
    """

    def __init__(
        self, config: BaselinesConfig, rate_hz: float | None, device: torch.device, shard_set: ShardSet
    ) -> None:
        self._config, self._rate_hz, self._device, self._shard_set = config, rate_hz, device, shard_set
        self._known: dict[str, dict[str, str]] = {"inputs": {}, "untrained": {}}

    def beside(self, name: str, opened: Opened, shown: Collection[str]) -> list[Baseline]:
        """The baselines of an encoder; equal names are equal baselines.

        Args:
            name: of its row.
            opened: the encoder.
            shown: modalities of its rows.
        """
        found = []
        inputs = self._inputs(opened.encoder, shown)
        mark = self._mark("inputs", json.dumps(inputs.identity(), sort_keys=True), name)
        for system, wanted in (
            ("input means", self._config.input_means),
            ("handcrafted", self._config.handcrafted),
        ):
            if wanted:
                sources = {f"inputs{mark}": inputs}
                views = self._input_views(inputs, system)
                found.append(Baseline(system=f"{system}{mark}", sources=sources, views=views, compared=False))
        if self._config.untrained:
            mark = self._mark("untrained", opened.architecture, name)
            fresh = {
                f"untrained{mark} {seed}": EncoderSource(
                    opened.untrained(seed).to(self._device), opened.untrained_identity(seed)
                )
                for seed in self._config.untrained
            }
            found.append(Baseline(system=f"untrained{mark}", sources=fresh, views=lambda row: row.views, compared=True))
        return found

    def _inputs(self, encoder: Encoder, shown: Collection[str]) -> InputMeans:
        """With the encoder's words; those of the clips beside one that reads pieces."""
        seen = {modality: spec for modality, spec in encoder.inputs.items() if modality in shown}
        if "text" in seen and seen["text"].is_pieces:
            return InputMeans({**seen, "text": WORDS}, self._shard_set.vocabulary())
        return InputMeans(seen, Vocabulary(encoder.words) if reads_words(seen) else None)

    def _mark(self, kind: str, identity: str, name: str) -> str:
        """What tells baselines of a kind apart; nothing for the first."""
        known = self._known[kind]
        return known.setdefault(identity, f", as {name}" if known else "")

    def _input_views(self, inputs: InputMeans, system: str) -> Callable[[Row], tuple[View, ...]]:
        def block(modality: str) -> Block:
            frames = inputs.inputs[modality].rate_hz is not None
            moments = system == "handcrafted" and frames and self._rate_hz is None
            layer: Layer = "moments" if moments else "pooled"
            return Block(output=modality, shown=(modality,), layer=layer, rate_hz=self._rate_hz)

        return lambda row: (View(name=system, blocks=tuple(map(block, row.modalities))),)
