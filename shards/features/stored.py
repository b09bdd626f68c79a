"""What a frozen encoder's tower said of a clip: read out of shards, and never computed from a clip's media."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from triptych.modalities import FeatureSpec


@dataclass
class StoredSequence:
    """A Feature that shards hold; see `shards.writing.add_sequences`, which writes it."""

    spec: FeatureSpec

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Nothing asks: shards.reading.clips refuses a set that does not hold the sequences."""
        raise AssertionError(f"{self.spec.name} is read, not computed")
