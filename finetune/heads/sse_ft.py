"""SSE-FT (triptych.models.sse_ft) over the sequences of an encoder's towers, any number of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from finetune.heads.base import Head
from finetune.heads.shared import check_dropout, refuse_series, sequences
from triptych.batch import Batch
from triptych.config import UserError, nearest
from triptych.models.encoder import Encoded, Encoder
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig


@dataclass(frozen=True, kw_only=True)
class SseFtHeadConfig(SseFtConfig):
    """The fusion's settings, and how it meets the towers. Every modality that is shown is a core modality. One whose
    tower gives a CLS (`text.encoder.cls`), as the paper's RoBERTa does, gets no other, and no self-attention."""

    max_steps: dict[str, int] = field(default_factory=dict)
    """Modality -> longest sequence of its tower, for which positions are learnt (of one with a CLS there are none); the
    most that it gives of a clip where none is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout("sse_ft", dropout=self.dropout)
        for name, steps in self.max_steps.items():
            if steps < 1:
                raise ValueError(f"head.sse_ft.max_steps.{name}: {steps} must be at least 1")

    def build(self, encoder: Encoder, shown: tuple[str, ...], num_outputs: int, rate_hz: float | None) -> Head:
        """See HeadConfig.

        Raises:
            UserError: for series; a modality that the encoder does not take; heads that do not divide a width.
        """
        refuse_series("sse_ft", rate_hz)
        for name in self.max_steps:
            if name not in encoder.inputs:
                raise UserError(f"head.sse_ft.max_steps: the encoder takes no {name!r}.{nearest(name, encoder.inputs)}")
            if name in encoder.modalities_with_cls:
                raise UserError(
                    f"head.sse_ft.max_steps.{name}: without effect, as no positions are learnt for a tower that gives "
                    "a CLS; leave it out"
                )
        cores = {
            name: CoreModality(
                width=encoder.sequence_widths[name],
                max_steps=self.max_steps.get(name, encoder.most_steps(name)),
                has_cls=name in encoder.modalities_with_cls,
            )
            for name in shown
        }
        for heads in ("self_attention_heads", "inter_modal_heads"):
            for name, core in cores.items():
                if getattr(self, heads) < 1 or core.width % (2 * getattr(self, heads)):
                    raise UserError(
                        f"head.sse_ft.{heads}: {getattr(self, heads)}, and the tower of {name} is {core.width} wide, "
                        "which must be a multiple of twice that"
                    )
        return SseFtHead(self, cores, num_outputs)


class SseFtHead(Head):
    """The fusion with its own head."""

    fuses = False

    def __init__(self, config: SseFtConfig, cores: Mapping[str, CoreModality], num_outputs: int) -> None:
        super().__init__()
        self.widths = {name: core.width for name, core in cores.items()}
        self.model = SseFt(config, cores, num_outputs)

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Outputs [B, E].

        Raises:
            UserError: a sequence is longer than `max_steps`.
        """
        sources = sequences(encoded, batch, self.widths)
        for name, core in self.model.cores.items():
            if not core.has_cls and (steps := sources[name].mask.shape[1]) > core.max_steps:
                raise UserError(
                    f"head.sse_ft.max_steps.{name}: {core.max_steps}, and the tower gives {steps} steps of a clip; "
                    "give more, or write shards with shorter clips"
                )
        outputs: Tensor = self.model(sources).outputs
        return outputs
