"""Chosen clips through a model, and what it attends to there: what the commands that draw attention have in common."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from shards.features.recover import features_of
from shards.pictures.attention_figure import Map, Side, attention_figure, heads_figure
from shards.pictures.contact_sheet import Clip
from shards.progress import progress
from shards.reading.cache import CacheConfig
from shards.reading.clips import Clips, MicroBatch
from shards.reading.encoders import vocabulary_of
from shards.reading.index import ShardSet
from triptych.batch import Batch, Track
from triptych.config import UserError, nearest
from triptych.files import write_atomically
from triptych.labels import LabelSpec
from triptych.models.attention_maps import AttentionMaps, begins_with_cls, recorded, sides, stacks
from triptych.models.encoder import Encoder

DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which attention of which clips is drawn."""

    keys: tuple[str, ...]
    """Of the clips, in any split."""
    out: str
    """Folder of the pictures."""
    stack: str = ""
    """One stack by its name, or several by what their names begin with, as towers; empty is all that are between
    modalities, or else all."""
    layer: int = -1
    """Of each stack: 1 is the first, -1 the last."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Where shards of a URL are kept."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model says of a clip."""

    title: str = ""
    """For a reader of the picture."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For attention.json."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is looked into."""

    source: str
    """Where it lies, for messages and attention.json."""
    model: nn.Module
    """In evaluation mode, on the CPU."""
    stacks: Mapping[str, str]
    """Name of a stack, as the user gives it -> as `triptych.models.attention_maps.stacks` has it for the model."""
    encoder: Encoder
    """The model, or the part of it that reads the clips."""
    shown: tuple[str, ...]
    """Modalities that it is shown, of the encoder's."""
    say: Callable[[Batch], Said]
    """Runs the model on a batch of one clip, once."""
    labels: Mapping[str, LabelSpec] = field(default_factory=dict)
    """That `say` wants in the batch."""
    prepare: Callable[[Batch], Batch] | None = None
    """Of these labels."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a stack, among all of them."""

    index: int
    number: int
    """Of the layers that the stack has."""


