"""SSE-FT, Siriwardhana et al. 2020: sequences of frozen self-supervised models, fused by inter-modal attention.

    core modality m:   x_m = SA([CLS_m, features])                                                     (Eq. 1)
                       x_m = features, where their first step is a CLS already (text)
    for n beside m:    c_m->n = IMA(query: x_m's CLS, keys and values: all steps of x_n)                (III-C)
    fused:             F = concatenation over m of the Hadamard product over n of c_m->n                (Eq. 3)
    head:              dropout, dense, tanh, dropout, out

SA and IMA are stacks of post-norm transformer layers with GELU and a feed-forward of 1024, as in the authors' code, and
so are learned positions and a norm in front of SA (none for text), the head's hidden width (that of F) and how weights
start. In an IMA stack layer 2's query is what layer 1 gave; keys and values stay the sequence of n in all layers. Their
code computes all query steps and reads the first; here only the CLS is computed, with W_k and W_v brought to its
side (triptych.models.attention): the same numbers, without a projection of any sequence. It has one setting for the
heads of SA and IMA; the paper's Table 2 has two, and so have we. One dropout rate serves all places, as in that table.

Table 2 (the defaults are MOSEI's); lr 3e-4, polynomial decay, 20 epochs for all:

    dataset    batch   self_attention_blocks   inter_modal_blocks   heads of both   dropout
    MOSEI         32                       2                    2               4        .1
    MOSI          16                       1                    1               1        .5
    IEMOCAP       32                       2                    1               4        .1
    MELD          32                       1                    1               2        .1

Ablations (Table 8): fewer cores; `fusion: cls` (no IMA); `fusion: concatenation` (no Hadamard product).

A clip may lack modalities (the paper's never do). c_m->n of an absent n is a neutral factor of the product, 1, or m's
own CLS in a concatenation; a clip with m alone has m's CLS in the place of the product; what an absent core gives is 0.

Legend: B clips, T and S steps, D width of a core modality, W width of what is fused, O outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from triptych.models.attention import SingleQueries
from triptych.models.blocks import Source, TransformerConfig, TransformerStack
from triptych.models.linear import Linear

START = 0.02
"""Standard deviation of new weights: BERT's."""


@dataclass(frozen=True, kw_only=True)
class CoreModality:
    """One modality that is fused."""

    width: int
    """Of its features: 1024 (RoBERTa-large), 512 (wav2vec), 256 (FAb-Net) in the paper."""
    max_steps: int
    """Longest sequence, of which positions are learnt: 935 and 300 in the paper; without a meaning where `has_cls`."""
    has_cls: bool = False
    """Its first real step stands for all of it already, as RoBERTa's <s>: no CLS, positions or self-attention."""


@dataclass(frozen=True, kw_only=True)
class SseFtConfig:
    """The fusion's settings; the defaults are the paper's for MOSEI."""

    self_attention_blocks: int = 2
    self_attention_heads: int = 4
    inter_modal_blocks: int = 2
    """Layers of each of the M (M - 1) IMA stacks."""
    inter_modal_heads: int = 4
    feedforward: int = 1024
    dropout: float = 0.1
    fusion: Literal["hadamard", "concatenation", "cls"] = "hadamard"
    """hadamard: products of the IMA stacks' results. concatenation: the results side by side (six in the paper).
    cls: the CLS of each modality, without any IMA stack (three in the paper)."""

    def __post_init__(self) -> None:
        for name in ("self_attention_blocks", "inter_modal_blocks", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """What the model says of a batch."""

    outputs: Tensor
    """[B, O]"""
    fused: Tensor
    """[B, W], in front of the head."""
    present: Mapping[str, Tensor]
    """Core modality -> [B] bool: which clips have it."""


class SequenceWithCls(nn.Module):
    """A learned CLS in front of a sequence, learned positions, and self-attention over both."""

    def __init__(self, core: CoreModality, config: SseFtConfig) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(core.width))
        self.positions = nn.Parameter(torch.empty(1 + core.max_steps, core.width))
        self.norm = nn.LayerNorm(core.width)
        self.dropout = nn.Dropout(config.dropout)
        layers = _layers(core.width, config, config.self_attention_blocks, config.self_attention_heads)
        self.layers = TransformerStack(layers, activation=nn.GELU)

    def forward(self, source: Source) -> Source:
        """[B, T, D] -> [B, 1 + T, D]: zeros at padding, and all along in clips that lack the modality."""
        mask = torch.cat([source.mask.any(dim=1, keepdim=True), source.mask], dim=1)
        cls = self.cls.expand(len(mask), 1, -1)
        x = torch.cat([cls, source.sequence.masked_fill(~source.mask[..., None], 0)], dim=1)
        x = self.dropout(self.norm(x + self.positions[: mask.shape[1]]))
        return Source(self.layers(x, mask), mask)


