"""What an encoder attends to in chosen clips, over time and across modalities, as pictures and as numbers.

python -m shards attention SHARDS encoder=ENCODER keys=[KEY,KEY] out=FOLDER [stack=cross.audio] [layer=-1]

ENCODER is the encoder/ of a run, a checkpoint or a release, or a config in configs/encoder/. Keys are those of
`python -m shards show`. In the folder there are then, of each clip (a / in its key becomes a +):

KEY.png         frames, sound and words over one axis in seconds; under them, of each cross-modal stack, the weights
                of the words (rows) over sound and picture, or of sound and picture over the words, mean over the heads.
                A box is a word's own time: "at the same time 61 %, even 11 %" says how much of the attention lies in
                the boxes, and how much would if all steps had the same weight.
KEY.heads.png   the same, head by head.

attention.json  the weights [heads, queries, keys] behind the pictures, rounded, with the times of all steps.

stack=NAME draws another stack, as the attention inside a tower (towers.audio); without cross-modal stacks, the towers
are drawn. layer=1 is the first of a stack, -1 the last. A clip that lacks a modality is drawn without it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from shards.attention_figure import Map, Side, attention_figure, heads_figure
from shards.cache import CacheConfig
from shards.clips import Clips, MicroBatch
from shards.contact_sheet import Clip
from shards.encoders import open_encoder
from shards.features.recover import features_of
from shards.index import ShardSet
from shards.progress import progress
from shards.suits import check_suits
from shards.words import Vocabulary
from triptych.batch import Batch, Track
from triptych.config import UserError, load, nearest
from triptych.files import write_atomically
from triptych.models.attention_maps import AttentionMaps, recorded, sides, stacks
from triptych.models.encoder import Encoder

DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Which attention of which clips is drawn."""

    encoder: str
    """Folder of an encoder, or a config of published weights (see shards.encoders)."""
    keys: tuple[str, ...]
    """Of the clips, in any split."""
    out: str
    """Folder of the pictures."""
    stack: str = ""
    """One stack by its name; empty is all that are cross-modal, or else all."""
    layer: int = -1
    """Of each stack: 1 is the first, -1 the last."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Draw the pictures and write the numbers.

    Args:
        target: the folder or URL of the shard set.
        overrides: of AttentionConfig.

    Returns:
        The exit status, 0.

    Raises:
        UserError: an unknown key, stack or layer, an encoder without attention, or one that does not suit the clips.
    """
    config, console = load(AttentionConfig, {}, overrides), Console()
    shard_set = ShardSet(target, config.cache)
    places = _find(shard_set, config.keys)
    encoder = open_encoder(config.encoder, shard_set).encoder
    chosen = _choose(encoder, config)
    for fact in check_suits(shard_set, encoder.inputs, encoder.words, {}).values():
        console.print(fact, soft_wrap=True, markup=False)
    folder, told = Path(config.out), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with progress("drawing", len(places)) as advance:
            for key, (split, number) in places.items():
                batch = _read(encoder, shard_set, split, number)
                clip = Clip(shard_set.split(split).record(number), shard_set.split(split).read(number))
                told.append(_draw(encoder, batch, clip, chosen, folder / key.replace("/", "+")))
                advance(1)
        numbers = {"encoder": config.encoder, "shards": shard_set.location, "clips": told}
        write_atomically(folder / "attention.json", json.dumps(numbers).encode())
    except OSError as error:
        raise UserError(f"{folder}: the pictures cannot be written ({error}); choose another with out=FOLDER") from None
    for drawn in told:
        _print(console, drawn)
    console.print(f"pictures and attention.json: {folder}", soft_wrap=True, markup=False)
    return 0


def maps_of(
    recorded_maps: AttentionMaps, batch: Batch, clip: int, layers: Mapping[str, int], anchors: Sequence[str] = ()
) -> list[Map]:
    """What is drawn of one clip of a batch.

    Args:
        recorded_maps: of the batch.
        batch: whose tracks have the steps that the attention saw, or, after a CLS, all but its first one.
        clip: number in the batch.
        layers: stack -> index of its layer; a stack that did not see the clip is left out.
        anchors: see triptych.models.attention_maps.sides.

    Raises:
        ValueError: a stack has other steps than the track of its modality.
    """
    found = []
    for stack, layer in layers.items():
        weights = recorded_maps[stack][layer].get(clip)
        names = sides(stack, batch.tracks, anchors)
        if weights is None or names is None:
            continue
        queries, keys = (
            _side(name, batch.tracks[name], clip, steps) for name, steps in zip(names, weights.shape[1:], strict=True)
        )
        found.append(
            Map(
                stack=stack,
                layer=layer + 1,
                num_layers=len(recorded_maps[stack]),
                queries=queries,
                keys=keys,
                weights=weights.double().numpy(),
            )
        )
    return found


