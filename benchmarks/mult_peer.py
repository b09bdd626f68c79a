"""The layers of MulT (Tsai et al. 2019, "Multimodal Transformer for Unaligned Multimodal Language Sequences"),
re-created from the paper and from what is known of its public code, to be measured beside ours.

Known of the code: sequences run step by batch by width; batches are padded with zeros and no mask says so, so that
padding attends, is attended to, and is computed like everything else; probabilities are held in full, once before and
once after dropout, and averaged over the heads for a result that nobody reads; the source stream is normalised anew
in every layer, once as keys and once as values; every stack adds its own positions, sinusoids of the step's number,
but at steps whose first number is zero; layers normalise first (pre-LN), and a stack normalises once more at its end.

Legend: T steps, S steps of another stream, B clips, D width, H heads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

DROPOUT = {"attention": 0.1, "feedforward": 0.1, "residual": 0.1, "embedding": 0.25}
"""The defaults of the public code. There, attention of sound and picture has none; here it has the text's, as ours."""


@dataclass(frozen=True)
class Size:
    """Of all transformers of a system."""

    width: int
    layers: int
    heads: int
    feedforward: int


class FullAttention(nn.Module):
    """Scaled dot products with every probability written down."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.inputs_weight = nn.Parameter(torch.empty(3 * width, width))
        self.inputs_bias = nn.Parameter(torch.zeros(3 * width))
        self.output = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.inputs_weight)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """[T, B, D] of queries [T, B, D], keys and values [S, B, D]; `mask` [T, S] is added to the scores."""
        if queries is keys:
            q, k, v = functional.linear(queries, self.inputs_weight, self.inputs_bias).chunk(3, dim=-1)
        else:
            streams = zip((queries, keys, values), self.inputs_weight.chunk(3), self.inputs_bias.chunk(3), strict=True)
            q, k, v = (functional.linear(stream, weight, bias) for stream, weight, bias in streams)
        q, k, v = (self._by_head(x) for x in (q * self.scale, k, v))
        scores = torch.bmm(q, k.transpose(1, 2))  # [BH, T, S]
        if mask is not None:
            scores = scores + mask
        weights = functional.dropout(scores.softmax(dim=-1), DROPOUT["attention"], self.training)
        mixed = torch.bmm(weights, v).transpose(0, 1).reshape(queries.shape)
        _ = weights.unflatten(0, (-1, self.heads)).sum(dim=1) / self.heads  # what the public code hands out beside it
        return self.output(mixed)

    def _by_head(self, x_TBD: Tensor) -> Tensor:
        steps, clips, width = x_TBD.shape
        return x_TBD.contiguous().view(steps, clips * self.heads, width // self.heads).transpose(0, 1)


class Layer(nn.Module):
    """Pre-LN layer; one norm for the stream and its source."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention = FullAttention(size.width, size.heads)
        self.first, self.second = nn.Linear(size.width, size.feedforward), nn.Linear(size.feedforward, size.width)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(size.width), nn.LayerNorm(size.width)

    def forward(self, x: Tensor, keys: Tensor | None, values: Tensor | None, causal: bool) -> Tensor:
        """[T, B, D]; without keys the stream attends to itself."""
        queries = self.attention_norm(x)
        if keys is None or values is None:
            keys = values = queries
        else:
            keys, values = self.attention_norm(keys), self.attention_norm(values)
        attended = self.attention(queries, keys, values, later(len(x), len(keys)) if causal else None)
        x = x + self._dropped(attended, "residual")
        inner = self._dropped(self.first(self.feedforward_norm(x)).relu(), "feedforward")
        return x + self._dropped(self.second(inner), "residual")

    def _dropped(self, x: Tensor, where: str) -> Tensor:
        return functional.dropout(x, DROPOUT[where], self.training)


def later(num_queries: int, num_keys: int) -> Tensor:
    """[T, S]: -inf where a key comes more than the difference in length after the query; the code's default."""
    return torch.full((num_queries, num_keys), -math.inf).triu(1 + abs(num_keys - num_queries))


