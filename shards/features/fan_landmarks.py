"""68 facial landmarks by FAN (Bulat and Tzimiropoulos 2017, package face-alignment), for clips without a csv file.

The face is followed as for `faces`; the network looks at each step's square. Points are in iBUG's order, centred and
scaled as those of `landmarks`, frame by frame: a tower may take either. Crops, heat maps and points are made by the
package's own functions; the network is called here, in batches, so that its weights are known by their hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shards.features.faces import face_places
from shards.features.landmarks import MEAN, NUM_POINTS, STD, scaled
from shards.media.decode import decode_video, video_of
from triptych.config import UserError
from triptych.files import sha256
from triptych.modalities import FeatureSpec

PUBLISHED = "2DFAN4-11f355bf06"
"""The package's weights, by the name of their file."""
HASH = "sha256:"
BATCH = 16
REFERENCE_SIZE = 195.0
"""Pixels of a face at the package's scale 1: the mean of its box's width and height, times two, over this."""
RAISED = 0.12
"""Of the box's height: FAN's crops are centred above the box's middle."""


@dataclass(frozen=True, kw_only=True)
class FanLandmarksConfig:
    """Landmarks that a network finds."""

    weights: str = PUBLISHED
    """A file with the weights of a FAN; the package's own, which are downloaded once; or `sha256:HEX` of a file, for
    shards that hold the feature already."""
    rate_hz: float = 12.5

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"fan_landmarks.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")
        by_name = self.weights == PUBLISHED or self.weights.startswith(HASH)
        if not by_name and not Path(self.weights).is_file():
            raise ValueError(f"fan_landmarks.weights: {self.weights!r} is no file; give one, or {PUBLISHED}")

    def build(self) -> "FanLandmarks":
        """The feature."""
        return FanLandmarks(self)


class FanLandmarks:
    """The feature; see the module."""

    def __init__(self, config: FanLandmarksConfig) -> None:
        self.config = config
        self.spec = FeatureSpec(
            name="fan_landmarks",
            modality="video",
            version=1,
            rate_hz=config.rate_hz,
            shape=(NUM_POINTS, 2),
            dtype="float32",
            support_s=(0.0, 1 / config.rate_hz),
            mean=MEAN,
            std=STD,
            optional=True,
            settings=(("weights", _identity(config.weights)),),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Landmarks of a clip's face.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, 68, 2] float32 as of `shards.features.landmarks`, zeros at steps without the face or with the eyes in
            one place; None if the clip has no picture, or no face in it.

        Raises:
            shards.media.decode.DecodeError: the video is damaged.
            UserError: a package is not installed, or the weights cannot be had.
        """
        data = video_of(members)
        frames = None if data is None else decode_video(data, self.config.rate_hz)
        places = None if frames is None else face_places(frames, self.config.rate_hz)
        if frames is None or places is None:
            return None
        there = ~np.isnan(places).any(axis=1)
        values = np.zeros((len(frames), NUM_POINTS, 2), dtype=np.float32)
        found, good = scaled(find_points(_network(self.config.weights), frames[there], places[there]))
        values[there] = np.where(good[:, None, None], found, 0.0)
        return values


def find_points(network: Any, frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What FAN says of each frame.

    Args:
        network: [B, 3, 256, 256] -> list of [B, 68, 64, 64], the last one being the answer.
        frames: [N, H, W, 3] uint8.
        places: [N, 3] centre x, centre y and side of the face, in pixels.

    Returns:
        [N, 68, 2] float64, x and y in pixels.
    """
    import torch
    from face_alignment.utils import crop, get_preds_fromhm

    device = next(network.parameters()).device
    points = []
    for start in range(0, len(frames), BATCH):
        batch = []
        for frame, (x, y, side) in zip(frames[start : start + BATCH], places[start : start + BATCH], strict=True):
            center, scale = np.array([x, y - RAISED * side]), 2 * side / REFERENCE_SIZE
            batch.append((crop(frame, center, scale).transpose(2, 0, 1), center, scale))
        pictures = torch.from_numpy(np.stack([picture for picture, *_ in batch])).to(device, torch.float32) / 255
        with torch.inference_mode():
            maps = network(pictures)[-1].cpu().numpy()
        for of_frame, (_, center, scale) in zip(maps, batch, strict=True):
            points.append(get_preds_fromhm(of_frame[None], center, scale)[1][0])
    return np.stack(points).astype(np.float64)


def _identity(weights: str) -> str:
    return weights if weights == PUBLISHED or weights.startswith(HASH) else f"{HASH}{_hash_of(weights)}"


@lru_cache(maxsize=4)  # features are built once a clip where clips are opened
def _hash_of(path: str) -> str:
    return sha256(Path(path))


@lru_cache(maxsize=1)
def _network(weights: str) -> Any:
    """The network, loaded once a process; on the GPU if there is one, not in a data loader's worker."""
    import torch
    from torch.utils.data import get_worker_info

    if weights.startswith(HASH):
        raise UserError(
            f"fan_landmarks: these clips do not hold the feature of the weights {weights}, and a hash does not say "
            "where they are: write the feature into the shards with fan_landmarks.weights=FILE"
        )
    try:
        from face_alignment.api import models_urls
        from face_alignment.models import FAN
        from face_alignment.utils import load_file_from_url
    except ImportError:
        raise UserError(
            "the feature fan_landmarks needs the face-alignment package: pip install 'triptych-pretrain[landmarks]'"
        ) from None
    try:
        path = load_file_from_url(models_urls["2DFAN-4"]) if weights == PUBLISHED else weights
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = FAN(sum(name.startswith("conv_last") and name.endswith(".bias") for name in state))
        network.load_state_dict(state)
    except Exception as error:  # torch's, the download's and those of what is no state dict have no class in common
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"fan_landmarks.weights: {weights} cannot be had ({said}); give the file of a FAN") from None
    on_gpu = torch.cuda.is_available() and get_worker_info() is None
    return network.eval().requires_grad_(False).to("cuda" if on_gpu else "cpu")
