"""What a frozen encoder's towers say of every clip, computed once: shards of it, and an encoder that reads them.

The new shards hold of a clip its record (words, labels) and for each tower

    <key>.<modality>_sequence.npy         [T, D] the real steps of the tower's sequence, its CLS first if it has one
    <key>.<modality>_sequence.times.npy   [T, 2] float32, start and end in seconds of what a step is of; zeros of a CLS

and FOLDER/encoder is the encoder whose towers are `stored` (triptych.models.towers.stored). The features tell by
SHA-256 which encoder spoke, so that no other's are taken for them. Legend: B clips, T steps of the sequence, S of what
the tower read, D width.
"""

import os
import secrets
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np
import torch
from rich.console import Console

from shards.divisions.pretrained_on import ACCOUNT, run_of
from shards.features.recover import features_of
from shards.reading.clips import Clips, MicroBatch
from shards.reading.encoders import Opened, open_encoder, vocabulary_of
from shards.reading.index import ShardSet
from shards.reading.other_words import OtherWords
from shards.reading.read import read_batches
from shards.reading.suits import check_suits
from shards.writing import rewrite
from shards.writing.pool import Failure
from shards.writing.probe import npy
from shards.writing.rewrite import AddFeaturesConfig
from shards.writing.work_folder import PlannedShard, Work, as_identity
from shards.writing.write_planned import Sample, fill_part
from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoder
from triptych.models.load import SystemConfig, build, save_encoder
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig, VideoTowerConfig
from triptych.models.steps import spread
from triptych.models.towers.stored import StoredConfig
from triptych.refusals import move, sync

ENCODER = "encoder"
"""Folder of the encoder in that of the shard set."""
_TOWERS = {"text": TextTowerConfig, "audio": AudioTowerConfig, "video": VideoTowerConfig}


def add_part(config: AddFeaturesConfig, given: str, source: ShardSet, work: Work) -> None:
    """Write the encoder, and the shards of `config.part` that are not written yet; see shards.add_features.

    Args:
        config: of the command.
        given: its encoder.
        source: the set to start from.
        work: of the new set.

    Raises:
        UserError: as of shards.add_features.add_features.
    """
    opened, console = open_encoder(given, source), Console()
    specs = stored_specs(opened, config.dtype)
    encoder = opened.encoder
    told = check_suits(source, encoder.inputs, encoder.words, {})
    words = rewrite.other_words(config, source)
    identity = as_identity({**rewrite.identity_of(source, words), "encoder": opened.fingerprint, "dtype": config.dtype})
    plan = work.prepare(identity, lambda: rewrite.plan(work, source, list(specs.values()), identity, config))
    folder = _save_encoder(opened, specs, work)
    lost = [name for name, width in encoder.widths.items() if name not in specs or width != specs[name].shape[0]]
    if lost:
        told["not kept"] = (
            f"the encoder's own vectors of {', '.join(lost)} are not stored: heads that read sequences learn from the "
            "same numbers, those that read one vector a clip from the mean of the sequence"
        )
    for fact in told.values():
        console.print(fact, soft_wrap=True, markup=False)
    samples = partial(_samples, config, source, encoder, specs, words)
    fill_part(work, plan, samples, part=config.part, retry=config.retry, most_bad=config.max_quarantined_share)
    console.print(f"{folder} reads it: init=[frozen] encoder={folder} shards={work.out}", soft_wrap=True, markup=False)


def stored_specs(opened: Opened, dtype: str) -> dict[str, FeatureSpec]:
    """Modality -> feature that the shards hold, of each tower.

    Raises:
        UserError: the encoder has no towers, or only stored ones.
    """
    encoder = opened.encoder
    if opened.is_stored:
        raise UserError(
            f"encoder: {opened.folder} reads sequences that are stored already; there is nothing to compute"
        )
    if not encoder.sequence_widths:
        raise UserError("encoder: this system gives no sequence of a modality that could be stored")
    settings = {"encoder": opened.sha256, "fingerprint": opened.fingerprint}
    return {
        name: FeatureSpec(
            name=f"{name}_sequence",
            modality=name,
            version=1,
            rate_hz=None,
            shape=(width,),
            dtype=dtype,
            max_length=encoder.most_steps(name),
            optional=encoder.inputs[name].optional,
            settings=tuple(sorted({**settings, "has_cls": name in encoder.modalities_with_cls}.items())),
        )
        for name, width in encoder.sequence_widths.items()
    }