def find(shard_set: ShardSet, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Key -> its written split and number there.

    Raises:
        UserError: there is none, or the set has no clip of that key.
    """
    if not keys:
        raise UserError("keys: names no clip; give keys=[KEY,KEY]")
    places = {key: (name, number) for name in shard_set.splits for number, key in enumerate(shard_set.split(name).keys)}
    for key in keys:
        if key not in places:
            like = [*get_close_matches(key, places, n=1), next(iter(places))][0]
            raise UserError(f"keys: no clip of {shard_set.location} has the key {key!r}; the nearest is {like!r}")
    return {key: places[key] for key in keys}


def choose(subject: Subject, wanted: Wanted) -> dict[str, Layer]:
    """Stack -> its layer that is drawn.

    Raises:
        UserError: the model has no attention, or not this stack or layer.
    """
    inside = stacks(subject.model)
    found = {name: len(inside[own]) for name, own in subject.stacks.items()}
    if not found:
        raise UserError(
            f"{subject.source} has no attention to draw: transformers that are trained here have, and neither "
            "convolutions nor published models"
        )
    named = [name for name in found if f"{name}.".startswith(f"{wanted.stack}.")]
    if wanted.stack and not named:
        raise UserError(f"stack: {wanted.stack!r} is not in {subject.source}.{nearest(wanted.stack, found)}")
    between = {name: sides(name, subject.shown, subject.encoder.anchors) for name in found}
    crossing = [name for name, pair in between.items() if pair is None or pair[0] != pair[1]]
    chosen = named or crossing or list(found)
    for name in chosen:
        if not 1 <= abs(wanted.layer) <= found[name]:
            raise UserError(f"layer: {wanted.layer} of {name}, which has 1 to {found[name]}; -1 is the last")
    return {name: Layer(index=(wanted.layer - (wanted.layer > 0)) % found[name], number=found[name]) for name in chosen}


def draw(
    subject: Subject, shard_set: ShardSet, places: Mapping[str, tuple[str, int]], wanted: Wanted, console: Console
) -> None:
    """Draw the clips, write the numbers, and print what is of note.

    Args:
        subject: the model.
        shard_set: of the clips.
        places: of `find`.
        wanted: which stacks; its folder is made.
        console: to print on.

    Raises:
        UserError: as `choose`; a clip that cannot be read; a folder that cannot be written.
    """
    layers, folder, told = choose(subject, wanted), Path(wanted.out), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with progress("drawing", len(places)) as advance:
            for key, (split, number) in places.items():
                batch = read(subject, shard_set, split, number)
                clip = Clip(shard_set.split(split).record(number), shard_set.split(split).read(number))
                told.append(_draw(subject, batch, clip, layers, folder / key.replace("/", "+")))
                advance(1)
        numbers = {"model": subject.source, "shards": shard_set.location, "clips": told}
        write_atomically(folder / "attention.json", json.dumps(numbers).encode())
    except OSError as error:
        raise UserError(f"{folder}: the pictures cannot be written ({error}); choose another with out=FOLDER") from None
    for drawn in told:
        _print(console, drawn)
    console.print(f"pictures and attention.json: {folder}", soft_wrap=True, markup=False)


def read(subject: Subject, shard_set: ShardSet, split: str, number: int) -> Batch:
    """A clip by itself, with what the model takes.

    Args:
        subject: the model.
        shard_set: where the clip lies.
        split: that it was written into.
        number: there, as of `find`.
    """
    inputs = {name: subject.encoder.inputs[name] for name in subject.shown}
    clips = Clips(
        shard_set,
        split,
        features=features_of(inputs),
        vocabulary=vocabulary_of(subject.encoder, inputs),
        labels=subject.labels,
        prepare=subject.prepare,
    )
    batch = clips.load(MicroBatch([number], [0]))
    return replace(batch, tracks={name: batch.tracks[name] for name in subject.shown})  # in the order of a head's steps


def maps_of(
    recorded_maps: AttentionMaps, batch: Batch, clip: int, layers: Mapping[str, Layer], encoder: Encoder | None = None
) -> list[Map]:
    """What is drawn of one clip of a batch.

    Args:
        recorded_maps: of the batch.
        batch: whose tracks the model saw; where a tower gave another number of steps, these share the track's evenly.
        clip: number in the batch.
        layers: stack -> which of its layers; a stack that did not see the clip is left out.
        encoder: whose anchors, and modalities with a CLS, are meant; None has neither.
    """
    anchors, with_cls = ((), ()) if encoder is None else (encoder.anchors, encoder.modalities_with_cls)
    found = []
    for stack, layer in layers.items():
        weights = recorded_maps[stack][layer.index].get(clip)
        if weights is None:
            continue
        names = sides(stack, batch.tracks, anchors)
        if names is None:
            queries = keys = _of_modalities(batch, clip, weights.shape[1])
        else:
            queries, keys = (
                _side(name, batch.tracks[name], clip, steps, begins_with_cls(stack, name, with_cls))
                for name, steps in zip(names, weights.shape[1:], strict=True)
            )
        found.append(
            Map(
                stack=stack,
                layer=layer.index + 1,
                num_layers=layer.number,
                queries=queries,
                keys=keys,
                weights=weights.double().numpy(),
            )
        )
    return found


def _side(modality: str, track: Track, clip: int, num_steps: int, has_cls: bool) -> Side:
    times = track.times[clip][track.mask[clip]].double().cpu().numpy()
    if has_cls and len(times) == num_steps:  # a stored CLS is a step of the track, too
        times = times[1:]
    return Side(
        modality=modality,
        times=np.concatenate([np.full((int(has_cls), 2), np.nan), _spread(times, num_steps - has_cls)]),
    )


def _of_modalities(batch: Batch, clip: int, num_steps: int) -> Side:
    """Of a stack whose steps are the modalities that a clip has."""
    names = tuple(name for name, track in batch.tracks.items() if track.present[clip])
    assert len(names) == num_steps, f"{num_steps} steps, and the clip has {', '.join(names)}"
    return Side(modality="modalities", times=np.full((num_steps, 2), np.nan), names=names)


def _spread(times_S2: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    """[num, 2] seconds of steps that share a track's evenly; step `j` covers the track's `[j, j + 1) * S / num`."""
    if num in (0, len(times_S2)):
        return times_S2[:num]
    places, step = np.arange(len(times_S2)), len(times_S2) / num
    starts = np.interp(np.arange(num) * step, places, times_S2[:, 0])
    ends = np.interp((np.arange(num) + 1) * step - 1, places, times_S2[:, 1])
    return np.stack([starts, ends], axis=1)


@torch.no_grad()
def _draw(subject: Subject, batch: Batch, clip: Clip, layers: Mapping[str, Layer], name: Path) -> dict[str, Any]:
    """Draw the one clip of a batch; returns what attention.json says of it."""
    with recorded(subject.model) as seen:
        said = subject.say(batch)
    maps = maps_of({own: seen[subject.stacks[own]] for own in layers}, batch, 0, layers, subject.encoder)
    lacks = [modality for modality in subject.shown if not batch.tracks[modality].present[0]]
    told = [f"without {' or '.join(lacks)}{'' if maps else ': nothing to attend to'}"] if lacks else []
    title = "   ".join([*filter(None, [said.title]), *told])
    files = {f"{name.name}.png": attention_figure(clip, maps, title)}
    if maps:
        files[f"{name.name}.heads.png"] = heads_figure(clip, maps, title)
    for file, figure in files.items():
        figure.savefig(name.parent / file)
    return {
        "key": clip.record.key,
        "duration_s": clip.record.duration_s,
        "words": [[word.text, word.start_s, word.end_s] for word in clip.record.words or ()],
        "lacks": lacks,
        **({"title": said.title} if said.title else {}),
        **said.facts,
        "pictures": list(files),
        "maps": [_numbers(one) for one in maps],
    }


def _numbers(one: Map) -> dict[str, Any]:
    """A map as JSON types."""
    told: dict[str, Any] = {"stack": one.stack, "layer": one.layer}
    for name, side in (("queries", one.queries), ("keys", one.keys)):
        times = [None if np.isnan(step).any() else step for step in np.round(side.times, DIGITS).tolist()]
        told[name] = {"modality": side.modality, "times_s": times, **({"names": side.names} if side.names else {})}
    if one.same_time is not None:
        heads, even = one.same_time
        told["same_time"] = {"heads": np.round(heads, DIGITS).tolist(), "even": round(even, DIGITS)}
    return {**told, "weights": np.round(one.weights, DIGITS).tolist()}


def _print(console: Console, clip: Mapping[str, Any]) -> None:
    lacks = f" (without {' or '.join(clip['lacks'])})" if clip["lacks"] else ""
    title = "   ".join(filter(None, [f"{clip['key']}{lacks}", clip.get("title")]))
    console.print(title, soft_wrap=True, markup=False)
    for one in clip["maps"]:
        if (same := one.get("same_time")) is not None:
            percent = [round(100 * share) for share in (np.mean(same["heads"]), same["even"], *same["heads"])]
            heads = ", ".join(map(str, percent[2:]))
            line = f"  {one['stack']}, layer {one['layer']}: {percent[0]} % at the same time"
            console.print(f"{line} (even: {percent[1]}; heads: {heads})", soft_wrap=True, markup=False)
    if not clip["maps"]:
        console.print("  nothing attends to anything there: a side of each stack is missing", markup=False)
