"""Square crops of one face, followed through the clip: the input of face towers (R(2+1)D of Franceschini et al. 2022).

MTCNN (Zhang et al. 2016; facenet-pytorch, whose package holds the weights) looks at some frames a second, the clip's
most persistent face is followed between them (`shards.features.face_track`), and each step is cut out around it. For
corpora whose frames show more than the face (RAVDESS, MOSEI, MELD); in VoxCeleb2 the frame is the crop already.

The detector runs on the CPU, also where a GPU is: it is small, and a box that differs by a pixel is another crop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from shards.features.face_track import main_track, squares
from shards.media.decode import decode_video, video_of
from triptych.config import UserError
from triptych.modalities import FeatureSpec

MEAN, STD = 112.0, 69.0
"""Over the colour crops of 13 clips of nine people (VoxCeleb2-like, RAVDESS, GRID)."""

MAX_SECONDS = 60
DETECTIONS_HZ = 5.0
"""Between two looks a talking head moves by a few per cent of its width."""
DETECTION_SIDE = 240
"""Frames are shrunk to this shorter side for the detector; a 1280x720 frame is found as well at a ninth of the work."""
MIN_FACE_SHARE = 0.1
"""Of the shorter side; a smaller face is not the one who talks."""
MIN_CONFIDENCE = 0.9
MAX_GAP_S = 1.0
"""Longer without a detection, the face is away (turned, cut to something else)."""
SMOOTH_S = 0.6
DETECTION_BATCH = 32
"""Frames in the detector at a time, so that its memory does not grow with the clip."""


@dataclass(frozen=True, kw_only=True)
class FacesConfig:
    """Crops of the face that the detector follows."""

    size: int = 112
    """Side of the crop; 112 is what Kinetics video towers take."""
    color: bool = True
    """False: one grey channel, [T, size, size]."""
    margin: float = 0.3
    """What the square is larger than the face box, as a share of its side: chin and forehead, with room to turn."""
    rate_hz: float = 12.5

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 224:
            raise ValueError(f"faces.size: {self.size}; expected 8 to 224 pixels")
        if not 0 <= self.margin <= 2:
            raise ValueError(f"faces.margin: {self.margin}; expected 0 to 2")
        if not 0 < self.rate_hz <= 60:
            raise ValueError(f"faces.rate_hz: {self.rate_hz}; expected more than 0 and at most 60")

    def build(self) -> "Faces":
        """The feature."""
        return Faces(self)


class Faces:
    """The feature; see the module."""

    def __init__(self, config: FacesConfig) -> None:
        self.config = config
        self.spec = FeatureSpec(
            name="faces",
            modality="video",
            version=1,
            rate_hz=config.rate_hz,
            shape=(config.size, config.size, 3) if config.color else (config.size, config.size),
            dtype="uint8",
            # the pixels are of one frame; where it is cut is an average over the boxes of the second around, which a
            # wide open jaw moves by pixels
            support_s=(0.0, 1 / config.rate_hz),
            mean=MEAN,
            std=STD,
            max_length=round(MAX_SECONDS * config.rate_hz),
            optional=True,
            settings=(
                ("color", config.color),
                ("detector", "mtcnn"),
                ("margin", config.margin),
                ("size", config.size),
            ),
        )

    def compute(self, members: Mapping[str, bytes]) -> np.ndarray | None:
        """Crops of a clip's face.

        Args:
            members: extension -> bytes of the sample's files.

        Returns:
            [T, size, size(, 3)] uint8 (RGB, or ITU-R 601 luma), black at steps without the face; None if the clip has
            no picture, or no face in it.

        Raises:
            shards.media.decode.DecodeError: the video is damaged.
            UserError: facenet-pytorch is not installed.
        """
        data = video_of(members)
        frames = None if data is None else decode_video(data, self.config.rate_hz)
        if frames is None:
            return None
        places = face_places(frames, self.config.rate_hz)
        if places is None:
            return None
        return np.stack([self._crop(frame, place) for frame, place in zip(frames, places, strict=True)])

    def _crop(self, frame: np.ndarray, place: np.ndarray) -> np.ndarray:
        if np.isnan(place).any():
            return np.zeros(self.spec.shape, dtype=np.uint8)
        x, y, side = place
        half = side * (1 + self.config.margin) / 2
        picture = Image.fromarray(frame)
        if not self.config.color:
            picture = picture.convert("L")
        # beyond the frame Pillow fills with black; whole pixels and its integer filter give the same crops everywhere
        square = picture.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        return np.asarray(square.resize((self.config.size, self.config.size), Image.Resampling.BILINEAR))


def face_places(frames: np.ndarray, rate_hz: float) -> np.ndarray | None:
    """Where the clip's most persistent face is.

    Args:
        frames: [T, H, W, 3] uint8.
        rate_hz: of the frames.

    Returns:
        [T, 3] centre x, centre y and side in pixels, NaN where the face is away; None if there is none.

    Raises:
        UserError: facenet-pytorch is not installed.
    """
    track = main_track(detect(frames, every=max(1, round(rate_hz / DETECTIONS_HZ))))
    if track is None:
        return None
    return squares(track, len(frames), max_gap=max(1, round(MAX_GAP_S * rate_hz)), smooth=round(SMOOTH_S * rate_hz))


def detect(frames: np.ndarray, every: int) -> dict[int, np.ndarray]:
    """Faces in some of the frames.

    Args:
        frames: [T, H, W, 3] uint8.
        every: look at frames 0, every, 2 * every, ... and at the last one.

    Returns:
        Index of the frame -> [n, 4] boxes x0, y0, x1, y1 in its pixels, n = 0 where there is no face.

    Raises:
        UserError: facenet-pytorch is not installed.
    """
    instants = sorted({*range(0, len(frames), every), len(frames) - 1})
    height, width = frames.shape[1:3]
    scale = min(1.0, DETECTION_SIDE / min(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(instants), DETECTION_BATCH):
        batch = instants[start : start + DETECTION_BATCH]
        small = np.stack([np.asarray(Image.fromarray(frames[i]).resize(shape, Image.Resampling.BOX)) for i in batch])
        boxes, confidences = _detector(max(12, round(MIN_FACE_SHARE * min(shape)))).detect(small)
        for instant, there, sure in zip(batch, boxes, confidences, strict=True):
            kept = [] if there is None else [box for box, much in zip(there, sure) if much >= MIN_CONFIDENCE]
            found[instant] = np.array(kept, dtype=np.float64).reshape(-1, 4) / (shape[0] / width)
    return found


@lru_cache(maxsize=4)  # loading takes longer than a clip; sizes differ only between corpora
def _detector(min_face: int) -> Any:
    try:
        from facenet_pytorch import MTCNN  # only here: an extra, and it loads torch
    except ImportError:
        raise UserError(
            "the feature faces needs MTCNN of facenet-pytorch: pip install 'triptych-pretrain[faces]'"
        ) from None
    return MTCNN(keep_all=True, min_face_size=min_face, device="cpu")
