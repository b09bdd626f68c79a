"""All blocks of all sources for all clips of a shard set: each clip is read once, and what is cached not at all.

Legend: N clips, R rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linear_probe.blocks import Block, Source
from linear_probe.encoding_pass import EncodingPass, Wanted
from linear_probe.feature_cache import FeatureCache, digest
from linear_probe.table import Table
from shards.reading.index import ShardSet
from triptych.config import UserError, nearest
from triptych.modalities import FeatureSpec
from triptych.models.steps import num_steps


def extract(
    shard_set: ShardSet,
    sources: Mapping[str, Source],
    wanted: Mapping[str, Sequence[Block]],
    *,
    cache: Path | None,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> dict[str, Table]:
    """Features of every clip of every split, without a label.

    Sources that read the same features with the same vocabulary share one pass over the shards; one whose features
    differ gets its own. Modalities that no missing block is shown are not read, and where the cache has everything, no
    shard is opened.

    The arrays are held in memory while they are filled: of 1 M clips a block of 512 numbers takes 2 GB, a stack of 13
    layers of 768 takes 40 GB, and a series of 10 Hz takes 10 times a clip's seconds as much. What comes from the cache
    is mapped from its file, and takes memory as it is used.

    Args:
        shard_set: with or without labels.
        sources: name -> source, on `device`.
        wanted: name of a source -> blocks, all of one rate.
        cache: folder that keeps the arrays, see FeatureCache; None keeps nothing.
        batch_size: clips at a time; changes memory and speed, and of the numbers the last bits at most.
        workers: loader processes; 0 reads in this one.
        device: of the sources.

    Returns:
        Name -> table, one of each entry of `wanted`.

    Raises:
        UserError: before anything is read: a source cannot give a block, its features cannot be computed, or the cache
            is damaged or has no room. While reading: a clip is damaged, or an encoder's numbers are not finite.
    """
    for name in wanted:
        if name not in sources:
            raise UserError(f"blocks are asked of {name!r}, which is no source.{nearest(name, sources)}")
    resolved = {name: {block: sources[name].resolve(block) for block in blocks} for name, blocks in wanted.items()}
    rates = {name: _rate(name, blocks) for name, blocks in wanted.items()}
    store = None if cache is None else FeatureCache(cache)
    clips = _clips(shard_set, store)
    arrays = _Arrays(shard_set.identity, clips, sources, store)
    for name, blocks in resolved.items():
        for block in blocks.values():
            arrays.ask(name, block)
    arrays.fill(shard_set, batch_size, workers, device)
    return {
        name: Table(
            keys=tuple(key for keys in clips.keys.values() for key in keys),
            offsets=clips.offsets(rates[name]),
            blocks={asked: arrays.block(name, block) for asked, block in blocks.items()},
            present=arrays.present(name, {modality for block in blocks.values() for modality in block.shown}),
        )
        for name, blocks in resolved.items()
    }


def _rate(name: str, blocks: Sequence[Block]) -> float | None:
    rates = {block.rate_hz for block in blocks} or {None}
    if len(rates) > 1:
        told = ", ".join("one row a clip" if rate is None else f"{rate:g} Hz" for rate in rates)
        raise UserError(f"{name}: the blocks of one table have one rate, and these have several: {told}")
    return rates.pop()


@dataclass(frozen=True)
class _Clips:
    """Which clips there are, in the order of the tables."""

    keys: dict[str, tuple[str, ...]]
    """Split -> keys."""
    durations_s: NDArray[np.float32]

    def offsets(self, rate_hz: float | None) -> NDArray[np.int64]:
        """[N + 1], see Table."""
        if rate_hz is None:
            return np.arange(len(self.durations_s) + 1)
        return np.concatenate([[0], np.cumsum(num_steps(self.durations_s, rate_hz))])


def _clips(shard_set: ShardSet, store: FeatureCache | None) -> _Clips:
    if not shard_set.splits:
        raise UserError(f"{shard_set.location}: has no clip")
    keys, durations = {}, []
    for split in shard_set.splits:
        listed = [{"what": what, "split": split, "shards": shard_set.identity} for what in ("keys", "durations")]
        kept = [store.get(identity) for identity in listed] if store else []
        found = [array for array in kept if array is not None]
        if len(found) < 2:  # seconds at a million clips: all indexes are opened, though no media
            opened = shard_set.split(split)
            found = [np.frombuffer("\n".join(opened.keys).encode(), dtype=np.uint8), opened.durations]
            for identity, array in zip(listed, found, strict=True):
                if store:
                    store.put(identity, array)
        keys[split] = tuple(found[0].tobytes().decode().split("\n"))
        durations.append(found[1])
    return _Clips(keys, np.concatenate(durations))


class _Arrays:
    """The arrays that are asked for, by the hash of what they are: from the cache, or to be filled by a pass."""

    def __init__(
        self, shards: Mapping[str, Any], clips: _Clips, sources: Mapping[str, Source], store: FeatureCache | None
    ) -> None:
        self._shards, self._clips, self._sources, self._store = shards, clips, sources, store
        self._identities = {name: source.identity() for name, source in sources.items()}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._new: dict[str, Mapping[str, Any]] = {}
        self._passes: list[EncodingPass] = []

    def ask(self, name: str, block: Block) -> None:
        """Want a resolved block, and to know who has the modalities that it is shown."""
        source = self._sources[name]
        inputs = {modality: source.inputs[modality] for modality in block.shown}
        present = {
            modality: array
            for modality, spec in inputs.items()
            if (array := self._to_fill(self._presence(spec), np.zeros(self._num_rows(None), dtype=np.bool_)))
            is not None
        }
        array = None
        if block.shown:
            empty = np.zeros((self._num_rows(block.rate_hz), *source.shape(block)), dtype=np.float32)
            array = self._to_fill(self._block(name, block), empty)
        if array is None and not present:
            return
        reading = next((one for one in self._passes if one.join(inputs, source.vocabulary)), None)
        if reading is None:
            self._passes.append(reading := EncodingPass())
            reading.join(inputs, source.vocabulary)
        reading.present |= present
        if array is not None:
            offsets = self._clips.offsets(block.rate_hz)
            reading.wanted.append(Wanted(name=name, source=source, block=block, offsets=offsets, array=array))

    def fill(self, shard_set: ShardSet, batch_size: int, workers: int, device: torch.device) -> None:
        """Read what is missing, and keep it."""
        for reading in self._passes:
            reading.features()  # refused before the first pass, not after it
        if self._store:
            self._store.check_room(sum(self._arrays[new].nbytes for new in self._new))
        for reading in self._passes:
            reading.read(shard_set, self._clips.keys, batch_size=batch_size, workers=workers, device=device)
        for new, identity in self._new.items():
            if self._store:
                self._store.put(identity, self._arrays[new])

    def block(self, name: str, block: Block) -> NDArray[np.float32]:
        """[R, D] or [R, L, D] of a resolved block."""
        if block.shown:
            return self._arrays[digest(self._block(name, block))]
        return np.zeros((self._num_rows(block.rate_hz), *self._sources[name].shape(block)), dtype=np.float32)

    def present(self, name: str, modalities: set[str]) -> dict[str, NDArray[np.bool_]]:
        """Modality -> [N] of a source."""
        specs = {modality: spec for modality, spec in self._sources[name].inputs.items() if modality in modalities}
        return {modality: self._arrays[digest(self._presence(spec))] for modality, spec in specs.items()}

    def _to_fill(self, identity: Mapping[str, Any], empty: NDArray[Any]) -> NDArray[Any] | None:
        """`empty` where it is to be filled (it takes no memory before); None where the array is there, or asked for."""
        name = digest(identity)
        if name in self._arrays:
            return None
        kept = self._store.get(identity) if self._store else None
        if kept is not None:
            self._arrays[name] = kept
            return None
        self._arrays[name], self._new[name] = empty, identity
        return empty

    def _num_rows(self, rate_hz: float | None) -> int:
        return int(self._clips.offsets(rate_hz)[-1])

    def _block(self, name: str, block: Block) -> dict[str, Any]:
        return {"what": "block", "shards": self._shards, "of": self._identities[name], "block": block.to_json()}

    def _presence(self, spec: FeatureSpec) -> dict[str, Any]:
        return {"what": "presence", "shards": self._shards, "feature": spec.to_json()}
