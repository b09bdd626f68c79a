"""Spoken words: ids from the vocabulary, each with its own times; they are in the record, not in a feature file."""

from triptych.modalities import FeatureSpec

WORDS = FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64", max_length=512)
