"""SSE-FT as its authors run it (all steps ask, the first row is read), for ima.py: of torch's own parts, or with
attention as one writes it down.

The first is re-created from the paper and from what is known of the public code: post-norm layers with GELU, padding
masked. Torch's attention takes keys of another width by separate projections.

Legend: B clips, T steps, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.models.attention import Attention, Pairs
from triptych.models.blocks import Source, TransformerLayer
from triptych.models.sse_ft import CoreModality, Fusion, SequenceWithCls, SseFt, SseFtConfig


class OrdinaryAttention(Attention):
    """Softmax, dropout and products, all heads at once; for clips of one length."""

    def forward(self, queries_ND: Tensor, keys_MD: Tensor, values_MD: Tensor, pairs: Pairs) -> Tensor:
        """See Attention."""
        [sides] = pairs.split(self.query(queries_ND), self.key(keys_MD), self.value(values_MD))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in sides)
        weights = functional.dropout(((q * self.scale) @ k.mT).softmax(dim=-1), self.dropout, self.training)
        return self.output(pairs.join([(weights @ v).transpose(1, 2)]).flatten(1))


def make_ordinary(model: nn.Module) -> None:
    """Put ordinary attention into a model of ours, in the place of its own."""
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Attention):
                width, source_width = child.query.in_features, child.key.in_features
                ordinary = OrdinaryAttention(width, child.heads, child.dropout, None, source_width)
                setattr(module, name, ordinary)


class TorchLayer(nn.Module):
    """A post-norm layer of self-attention or of attention to another sequence."""

    def __init__(self, width: int, source_width: int, heads: int, config: SseFtConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            width, heads, config.dropout, kdim=source_width, vdim=source_width, batch_first=True
        )
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.feedforward), nn.GELU(), nn.Linear(config.feedforward, width)
        )
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D]; the mask is that of the keys."""
        attended = self.attention(x, keys, keys, key_padding_mask=~mask, need_weights=False)[0]
        x = self.attention_norm(x + self.dropout(attended))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))

    def take(self, ours: TransformerLayer) -> None:
        """Take the weights of one of ours."""
        there, parts = self.attention, (ours.attention.query, ours.attention.key, ours.attention.value)
        with torch.no_grad():
            there.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            if there.in_proj_weight is not None:
                there.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            else:
                for name, part in zip("qkv", parts, strict=True):
                    getattr(there, f"{name}_proj_weight").copy_(part.weight)
        there.out_proj.load_state_dict(ours.attention.output.state_dict())
        for name in ("attention_norm", "feedforward", "feedforward_norm"):
            getattr(self, name).load_state_dict(getattr(ours, name).state_dict())


class TorchSseFt(nn.Module):
    """The fusion for clips that have all modalities."""

    def __init__(self, config: SseFtConfig, cores: Mapping[str, CoreModality], num_outputs: int) -> None:
        super().__init__()
        self.cores = dict(cores)
        own, cross = range(config.self_attention_blocks), range(config.inter_modal_blocks)
        self.front = nn.ModuleDict()
        self.own = nn.ModuleDict()
        for name, core in cores.items():
            if not core.has_cls:
                front = SequenceWithCls(core, config)
                front.layers = nn.Identity()  # type: ignore[assignment]
                front.dropout = nn.Dropout(config.dropout)
                self.front[name] = front
                heads = config.self_attention_heads
                self.own[name] = nn.ModuleList(TorchLayer(core.width, core.width, heads, config) for _ in own)
        self.cross = nn.ModuleDict(
            {
                f"{name}_from_{other}": nn.ModuleList(
                    TorchLayer(core.width, cores[other].width, config.inter_modal_heads, config) for _ in cross
                )
                for name, core in cores.items()
                for other in cores
                if other != name
            }
        )
        width = sum(core.width for core in cores.values())
        dropout = config.dropout
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, num_outputs)
        )

    def take(self, ours: SseFt) -> None:
        """Take the weights of ours."""
        self.head.load_state_dict(ours.head.state_dict())
        for name, front in self.front.items():
            front.load_state_dict(ours.self_attention[name].state_dict(), strict=False)
        stacks: dict[str, Any] = {name: front.layers for name, front in ours.self_attention.items()}
        stacks |= dict(ours.inter_modal.items())
        for name, layers in self.stacks.items():
            for theirs, mine in zip(layers, stacks[name], strict=True):
                theirs.take(mine)

    @property
    def stacks(self) -> dict[str, Any]:
        """Name -> its layers."""
        return {**dict(self.own.items()), **dict(self.cross.items())}

    def prepare(self, sources: Mapping[str, Source]) -> dict[str, Source]:
        """See SseFt."""
        whole = dict(sources)
        for name, front in self.front.items():
            assert isinstance(front, SequenceWithCls)
            source = sources[name]
            mask = torch.cat([source.mask[:, :1], source.mask], dim=1)
            x = torch.cat([front.cls.expand(len(mask), 1, -1), source.sequence], dim=1)
            x = front.dropout(front.norm(x + front.positions[: mask.shape[1]]))
            for layer in self.stacks[name]:
                x = layer(x, x, mask)
            whole[name] = Source(x, mask)
        return whole

    def attend(self, whole: Mapping[str, Source]) -> dict[tuple[str, str], Tensor]:
        """See SseFt."""
        results = {}
        for name in self.cores:
            for other in self.cores:
                if other != name:
                    x = whole[name].sequence
                    for layer in self.stacks[f"{name}_from_{other}"]:
                        x = layer(x, whole[other].sequence, whole[other].mask)
                    results[name, other] = x[:, 0]
        return results

    def forward(self, sources: Mapping[str, Source]) -> Fusion:
        """See SseFt."""
        whole = self.prepare(sources)
        results = self.attend(whole)
        products = [
            torch.stack([results[name, other] for other in self.cores if other != name]).prod(dim=0)
            for name in self.cores
        ]
        fused = torch.cat(products, dim=1)
        return Fusion(outputs=self.head(fused), fused=fused, present={})
