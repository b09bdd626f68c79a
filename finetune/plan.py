"""What all runs of a command share, found out before any of them starts."""

import copy
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch

from finetune import losses
from finetune.config import FinetuneConfig, Init
from finetune.evaluation import Scored
from finetune.outcome import ALL, Run
from finetune.task import FinetuneTask, Labels
from finetune.trained_weights import freeze, thaw
from shards.divisions.divisions import Division
from shards.divisions.evaluation_set import EvaluationSet
from shards.divisions.truth import share_of
from shards.features.config import FeaturesConfig
from shards.features.recover import features_of
from shards.reading.encoders import Opened, vocabulary_of
from shards.reading.index import ShardSet
from shards.reading.other_words import OtherWords, is_transcript, read_other_words, read_transcript
from shards.reading.plan import check_fits, num_micro_batches
from shards.reading.read import EvalLoader, StreamConfig, TrainLoader
from shards.words.words import AnyVocabulary
from triptych.config import UserError, nearest
from triptych.evaluation.answers import num_outputs, rate_of
from triptych.modalities import FeatureSpec, reads_words
from triptych.models.encoder import Encoder
from triptych.training.distributed import Distributed, read_launch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a run learns from and is tested on: a division, or a share of its training labels."""

    division: Division
    share: float
    keys: Mapping[str, tuple[str, ...]]
    """Split -> clips."""
    shards: ShardSet
    """With these splits."""
    global_batch: int
    """Clips of an optimizer step: as configured, or all of a share that has fewer."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.division.name + (f", {100 * self.share:g} % of its labels" if self.share < 1 else "")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A test condition: how the held-out clips are shown to a trained run."""

    shown: tuple[str, ...] | None = None
    """Modalities that are left; None removes none."""
    words: OtherWords | None = None
    """Of other transcripts; None shows the clips' own."""

    @property
    def sha256(self) -> str:
        """Of what the shards themselves do not tell; empty where that is nothing."""
        return "" if self.words is None else self.words.sha256


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Protocol, clips, encoder."""

    config: FinetuneConfig
    data: EvaluationSet
    opened: Opened
    inputs: Mapping[str, FeatureSpec]
    """Modality -> feature, of those that are shown."""
    transcripts: Mapping[str, OtherWords]
    """Name -> what it says of every held-out clip."""
    facts: Mapping[str, str]

    @property
    def shares(self) -> list[float]:
        """Of the training labels that runs learn from: all, and the smaller ones of the learning curve."""
        return [1.0, *sorted({share for share in self.config.label_shares if share < 1}, reverse=True)]

    @cached_property
    def parts(self) -> dict[float, list[Part]]:
        """Share -> a part for each division.

        Raises:
            UserError: no training clip has a label.
        """
        return {share: [self._part(division, share) for division in self.data.divisions] for share in self.shares}

    @property
    def modalities_removed(self) -> dict[str, Condition]:
        """What is left when modalities are removed, the larger ones first; none where that is not wanted."""
        sizes = range(len(self.inputs) - 1, 0, -1) if self.config.missing else ()
        left = [shown for size in sizes for shown in combinations(self.inputs, size)]
        return {"+".join(shown): Condition(shown=shown) for shown in left}

    def conditions(self, run: Run) -> dict[str, Condition]:
        """Name -> how the held-out clips are shown to a run: as they are; with other words, where it has learnt from
        all labels; and, of the last row, with modalities removed."""
        if run.share < 1:
            return {ALL: Condition()}
        other_words = {transcript_condition(name): Condition(words=words) for name, words in self.transcripts.items()}
        return {
            ALL: Condition(),
            **other_words,
            **(self.modalities_removed if run.init == self.config.last_row else {}),
        }

    def task(self, part: Part, init: Init, seed: int) -> FinetuneTask:
        """The encoder with a fresh head; a function of the config, the part's training labels, `init` and `seed`.

        Raises:
            UserError: the head, the loss or what is to be frozen does not fit.
        """
        config, protocol = self.config, self.data.protocol
        encoder = self.opened.untrained(seed) if init == "random" else copy.deepcopy(self.opened.encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = config.head.build(encoder, tuple(self.inputs), num_outputs(protocol), rate_of(protocol))
        balanced_by = self.data.truth.of(part.keys["train"]) if config.balanced else None
        training = config.encoder_training(init)
        thaw(encoder, training, from_scratch=init == "random")
        frozen = freeze(encoder, training)
        return FinetuneTask(encoder, head, losses.build(config.loss, protocol, balanced_by), frozen)

    def train_loader(self, part: Part, seed: int, distributed: Distributed) -> TrainLoader:
        """A rank's endless training stream."""
        stream = StreamConfig(
            shards=self.config.shards,
            features=FeaturesConfig(),
            global_batch=part.global_batch,
            micro_batch=self.config.micro_batch,
            workers=self.config.workers,
            text=reads_words(self.inputs),
        )
        return TrainLoader(
            part.shards,
            stream,
            vocabulary=self.vocabulary,
            seed=seed,
            rank=distributed.rank,
            world=distributed.world,
            prepare=Labels(self.data.protocol),
            labels=self.data.protocol.labels,
            features=features_of(self.inputs),
        )

    def eval_loader(
        self, part: Part, split: str, distributed: Distributed, words: OtherWords | None = None
    ) -> EvalLoader:
        """A rank's share of a split; with other words, where there are any."""
        return EvalLoader(
            part.shards,
            features_of(self.inputs),
            vocabulary=self.vocabulary,
            batch_size=self.config.micro_batch,
            rank=distributed.rank,
            world=distributed.world,
            split=split,
            workers=self.config.workers,
            prepare=Labels(self.data.protocol),
            labels=self.data.protocol.labels,
            words=words,
        )

    @property
    def vocabulary(self) -> AnyVocabulary | None:
        """What gives words, or their pieces, their ids; None where no text is read."""
        return vocabulary_of(self.opened.encoder, self.inputs)

    def _part(self, division: Division, share: float) -> Part:
        keys = dict(division.keys)
        if share < 1:
            keys["train"] = share_of(keys["train"], self.data.truth.of(keys["train"]), share, 0)
            if not keys["train"]:
                raise UserError(f"{division.name}: no training clip has a label that {self.data.protocol.name} scores")
        as_written = not self.config.split and share == 1
        shards = self.data.shard_set if as_written else self.data.shard_set.divided(keys)
        batch = self.config.global_batch if share == 1 else min(self.config.global_batch, len(keys["train"]))
        return Part(division=division, share=share, keys=keys, shards=shards, global_batch=batch)