def _save_encoder(opened: Opened, specs: Mapping[str, FeatureSpec], work: Work) -> Path:
    """Write the encoder of stored towers, whole or not at all, with the account of what the frozen one was trained on.

    Raises:
        UserError: something else is there.
    """
    towers = {name: _TOWERS[name](stored=StoredConfig()) for name in specs}
    encoder = build(SystemConfig(pairwise=PairwiseConfig(width=0, **towers)), specs, ())
    folder, temporary = work.out / ENCODER, work.folder / f"{ENCODER}-{secrets.token_hex(4)}"
    save_encoder(encoder, temporary)
    run = None if opened.folder is None else run_of(opened.folder)
    for name in ACCOUNT if run is not None else ():
        if run is not None and (run / name).is_file():
            shutil.copyfile(run / name, temporary / name)
    for file in temporary.iterdir():
        sync(file)
    try:
        move(temporary, folder)
    except OSError:  # that of another part, or of a killed start
        description = folder / "config.json"
        if not description.is_file() or description.read_bytes() != (temporary / description.name).read_bytes():
            raise UserError(
                f"{folder}: holds something else than this encoder; remove it, or choose out=FOLDER"
            ) from None
        shutil.rmtree(temporary)
    sync(work.out)
    return folder


def _samples(
    config: AddFeaturesConfig,
    source: ShardSet,
    encoder: Encoder,
    specs: Mapping[str, FeatureSpec],
    words: OtherWords | None,
    shards: Iterator[tuple[PlannedShard, IO[str]]],
) -> Generator[tuple[str, Sample | Failure]]:
    """The clips of planned shards with what the towers say."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.to(device)
    for split, planned in groupby((shard for shard, _ in shards), key=lambda shard: shard.split):
        clips = Clips(
            source,
            split,
            features=features_of(encoder.inputs),
            vocabulary=vocabulary_of(encoder, encoder.inputs),
            labels={},
            prepare=None,
            keep_damaged=True,
            change_words=words,
        )
        waiting: deque[MicroBatch] = deque()
        plans = _plans(source, planned, config.batch_clips, waiting)
        workers = config.workers or len(os.sched_getaffinity(0))
        with closing(read_batches(clips, plans, workers)) as batches:
            for batch in batches:
                yield from _of_batch(batch, waiting.popleft(), clips, encoder, specs, words)


def _plans(
    source: ShardSet, shards: Iterator[PlannedShard], size: int, waiting: deque[MicroBatch]
) -> Iterator[MicroBatch]:
    """No batch has clips of two shards, so that a shard's numbers do not depend on where the writing began."""
    for shard in shards:
        ids = rewrite.ids_of(source, shard)
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            waiting.append(MicroBatch(part, (0,) * len(part)))
            yield waiting[-1]


def _of_batch(
    batch: Batch,
    plan: MicroBatch,
    clips: Clips,
    encoder: Encoder,
    specs: Mapping[str, FeatureSpec],
    words: OtherWords | None,
) -> Iterator[tuple[str, Sample | Failure]]:
    damaged = dict(batch.damaged)
    with torch.inference_mode():
        towers = encoder.encode(batch.to(next(encoder.parameters()).device), fuse=False).towers
    for row, sample_id in enumerate(plan.ids):
        if sample_id in damaged:
            clips.split.read(sample_id)  # a damaged shard is no clip to leave out
            yield clips.split.record(sample_id).key, Failure(damaged[sample_id])
            continue
        members = clips.split.read(sample_id, ("json",))
        record = rewrite.record_of(members, f"{clips.split.name} clip {sample_id}")
        said = {name: tower.sequence[row][tower.mask[row]].float().cpu().numpy() for name, tower in towers.items()}
        if not all(np.isfinite(steps_TD).all() for steps_TD in said.values()):
            yield record.key, Failure("the encoder says numbers of it that are not finite")
            continue
        for name, steps_TD in said.items():
            if len(steps_TD):
                spec = specs[name]
                members[f"{spec.name}.npy"] = npy(_rounded(steps_TD, spec))
                members[f"{spec.name}.times.npy"] = npy(_times(batch.tracks[name], row, len(steps_TD), spec))
        yield record.key, rewrite.with_words(Sample(record, members), words)


def _rounded(steps_TD: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """To the spec's dtype.

    Raises:
        UserError: it does not hold numbers so large.
    """
    with np.errstate(over="ignore"):
        values = steps_TD.astype(spec.dtype)
    if not np.isfinite(values).all():
        most = f"{np.abs(steps_TD).max():g}"
        raise UserError(
            f"dtype: {spec.dtype} does not hold {most}, which the tower of {spec.modality} says; take float32"
        )
    return values


def _times(track: Track, row: int, num_steps: int, spec: FeatureSpec) -> np.ndarray:
    """[T, 2] float32 of a clip's steps: the times of what the tower read where it gives as many, else their middles,
    evenly spread (see triptych.models.steps)."""
    given_S2 = track.times[row][track.mask[row]].numpy()
    before = np.zeros((int(dict(spec.settings)["has_cls"]), 2), dtype=np.float32)
    num_steps -= len(before)
    if num_steps != len(given_S2):
        middles = spread(given_S2.astype(np.float64).mean(axis=-1), num_steps)
        given_S2 = np.stack([middles, middles], axis=-1).astype(np.float32)
    return np.concatenate([before, given_S2])