class Stack(nn.Module):
    """Positions, layers, a last norm."""

    table: Tensor

    def __init__(self, size: Size, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        steps = torch.arange(2048)[:, None] * torch.exp(
            torch.arange(0, size.width, 2) * (-math.log(10000.0) / size.width)
        )
        table = torch.cat([steps.sin(), steps.cos()], dim=-1)
        table[0] = 0  # steps count from 1; 0 is a step that is all zeros
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """[T, B, D] from [T, B, D] and, in a crossmodal stack, [S, B, D]."""
        x = self._placed(x)
        keys, values = (None, None) if source is None else (self._placed(source), self._placed(source))
        for layer in self.layers:
            x = layer(x, keys, values, self.causal)
        return self.norm(x)

    def _placed(self, x: Tensor) -> Tensor:
        numbers = torch.arange(1, len(x) + 1)[:, None].expand(x.shape[:2]) * (x[..., 0] != 0)
        x = math.sqrt(x.shape[-1]) * x + self.table[numbers]
        return functional.dropout(x, DROPOUT["embedding"], self.training)


class Inputs(nn.Module):
    """Word vectors and frames -> [T, B, D] each, by convolutions of one step without a bias."""

    def __init__(self, sizes: Mapping[str, int], num_words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words + 1, sizes["text"], padding_idx=0)
        self.project = nn.ModuleDict({name: nn.Conv1d(size, width, 1, bias=False) for name, size in sizes.items()})

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of [B, T] ids for the text and [B, T, size] for the others."""
        given = {name: self.words(values) if name == "text" else values for name, values in inputs.items()}
        return {name: self.project[name](x.transpose(1, 2)).permute(2, 0, 1) for name, x in given.items()}


class MulT(nn.Module):
    """The whole published system: six crossmodal stacks, and for each modality a memory stack over what two of them
    say side by side, which is twice as wide; its last steps go through a residual block to the outputs."""

    def __init__(self, sizes: Mapping[str, int], num_words: int, size: Size, outputs: int) -> None:
        super().__init__()
        self.inputs = Inputs(sizes, num_words, size.width)
        pairs = [(target, source) for target in sizes for source in sizes if source != target]
        self.cross = nn.ModuleDict({f"{source}_to_{target}": Stack(size, causal=True) for target, source in pairs})
        # The public code's feed-forward is four times the width, in the memory too; the given one grows alike.
        wide = Size(2 * size.width, size.layers, size.heads, 2 * size.feedforward)
        self.memory = nn.ModuleDict({name: Stack(wide, causal=True) for name in sizes})
        together = 2 * size.width * len(sizes)
        self.first, self.second = nn.Linear(together, together), nn.Linear(together, together)
        self.output = nn.Linear(together, outputs)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[B, outputs]."""
        streams = self.inputs(inputs)
        last = []
        for target, x in streams.items():
            crossed = [self.cross[f"{name}_to_{target}"](x, other) for name, other in streams.items() if name != target]
            last.append(self.memory[target](torch.cat(crossed, dim=-1))[-1])
        summary = torch.cat(last, dim=-1)
        return self.output(summary + self.second(self.first(summary).relu()))


class OurShape(nn.Module):
    """MulT's layers in the shape of our system: a stack a modality, crossmodal stacks onto the anchors' outputs, sums,
    means. What is left between the two are the layers and what they compute on."""

    def __init__(
        self, sizes: Mapping[str, int], num_words: int, size: Size, outputs: int, anchors: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.inputs = Inputs(sizes, num_words, size.width)
        self.towers = nn.ModuleDict({name: Stack(size, causal=False) for name in sizes})
        pairs = [(anchor, name) for anchor in anchors for name in sizes if name != anchor]
        self.cross = nn.ModuleDict({f"{name}_to_{anchor}": Stack(size, causal=False) for anchor, name in pairs})
        self.anchors = anchors
        self.output = nn.Linear(size.width, outputs)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[B, outputs]."""
        towers = {name: self.towers[name](x) for name, x in self.inputs(inputs).items()}
        pools = []
        for anchor in self.anchors:
            crossed = [
                self.cross[f"{name}_to_{anchor}"](towers[anchor], other)
                for name, other in towers.items()
                if name != anchor
            ]
            pools.append((towers[anchor] + sum(crossed)).mean(dim=0))
        return self.output(torch.stack(pools).mean(dim=0))