def transcript_condition(transcript: str) -> str:
    """Name of the condition in which clips have the words of a transcript."""
    return f"words-{transcript}"


def make_plan(config: FinetuneConfig) -> Plan:
    """Find out what there is to do.

    Raises:
        UserError: no such encoder, protocol, class, split or modality; labels that no clip has; a split that leaks, has
            fewer training clips than a global batch, or none to validate on; transcripts that are not of these clips.
    """
    data = EvaluationSet.open(
        config.shards, config.cache, config.protocol, config.classes, split=config.split, listed=config.listed
    )
    opened = data.open_encoder(config.encoder)
    if opened.is_stored and set(config.init) != {"frozen"}:
        raise UserError(
            f"init: {config.encoder} has no weights, for its towers are stored: the head alone can train, "
            "init=[frozen]. To train the encoder too, give the one that they were computed with, and its shards"
        )
    inputs = _inputs(config, opened.encoder)
    plan = Plan(
        config=config,
        data=data,
        opened=opened,
        inputs=inputs,
        transcripts=_transcripts(config, data, inputs),
        facts=_facts(data, config.encoder, opened, inputs),
    )
    for init in config.init:  # mistakes, before hours of work
        plan.task(plan.parts[1.0][0], init, config.seeds[0])
    for part in (part for parts in plan.parts.values() for part in parts):
        check_fits(len(part.keys["train"]), part.global_batch, f"train of {part.name}")
        try:
            num_micro_batches(part.global_batch, config.micro_batch, read_launch(os.environ).world)
        except UserError as error:
            raise UserError(f"{part.name}: {error}") from None
        Scored.of(data.truth, part.keys["valid"])
    return plan


def _inputs(config: FinetuneConfig, encoder: Encoder) -> dict[str, FeatureSpec]:
    names = config.inputs.split("+") if config.inputs else list(encoder.inputs)
    for name in names:
        if name not in encoder.inputs:
            raise UserError(f"inputs: the encoder takes no {name!r}.{nearest(name, tuple(encoder.inputs))}")
    return {name: encoder.inputs[name] for name in names}


def _transcripts(
    config: FinetuneConfig, data: EvaluationSet, inputs: Mapping[str, FeatureSpec]
) -> dict[str, OtherWords]:
    """Name -> the words of every held-out clip."""
    if config.transcripts and not reads_words(inputs):
        told = {name: f"stored {name}" if spec.encoder else name for name, spec in inputs.items()}
        raise UserError(
            f"transcripts: the encoder is shown {'+'.join(told.values())}, and no words that could be others"
        )
    keys = {key for one in data.divisions for key in one.keys["test"]}
    found = {}
    for name, location in config.transcripts.items():
        try:
            if is_transcript(location):
                found[name] = read_transcript(data.shard_set, location, keys)
                continue
            other = ShardSet(location, config.cache)
            labels = data.protocol.labels
            found[name] = read_other_words(data.shard_set, other, keys, labels, as_written=not config.split)
        except UserError as error:
            raise UserError(f"transcripts.{name}: {error}") from None
    return found


def _facts(data: EvaluationSet, given: str, opened: Opened, inputs: Mapping[str, FeatureSpec]) -> dict[str, str]:
    """Title -> what a reader must know of the encoder."""
    known = data.facts_of(given, opened, inputs, "the encoder")
    facts = {"encoder": f"{known.identity}; from scratch takes its architecture only"}
    if known.pretrained_on:
        facts["scored clips in its pretraining"] = known.pretrained_on
    return {**facts, **known.suits}
