"""The clips that a probe or a fine-tuning is evaluated on, and what is known of the encoders that are.

Both stages go through this one door: it finds the protocol, opens the shards, divides the clips and keeps the labels
shut until they are asked for; and it says of an encoder what a reader of the report must know.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shards.divisions.divisions import Division, divisions, read_list, rule_name
from shards.divisions.pretrained_on import compare, short_path
from shards.divisions.truth import Truth
from shards.reading.cache import CacheConfig
from shards.reading.encoders import Opened, open_encoder
from shards.reading.index import ShardSet
from shards.reading.suits import check_suits
from triptych.modalities import FeatureSpec
from triptych.protocols import registry
from triptych.protocols.protocol import Protocol

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What a reader must know of an encoder: each stage puts it under titles of its own."""

    identity: str
    """The end of its path, and the hash of its weights."""
    suits: Mapping[str, str]
    """How the clips suit it, see `check_suits`."""
    pretrained_on: str
    """Whether clips that are scored were in its pretraining; empty of published models."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Clips with their protocol, their division into train, valid and test, and their labels."""

    protocol: Protocol
    shard_set: ShardSet
    divisions: Sequence[Division]
    """One, or the folds of a cross-validation."""
    rule: str
    """The protocol's split rule, as mosei/standard or, of one fold, ravdess/hicmae_6fold/2; empty where the shard set's
    own split divides."""
    truth: Truth

    @classmethod
    def open(
        cls, shards: str, cache: CacheConfig, protocol: str, classes: Sequence[str], *, split: str, listed: str
    ) -> "EvaluationSet":
        """Divide the clips; no label is read yet.

        Args:
            shards: shard set with labels; a folder or a URL.
            cache: where shards of a URL are kept.
            protocol: name in triptych.protocols.registry.
            classes: some of the protocol's; none listed means all.
            split: see `divisions`.
            listed: file of keys, one a line, for a rule that takes its validation clips from a list; may be empty.

        Raises:
            UserError: no such protocol, class, shard set, split or file; a split that leaks.
        """
        found, shard_set = registry.find(protocol, tuple(classes)), ShardSet(shards, cache)
        return cls(
            protocol=found,
            shard_set=shard_set,
            divisions=divisions(shard_set, found, split, read_list(listed)),
            rule=rule_name(found, split),
            truth=Truth(shard_set, found),
        )

    def open_encoder(self, given: str) -> Opened:
        """The encoder that a user means, for these clips; see shards.reading.encoders."""
        return open_encoder(given, self.shard_set)

    def facts_of(self, given: str, opened: Opened, inputs: Mapping[str, FeatureSpec], called: str) -> EncoderFacts:
        """Compare an encoder with these clips; a warning says what may spoil its scores.

        Args:
            given: by the user, of `open_encoder`.
            opened: what that gave.
            inputs: modality -> feature, of those that it is shown.
            called: in warnings, as "encoder pretrained".

        Raises:
            UserError: no clip has a label of the protocol, or anything that the encoder reads.
        """
        suits = check_suits(self.shard_set, inputs, opened.encoder.words, self.protocol.labels)
        if "absent" in suits:
            logger.warning("warning: %s: %s; the encoder is used to more", self.shard_set.location, suits["absent"])
        pretrained = None if opened.folder is None else compare(opened.folder, self.shard_set)
        if pretrained and pretrained.shared:
            logger.warning("%s was pretrained on clips that are scored here: %s", called, pretrained.told)
        return EncoderFacts(
            identity=f"`{short_path(given)}`, model SHA-256 `{opened.sha256}`",
            suits=suits,
            pretrained_on=pretrained.told if pretrained else "",
        )
