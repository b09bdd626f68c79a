"""A tower without weights: what a frozen encoder's tower said of a clip, read out of the shards.

`python -m shards features SHARDS encoder=ENCODER out=FOLDER` computes the sequences once and writes FOLDER/encoder, an
encoder of such towers. Whatever stands on the sequences of the one stands on those of the other with the same numbers.

Legend: B clips, T steps, D width.
"""

from dataclasses import dataclass
from typing import ClassVar

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace, timed


@dataclass(frozen=True, kw_only=True)
class StoredConfig(TowerConfig):
    """Nothing to choose: the feature tells all."""

    pretrained: ClassVar[bool] = True

    def build(self, place: TowerPlace) -> "StoredTower":
        """See TowerConfig."""
        return StoredTower(self, place.spec, place.width)


class StoredTower(Tower):
    """Gives the sequence that it reads, and its mean over time as pooled vector.

    The mean is over the real steps, without the CLS if there is one. A layer that the encoder had behind its mean is
    not in the shards.
    """

    def __init__(self, config: StoredConfig, spec: FeatureSpec, width: int) -> None:
        """Build it.

        Args:
            config: nothing.
            spec: of a stored sequence.
            width: 0.

        Raises:
            ValueError: the feature is no tower's sequence, or a layer behind the mean is asked for.
        """
        super().__init__()
        if spec.encoder is None:
            raise ValueError(
                f"{spec.modality}.stored: reads what `python -m shards features SHARDS encoder=ENCODER` wrote; "
                f"{spec.name} is made from a clip's media, and needs a tower with weights"
            )
        if width:
            raise ValueError(f"{spec.modality}.stored: has no weights, and so no layer to width {width}; set width: 0")
        (self.sequence_width,) = spec.shape
        self.width = self.sequence_width
        self.has_cls = bool(dict(spec.settings)["has_cls"])

    def most_steps(self, num_steps: int) -> int:
        """See Tower: a CLS is among the steps of the track."""
        return num_steps

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower. The only layer is the sequence; a hidden step is zero."""
        hidden = ~track.mask if track.hidden is None else ~track.mask | track.hidden
        sequence = track.values.float().masked_fill(hidden[..., None], 0.0)
        if layers is not None:
            layers.append(Steps(sequence, track.mask))
        pooled = mean_pool(sequence, timed(track.mask, self.has_cls))
        return TowerOutput(sequence=sequence, mask=track.mask, pooled=pooled)