class SseFt(nn.Module):
    """The fusion of any number of modalities, with its head."""

    def __init__(self, config: SseFtConfig, cores: Mapping[str, CoreModality], num_outputs: int) -> None:
        """Build it.

        Args:
            config: settings.
            cores: name -> modality, at least one; the fused vector has them in this order.
            num_outputs: O: a number, classes, or two for each of the emotions.

        Raises:
            ValueError: there is no modality, or a width does not fit the heads.
        """
        super().__init__()
        if not cores:
            raise ValueError("SSE-FT needs at least one modality")
        self.config = config
        self.cores = dict(cores)
        self.self_attention = nn.ModuleDict(
            {name: SequenceWithCls(core, config) for name, core in cores.items() if not core.has_cls}
        )
        self.inter_modal = nn.ModuleDict(
            {f"{name}_from_{other}": self._stack(name, other) for name in cores for other in self._others(name)}
        )
        self.fused_width = sum(
            core.width * (max(1, len(self._others(name))) if config.fusion == "concatenation" else 1)
            for name, core in cores.items()
        )
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            Linear(self.fused_width, self.fused_width),
            nn.Tanh(),
            nn.Dropout(config.dropout),
            Linear(self.fused_width, num_outputs),
        )
        self._start()

    def forward(self, sources: Mapping[str, Source]) -> Fusion:
        """Fuse.

        Args:
            sources: core modality -> its features [B, T, width] and which steps are real; a clip that lacks it has
                none. What lies at padding has no influence.

        Raises:
            ValueError: a modality is not there, or is longer than its positions.
        """
        self._check(sources)
        whole = self.prepare(sources)
        present = {name: source.mask.any(dim=1) for name, source in whole.items()}
        results = self.attend(whole)
        fused = [
            self._join(_first(whole[name]), [(results[name, n], present[n][:, None]) for n in self._others(name)])
            * present[name][:, None]
            for name in self.cores
        ]
        vector = torch.cat(fused, dim=1)
        return Fusion(outputs=self.head(vector), fused=vector, present=present)

    def prepare(self, sources: Mapping[str, Source]) -> dict[str, Source]:
        """Core modality -> x_m, with a CLS as its first real step; zeros at padding."""
        return {
            name: self.self_attention[name](sources[name])
            if name in self.self_attention
            else Source(sources[name].sequence.masked_fill(~sources[name].mask[..., None], 0), sources[name].mask)
            for name in self.cores
        }

    def attend(self, whole: Mapping[str, Source]) -> dict[tuple[str, str], Tensor]:
        """(m, n) -> [B, D] c_m->n; numbers that mean nothing where a clip lacks n."""
        pairs = {name: SingleQueries(source.mask) for name, source in whole.items()}
        return {
            (name, other): attend_with_cls(
                self.inter_modal[f"{name}_from_{other}"], _first(whole[name]), whole[other].sequence, pairs[other]
            )
            for name in self.cores
            for other in self._others(name)
        }

    def _join(self, cls_BD: Tensor, results: list[tuple[Tensor, Tensor]]) -> Tensor:
        """[B, D] or, of a concatenation, [B, (M - 1) D]: a core modality's part of the fused vector."""
        if not results:
            return cls_BD
        if self.config.fusion == "concatenation":
            return torch.cat([torch.where(has, result, cls_BD) for result, has in results], dim=1)
        product = torch.ones_like(cls_BD)
        for result, has in results:
            product = product * torch.where(has, result, 1.0)
        return torch.where(torch.cat([has for _, has in results], dim=1).any(dim=1, keepdim=True), product, cls_BD)

    def _others(self, name: str) -> list[str]:
        """The modalities that a core modality's CLS attends to."""
        return [] if self.config.fusion == "cls" else [other for other in self.cores if other != name]

    def _stack(self, name: str, other: str) -> TransformerStack:
        config = self.config
        layers = _layers(self.cores[name].width, config, config.inter_modal_blocks, config.inter_modal_heads)
        return TransformerStack(layers, "queries", self.cores[other].width, nn.GELU)

    def _start(self) -> None:
        """BERT's start, but for the queries, keys and values of IMA, which are Glorot's in the authors' code."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=START)
                nn.init.zeros_(module.bias)
            elif isinstance(module, SequenceWithCls):
                nn.init.normal_(module.cls, std=START)
                nn.init.normal_(module.positions, std=START)
        for stack in self.inter_modal.values():
            for layer in stack:  # type: ignore[attr-defined]
                for part in (layer.attention.query, layer.attention.key, layer.attention.value):
                    nn.init.xavier_uniform_(part.weight)

    def _check(self, sources: Mapping[str, Source]) -> None:
        for name, core in self.cores.items():
            if name not in sources:
                raise ValueError(
                    f"SSE-FT was built for {', '.join(self.cores)}, and got {', '.join(sources) or 'none'}"
                )
            steps = sources[name].mask.shape[1]
            if steps > core.max_steps and not core.has_cls:
                raise ValueError(f"{name}: {steps} steps, and max_steps is {core.max_steps}")


def attend_with_cls(stack: nn.Module, cls_BD: Tensor, sequence_BSD: Tensor, pairs: SingleQueries) -> Tensor:
    """[B, D]: row 0 of what an IMA stack gives for all steps whose first one is the CLS, and nothing else of it."""
    assert isinstance(stack, TransformerStack)
    for layer in stack:
        cls_BD = layer(cls_BD, cls_BD, sequence_BSD, sequence_BSD, pairs)
    return cls_BD


def _layers(width: int, config: SseFtConfig, blocks: int, heads: int) -> TransformerConfig:
    return TransformerConfig(
        width=width, layers=blocks, heads=heads, feedforward=config.feedforward, dropout=config.dropout
    )


def _first(source: Source) -> Tensor:
    """[B, D]: the first real step; of a clip without any, the first one."""
    return source.sequence[torch.arange(len(source.mask), device=source.mask.device), source.mask.int().argmax(dim=1)]
