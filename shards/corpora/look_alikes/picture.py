"""Writes a recording without sound."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from shards.corpora.synthetic_render import FPS

_CODECS = {".mp4": "libx264", ".avi": "mpeg4"}
"""mpeg4 is what DivX is."""


def write_picture(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write an mp4 or avi of 25 frames a second; folders are made.

    Args:
        path: the ending tells the format.
        frames: [F, P, Q, 3] RGB, even numbers of pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = _CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.bit_rate = 400_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
