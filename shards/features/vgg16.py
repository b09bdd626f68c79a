"""VGG-16's fc7 of every frame: 4096 numbers, the picture input of Khare et al. 2021, section 3.1.

fc7 is the second fully connected layer after its ReLU. The paper names neither weights, rate nor crop. Here:
torchvision's ImageNet weights unless others are given, every frame at 25 a second, the frame's middle square at 224x224
(a VoxCeleb2 frame as it is), scaled as those weights want it.

15.5 GFLOP a frame: compute it once, where a GPU is, and store it (8 KiB a frame; `rate_hz: 5` takes a fifth of both).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from shards.features import vgg16_weights
from shards.media.decode import decode_video, video_of
from triptych.config import UserError
from triptych.modalities import FeatureSpec

WIDTH = 4096
SIDE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB between 0 and 1, as in torchvision's VGG16_Weights.IMAGENET1K_V1.transforms()."""
BATCH = 32
"""Frames in the network at a time; the first layer's output alone takes 13 MB a frame."""
MAX_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Vgg16Config:
    """fc7 of VGG-16."""

    weights: str = "IMAGENET1K_V1"
    """IMAGENET1K_V1 (torchvision's; downloaded once, its hash checked), a file (.safetensors, or .pth without pickled
    code) with torchvision's names, `random:SEED` for trials, or `sha256:HEX` for what is stored already and cannot be
    computed here. Two weights are two features, also where their paths are equal."""
    rate_hz: float = 25.0

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"vgg16.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")

    def build(self) -> "Vgg16":
        """The feature."""
        return Vgg16(self)


class Vgg16:
    """The feature; see the module.

    Raises:
        UserError: `weights` is none of the four kinds, or its file cannot be read.
    """

    def __init__(self, config: Vgg16Config) -> None:
        self.config = config
        self._which = vgg16_weights.identity(config.weights)
        self.spec = FeatureSpec(
            name="vgg16",
            modality="video",
            version=1,
            rate_hz=config.rate_hz,
            shape=(WIDTH,),
            dtype="float16",
            support_s=(0.0, 1 / config.rate_hz),
            # mean and std stay 0 and 1: they are the weights' own, and a constant needs a corpus to be measured on
            max_length=round(MAX_SECONDS * config.rate_hz),
            settings=(("layer", "fc7"), ("side", SIDE), ("weights", self._which)),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """fc7 of a clip's frames.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, 4096] float16, none negative; None if the clip has no picture.

        Raises:
            shards.media.decode.DecodeError: the video is damaged.
            UserError: there are no weights to compute it with.
        """
        return self.compute_many([members])[0]

    def compute_many(self, clips: Sequence[Mapping[str, bytes]]) -> list[np.ndarray | None]:
        """As `compute`, for several clips whose frames share the network's batches.

        Equal to `compute` up to float32 rounding, which depends on the batch: at most one step of float16.
        """
        pictures = [self._pictures(members) for members in clips]
        there = [clip for clip in pictures if clip is not None]
        if not there:
            return [None] * len(clips)
        values = fc7(vgg16_weights.network(self.config.weights, self._which), np.concatenate(there))
        ends = np.cumsum([len(clip) for clip in there])
        parts = iter(np.split(values, ends[:-1]))
        return [None if clip is None else next(parts) for clip in pictures]

    def _pictures(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """[T, 224, 224, 3] uint8"""
        data = video_of(members)
        frames = None if data is None else decode_video(data, self.config.rate_hz)
        if frames is None or frames.shape[1:3] == (SIDE, SIDE):
            return frames
        height, width = frames.shape[1:3]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        squares = np.ascontiguousarray(frames[:, top : top + side, left : left + side])
        shrunk = [Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for square in squares]
        return np.stack([np.asarray(square) for square in shrunk])


def fc7(network: Any, frames: np.ndarray) -> np.ndarray:
    """The network's numbers for each frame.

    Args:
        network: [B, 3, 224, 224] float32 -> [B, 4096] float32, a torch module.
        frames: [N, 224, 224, 3] uint8.

    Returns:
        [N, 4096] float16.

    Raises:
        UserError: the weights give numbers that float16 does not hold.
    """
    import torch  # only here: whoever reads what is stored does without the network

    device = next(network.parameters()).device
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    parts = []
    # without TF32, whose 10 bits would show in float16: a feature is the same wherever it was computed
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for start in range(0, len(frames), BATCH):
            batch = torch.from_numpy(frames[start : start + BATCH]).to(device).permute(0, 3, 1, 2)
            parts.append(network((batch.to(torch.float32) - mean) / std).to(torch.float16).cpu().numpy())
    values: np.ndarray = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise UserError("vgg16.weights: these weights give numbers beyond float16 (65504), or none")
    return values