def _side(modality: str, track: Track, clip: int, num_steps: int) -> Side:
    times = track.times[clip][track.mask[clip]].double().cpu().numpy()
    cls = np.full((1, 2), np.nan)
    if num_steps == len(times) + 1:
        times = np.concatenate([cls, times])
    elif num_steps == 1:
        times = times if len(times) == 1 else cls
    if len(times) != num_steps:
        raise ValueError(f"{modality}: {num_steps} steps of attention, and the clip has {len(times)}")
    return Side(modality=modality, times=times)


def _find(shard_set: ShardSet, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Key -> its split and number there."""
    if not keys:
        raise UserError("keys: names no clip; give keys=[KEY,KEY]")
    there = dict.fromkeys(shard.split for shard in shard_set.manifest.shards if shard.num_samples)
    places = {key: (name, number) for name in there for number, key in enumerate(shard_set.split(name).keys)}
    for key in keys:
        if key not in places:
            like = [*get_close_matches(key, places, n=1), next(iter(places))][0]
            raise UserError(f"keys: no clip of {shard_set.location} has the key {key!r}; the nearest is {like!r}")
    return {key: places[key] for key in keys}


def _choose(encoder: Encoder, config: AttentionConfig) -> dict[str, int]:
    """Stack -> index of its layer that is drawn."""
    found = {name: len(layers) for name, layers in stacks(encoder).items()}
    if not found:
        raise UserError(
            f"encoder: {config.encoder} has no attention to draw: transformers that are pretrained here have, and "
            "neither convolutions nor published models"
        )
    if config.stack and config.stack not in found:
        raise UserError(f"stack: {config.stack!r} is not in {config.encoder}.{nearest(config.stack, found)}")
    between = {name: sides(name, encoder.inputs, encoder.anchors) for name in found}
    crossing = [name for name, pair in between.items() if pair and pair[0] != pair[1]]
    chosen = [config.stack] if config.stack else crossing or list(found)
    for name in chosen:
        if not 1 <= abs(config.layer) <= found[name]:
            raise UserError(f"layer: {config.layer} of {name}, which has 1 to {found[name]}; -1 is the last")
    return {name: (config.layer - (config.layer > 0)) % found[name] for name in chosen}


def _read(encoder: Encoder, shard_set: ShardSet, split: str, number: int) -> Batch:
    """A clip by itself, with what the encoder takes."""
    vocabulary = Vocabulary(encoder.words) if "text" in encoder.inputs else None
    features = features_of(encoder.inputs)
    clips = Clips(shard_set, split, features=features, vocabulary=vocabulary, labels={}, prepare=None)
    return clips.load(MicroBatch([number], [0]))


@torch.no_grad()
def _draw(encoder: Encoder, batch: Batch, clip: Clip, layers: Mapping[str, int], name: Path) -> dict[str, Any]:
    """Draw the one clip of a batch; returns what attention.json says of it."""
    with recorded(encoder) as seen:
        encoder.encode(batch)
    maps = maps_of(seen, batch, 0, layers, encoder.anchors)
    lacks = [modality for modality in encoder.inputs if not batch.tracks[modality].present[0]]
    told = f"without {' or '.join(lacks)}{'' if maps else ': nothing to attend to'}" if lacks else ""
    files = {f"{name.name}.png": attention_figure(clip, maps, told)}
    if maps:
        files[f"{name.name}.heads.png"] = heads_figure(clip, maps)
    for file, figure in files.items():
        figure.savefig(name.parent / file)
    return {
        "key": clip.record.key,
        "duration_s": clip.record.duration_s,
        "words": [[word.text, word.start_s, word.end_s] for word in clip.record.words or ()],
        "lacks": lacks,
        "pictures": list(files),
        "maps": [_numbers(one) for one in maps],
    }


def _numbers(one: Map) -> dict[str, Any]:
    """A map as JSON types."""
    told: dict[str, Any] = {"stack": one.stack, "layer": one.layer}
    for name, side in (("queries", one.queries), ("keys", one.keys)):
        times = [None if np.isnan(step).any() else step for step in np.round(side.times, DIGITS).tolist()]
        told[name] = {"modality": side.modality, "times_s": times}
    if one.same_time is not None:
        heads, even = one.same_time
        told["same_time"] = {"heads": np.round(heads, DIGITS).tolist(), "even": round(even, DIGITS)}
    return {**told, "weights": np.round(one.weights, DIGITS).tolist()}


def _print(console: Console, clip: Mapping[str, Any]) -> None:
    lacks = f" (without {' or '.join(clip['lacks'])})" if clip["lacks"] else ""
    console.print(f"{clip['key']}{lacks}", soft_wrap=True, markup=False)
    for one in clip["maps"]:
        line = f"  {one['stack']}, layer {one['layer']}"
        if (same := one.get("same_time")) is not None:
            percent = [round(100 * share) for share in (np.mean(same["heads"]), same["even"], *same["heads"])]
            heads = ", ".join(map(str, percent[2:]))
            line += f": {percent[0]} % at the same time (even: {percent[1]}; heads: {heads})"
        console.print(line, soft_wrap=True, markup=False)
    if not clip["maps"]:
        console.print("  nothing attends to anything there: a side of each stack is missing", markup=False)
