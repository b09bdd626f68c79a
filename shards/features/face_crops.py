"""Small grey crops of one region of the frame: the input of a light frame tower that trains with everything else.

For corpora whose frames are already cropped to the face (VoxCeleb2, CREMA-D), where a fixed box finds the mouth. A
laptop trains on 32x32 mouth crops; VGG-16 on full frames needs a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shards.media.decode import DecodeError, decode_video, video_of
from triptych.modalities import FeatureSpec

MEAN, STD = 128.0, 32.0
"""Between what was measured: 139 and 21 on mouth boxes of 70 GRID clips, 83 and 50 on clips of seven other people."""


@dataclass(frozen=True, kw_only=True)
class FaceCropsConfig:
    """Grey crops of a fixed box of the frame."""

    box: tuple[float, float, float, float] = (0.40, 0.25, 0.45, 0.50)
    """Top, left, height, width as fractions of the frame. The default is mouth and chin of a VoxCeleb2 face crop with
    the slack that heads turning in the crop need (looked at on clips of seven people)."""
    size: int = 32
    """Side of the square that the box is shrunk to."""
    rate_hz: float = 25.0

    def __post_init__(self) -> None:
        top, left, height, width = self.box
        if min(top, left) < 0 or min(height, width) <= 0 or top + height > 1 or left + width > 1:
            raise ValueError(
                f"face_crops.box: {list(self.box)} is not inside the frame; expected top, left, height, "
                "width as fractions, with top + height <= 1 and left + width <= 1"
            )
        if not 8 <= self.size <= 224:
            raise ValueError(f"face_crops.size: {self.size}; expected 8 to 224 pixels")
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"face_crops.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")

    def build(self) -> "FaceCrops":
        """The feature."""
        return FaceCrops(self)


class FaceCrops:
    """The feature; see the module."""

    def __init__(self, config: FaceCropsConfig) -> None:
        self.config = config
        self.spec = FeatureSpec(
            name="face_crops",
            modality="video",
            version=1,
            rate_hz=config.rate_hz,
            shape=(config.size, config.size),
            dtype="uint8",
            support_s=(0.0, 1 / config.rate_hz),
            mean=MEAN,
            std=STD,
            settings=(("box", tuple(config.box)), ("size", config.size)),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Crops of a clip's frames.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, size, size] uint8 (ITU-R 601 luma, each pixel the mean of the area it covers), or None if the clip has
            no picture.

        Raises:
            shards.media.decode.DecodeError: the video is damaged.
        """
        data = video_of(members)
        frames = None if data is None else decode_video(data, self.config.rate_hz)
        if frames is None:
            return None
        rows, columns = self._region(*frames.shape[1:3])
        # Pillow computes in integers: the same crops on every machine, which a float resize would not promise
        return np.stack([self._shrink(frame[rows, columns]) for frame in frames])

    def _region(self, height: int, width: int) -> tuple[slice, slice]:
        top, left, box_height, box_width = self.config.box
        rows = slice(round(top * height), round((top + box_height) * height))
        columns = slice(round(left * width), round((left + box_width) * width))
        if rows.start == rows.stop or columns.start == columns.stop:
            raise DecodeError(f"frames of {width}x{height} pixels are too small for the box")
        return rows, columns

    def _shrink(self, crop: np.ndarray) -> np.ndarray:
        grey = Image.fromarray(np.ascontiguousarray(crop)).convert("L")
        return np.asarray(grey.resize((self.config.size, self.config.size), Image.Resampling.BOX))
