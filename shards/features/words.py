"""Spoken words, each with its own times: in the record, not in a feature file; a vocabulary gives them their ids."""

from dataclasses import replace

from triptych.modalities import FeatureSpec

WORDS = FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64", max_length=512)

PIECES = replace(WORDS, name="pieces", max_length=510, settings=(("unit", "piece"),))
"""Sub-word pieces of the words as they are written. With the model's own before and behind them 512: what BERT and
RoBERTa take at once, and SSE-FT's longest."""
