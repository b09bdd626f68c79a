"""MulT (triptych.models.mult), the field's reference model, over the sequences of an encoder's towers."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from finetune.heads.base import Head
from finetune.heads.shared import refuse_series, sequences
from triptych.batch import Batch
from triptych.models.encoder import Encoded, Encoder
from triptych.models.mult import Mult, MultConfig


@dataclass(frozen=True, kw_only=True)
class MultHeadConfig(MultConfig):
    """MulT's sizes; its streams are all modalities that are shown. A tower's CLS is a step like the others."""

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """See HeadConfig.

        Raises:
            UserError: for series.
        """
        refuse_series("mult", rate_hz)
        return MultHead(self, {name: encoder.sequence_widths[name] for name in shown}, num_outputs)


class MultHead(Head):
    """The model as it is."""

    fuses = False

    def __init__(self, config: MultConfig, widths: Mapping[str, int], num_outputs: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.model = Mult(config, widths, num_outputs)

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Outputs [B, E]."""
        outputs: Tensor = self.model(sequences(encoded, batch, self.widths))
        return outputs
