"""Tiny real media files, made on the spot."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

MakeClip = Callable[..., Path]


def _encode_video(container: Any, stream: Any, seconds: float, size: int) -> None:
    """Brightness rises from 0 to 250 over the clip, so that a frame tells its time."""
    count = round(seconds * stream.codec_context.framerate)
    for index in range(count):
        picture = np.full((size, size, 3), round(250 * index / max(1, count - 1)), dtype=np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())


def _encode_audio(container: Any, stream: Any, seconds: float, rate_hz: int) -> None:
    """Silence in the first half, a 440 Hz tone in the second."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.5 * np.sin(2 * np.pi * 440 * times) * (times >= seconds / 2)
    sound = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    sound.sample_rate = rate_hz
    # without a time the file does not tell the encoder's 1024 samples of run-in, and sounds that much late
    sound.pts, sound.time_base = 0, Fraction(1, rate_hz)
    container.mux(stream.encode(sound))
    container.mux(stream.encode())


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """`make_clip(path, seconds=1.0, fps=25, size=64, audio=True)`: an mp4, or sound alone for .m4a, .wav and .flac."""

    def make(
        path: Path,
        seconds: float = 1.0,
        fps: Fraction | int = 25,
        size: int = 64,
        audio: bool = True,
        rate_hz: int = 16000,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = {".wav": "pcm_s16le", ".flac": "flac"}.get(path.suffix, "aac")
        options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
        with av.open(str(path), "w", options=options) as container:
            video_stream = audio_stream = None  # both must be there before the first packet
            if path.suffix == ".mp4":
                video_stream = container.add_stream(
                    "h264", rate=Fraction(fps), options={"preset": "ultrafast", "g": "10"}
                )
                video_stream.width = video_stream.height = size
                video_stream.pix_fmt = "yuv420p"
            if audio:
                audio_stream = container.add_stream(codec, rate=rate_hz, layout="mono")
            if video_stream is not None:
                _encode_video(container, video_stream, seconds, size)
            if audio_stream is not None:
                _encode_audio(container, audio_stream, seconds, rate_hz)
        return path

    return make


@pytest.fixture
def make_corpus(make_clip: MakeClip, tmp_path: Path) -> Callable[..., Path]:
    """`make_corpus(speakers=4, clips=2)`: a folder in VoxCeleb2's layout with transcripts.ctm; each clip has 0.4 s."""

    def make(speakers: int = 4, clips: int = 2) -> Path:
        root = tmp_path / "raw"
        lines = []
        for speaker in range(speakers):
            for clip in range(clips):
                key = f"id{speaker:05d}/video{speaker}/{clip:05d}"
                make_clip(root / "dev" / "mp4" / f"{key}.mp4", seconds=0.4, size=32)
                lines += [f"{key} 1 0.05 0.10 hello 0.9\n", f"{key} 1 0.20 0.15 number{clip} 0.8\n"]
        (root / "transcripts.ctm").write_text("".join(lines))
        return root

    return make
