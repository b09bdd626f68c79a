"""Whether an encoder was trained on clips that it is evaluated on, as far as its run's folder can tell.

A run keeps which shard set it read (`data.json`: corpus, clips and a hash over all shards; `config.yaml`: where). The
weights come from the training split of that set. Where the set is still there it is compared by video and, in one and
the same corpus, by clip; where it is not, nothing is claimed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shards.reading.index import ShardSet
from shards.record import ClipRecord, video_id
from triptych.config import UserError

MOST_CLIPS = 200_000
"""Of a training split that is read here: more take minutes, and `python -m shards overlap` compares them once."""


ACCOUNT = ("data.json", "config.yaml", "start.json")
"""Files of a run's folder that tell it."""


@dataclass(frozen=True, kw_only=True)
class PretrainedOn:
    """What is known of an encoder's training clips and those of an evaluation."""

    known: bool
    """Whether they could be compared."""
    shared: tuple[str, ...] = ()
    """Videos, or keys of clips, of both, sorted."""
    told: str
    """In words, for the account of the evaluation."""


def run_of(encoder: Path) -> Path | None:
    """The folder with the account of what an encoder was trained on; None where there is none."""
    return next((folder for folder in (encoder, *encoder.parents[:3]) if (folder / "data.json").is_file()), None)


def short_path(path: Path | str) -> str:
    """The end of a path: a report is shared, and need not tell how someone's disk is laid out."""
    return "/".join(Path(path).parts[-3:])


def compare(encoder: Path, evaluated: ShardSet, splits: tuple[str, ...] = ("valid", "test")) -> PretrainedOn:
    """Compare the clips that an encoder's weights were trained on with those that it is evaluated on.

    Args:
        encoder: a run's, a checkpoint's or a release's `encoder/`.
        evaluated: the shard set of the evaluation.
        splits: of it, that are scored.
    """
    run = run_of(encoder)
    if run is None:
        return PretrainedOn(known=False, told=f"not known: no data.json of a run beside {short_path(encoder)}")
    before = "; what it started from is not compared" if (run / "start.json").is_file() else ""
    data = _read_json(run / "data.json")
    if data == evaluated.identity:
        there = "the training split of this shard set, whose other splits it has not seen"
        return PretrainedOn(known=True, told=there + before)
    trained = _opened(run, data)
    if trained is None:
        wanted = f"{data.get('corpus')}, SHA-256 over its shards {str(data.get('shards_sha256'))[:12]}..."
        return PretrainedOn(known=False, told=f"not known: its shard set ({wanted}) is not where {run} had it")
    num_clips = sum(shard.num_samples for shard in trained.manifest.shards if shard.split == "train")
    if num_clips > MOST_CLIPS:
        by_hand = f"python -m shards overlap {trained.location} other={evaluated.location}"
        return PretrainedOn(known=False, told=f"not compared, for it has {num_clips:,} clips: {by_hand}")
    same_corpus = trained.manifest.corpus == evaluated.manifest.corpus
    seen, scored = _names(trained, ("train",), same_corpus), _names(evaluated, splits, same_corpus)
    if not seen or not scored:
        told = f"not known: the clips of {trained.manifest.corpus} or of {evaluated.manifest.corpus} have no YouTube id"
        return PretrainedOn(known=False, told=told)
    shared = tuple(sorted(seen & scored))
    named = f", as {shared[0]}" if shared else ""
    told = f"{trained.manifest.corpus}: {len(shared)} of {len(scored)} videos or clips that are scored{named}"
    return PretrainedOn(known=True, shared=shared, told=told + before)


def _opened(run: Path, data: dict[str, Any]) -> ShardSet | None:
    """The shard set that the run read, if it is there and the same."""
    try:
        settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{run / 'config.yaml'}: cannot be read ({error})") from None
    settings = settings if isinstance(settings, dict) else {}
    location = settings.get("shards") or (settings.get("stream") or {}).get("shards")
    if not location:
        return None
    try:
        shard_set = ShardSet(location)
    except UserError:
        return None
    return shard_set if shard_set.identity == data else None


def _names(shard_set: ShardSet, splits: tuple[str, ...], with_keys: bool) -> set[str]:
    """YouTube ids and, where wanted, keys of the clips that have none."""
    names = set()
    for record in _records(shard_set, splits):
        if (found := video_id(record.source.get("video", ""))) is not None:
            names.add(found)
        elif with_keys:
            names.add(record.key)
    return names


def _records(shard_set: ShardSet, splits: tuple[str, ...]) -> Iterator[ClipRecord]:
    for name in splits:
        if name in shard_set.splits:
            split = shard_set.split(name)
            for sample_id in range(len(split)):
                yield split.record(sample_id)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a run's account of its shard set")
    return content
