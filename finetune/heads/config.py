"""Which head; a new one is its file and a line here."""

import dataclasses
from dataclasses import dataclass

from finetune.heads.attention import AttentionConfig
from finetune.heads.base import Head
from finetune.heads.late_fusion import LateFusionConfig
from finetune.heads.linear import LinearConfig
from finetune.heads.mult import MultHeadConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from triptych.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A choice; the linear one where none is named."""

    linear: LinearConfig | None = None
    late_fusion: LateFusionConfig | None = None
    attention: AttentionConfig | None = None
    sse_ft: SseFtHeadConfig | None = None
    mult: MultHeadConfig | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        if len(given) > 1:
            raise ValueError(f"head: give one of {', '.join(given)}")

    @property
    def name(self) -> str:
        """Of the head that is meant."""
        given = (field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None)
        return next(given, "linear")

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """The head with fresh weights.

        Args:
            encoder: that it stands on.
            shown: modalities that are read, of those that the encoder takes.
            num_outputs: classes of a choice, else targets of the protocol.
            rate_hz: steps a second of a series; None of clips.

        Raises:
            UserError: the head cannot do that, or a setting does not fit the encoder.
        """
        config = getattr(self, self.name) or LinearConfig()
        head: Head = config.build(encoder, shown, num_outputs, rate_hz)
        return head
