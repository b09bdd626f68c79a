"""wav2vec large, Schneider et al. 2019, frozen: a waveform of 16 kHz -> context vectors, one every 10 ms.

    z = log(1 + |encoder(wave)|)     seven convolutions without bias, each with a norm over the clip and ReLU
    c = aggregator(z)                twelve causal ones, kernels 2 to 13: c <- (layer(c) + c) / sqrt(2)

c is what SSE-FT takes for a clip's sound: 150,000 samples give 935 steps of width 512. The norm (of one group) runs
over all steps of a clip, so that padding would change every step: clips are run one by one, at their own lengths. In
front of its first step a causal convolution sees that step again.

The modules have the names of fairseq's checkpoint `wav2vec_large.pt`, so that its weights fit as they are; what
predicts future steps there is left out. Read in public code: the layers and their order, and a printout of that
checkpoint with the encoder's kernels, strides, norms and missing biases. Taken from fairseq's published training
command for this model and from its defaults, not seen in the file, which was not at hand: the aggregator's kernels,
biases and skip connections, the residual scale and the logarithm. Loading checks names and shapes, and so the kernels
and biases; skip connections, scale and logarithm have no weights.

Legend: B clips, N samples, T steps.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from triptych.models.blocks import Source
from triptych.models.published import load_exactly, read_weights
from triptych.models.towers.tower import Steps

WIDTH = 512
ENCODER = ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), (1, 1))
"""Kernel and stride."""
HOP = prod(stride for _, stride in ENCODER)
"""Samples from one step to the next."""
SHORTEST = 465
"""Samples that a step sees."""
AGGREGATOR = tuple(range(2, 14))
"""Kernels."""
RESIDUAL_SCALE = 0.5**0.5
LEFT_OUT = ("wav2vec_predictions.",)
MAX_BYTES = 2**31
"""Of a checkpoint, which may hold the optimizer's state too."""


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *[WIDTH] * (len(ENCODER) - 1))
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, WIDTH, kernel, stride, bias=False), nn.Identity(), nn.GroupNorm(1, WIDTH), nn.ReLU()
            )
            for width, (kernel, stride) in zip(inputs, ENCODER, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.conv_layers:
            x = layer(x)
        return x.abs().log1p()


class _Aggregator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.ReplicationPad1d((kernel - 1, 0)),
                nn.Conv1d(WIDTH, WIDTH, kernel),
                nn.Identity(),
                nn.GroupNorm(1, WIDTH),
                nn.ReLU(),
            )
            for kernel in AGGREGATOR
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.conv_layers:
            states.append((layer(states[-1]) + states[-1]) * RESIDUAL_SCALE)
        return states


def num_steps(num_samples: int) -> int:
    """Steps of a clip; none of one that is shorter than SHORTEST."""
    for kernel, stride in ENCODER:
        num_samples = max(0, (num_samples - kernel) // stride + 1)
    return num_samples


class Wav2VecLarge(nn.Module):
    """Frozen: it trains neither weights nor what is in front of it."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = _Encoder()
        self.feature_aggregator = _Aggregator()
        self.requires_grad_(False)

    @classmethod
    def load(cls, setting: str, weights: str) -> "Wav2VecLarge":
        """Build it with the weights of a file.

        Args:
            setting: key in the config, for messages.
            weights: fairseq's `wav2vec_large.pt`, or a .safetensors file with the same names.

        Raises:
            UserError: they cannot be read, or are not this network's.
        """
        state = read_weights(setting, weights, None, MAX_BYTES, inside=("model",))
        model = cls()
        mine = {name: value for name, value in state.items() if not name.startswith(LEFT_OUT)}
        load_exactly(model, mine, setting, weights, "wav2vec large")
        return model

    @torch.no_grad()
    def forward(self, waves_BN: Tensor, lengths: Sequence[int], layers: list[Steps] | None = None) -> Source:
        """Context vectors.

        Args:
            waves_BN: 16 kHz, in [-1, 1].
            lengths: real samples of each clip, from its start; 0 where it has no sound.
            layers: takes up what enters the aggregator and what leaves each of its layers; None keeps nothing.

        Returns:
            [B, T, 512], zeros at padding, T at least 1; a clip too short for a step has none.
        """
        steps = [num_steps(length) for length in lengths]
        shape = (len(steps), max([1, *steps]), WIDTH)
        kept = [waves_BN.new_zeros(shape) for _ in range(1 if layers is None else 1 + len(AGGREGATOR))]
        mask = (torch.arange(shape[1]) < torch.tensor(steps)[:, None]).to(waves_BN.device)
        for clip, length in enumerate(lengths):
            if steps[clip]:
                states = self.feature_aggregator(self.feature_extractor(waves_BN[None, None, clip, :length]))
                for rows, state in zip(kept, states[-len(kept) :], strict=True):
                    rows[clip, : steps[clip]] = state[0].T
        if layers is not None:
            layers += [Steps(rows, mask) for rows in kept]
        return Source(kept[-1], mask)
