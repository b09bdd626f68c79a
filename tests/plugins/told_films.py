"""Generated films that tell the time: which frame it is stands in its pixels, and each half second beeps otherwise."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BLOCK = 16
COLUMNS, ROWS = 4, 2
"""Black and white blocks, which are the bits of the frame's number."""
BEEP_S = 0.2
LEVEL = 0.25
RATE_HZ = 48000


@dataclass(frozen=True, kw_only=True)
class Film:
    """What is to be generated."""

    seconds: float = 2.5
    ticks: Sequence[int] | None = None
    """When each frame starts, in milliseconds; None is a constant rate."""
    fps: Fraction = Fraction(25)
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    """Of the picture's encoder; g is the distance of key frames."""
    pixels: str = "yuv420p"
    turn: int = 0
    """Quarters clockwise by which a player has to turn the stored picture."""
    sound: str | None = "aac"
    layout: str = "mono"
    gains: Sequence[float] = (1.0,)
    """Of each channel."""
    hole: tuple[float, float] | None = None
    """Seconds whose packets of sound are missing."""
    late: tuple[float, float] = (0.0, 0.0)
    """When picture and sound start."""
    copied_from_s: float = 0.0
    """Cut there without coding anew, so that an edit list hides what is before."""

    def starts_s(self) -> np.ndarray:
        """When each frame starts on the clock of the file."""
        ticks = self.ticks
        if ticks is None:
            starts = np.arange(int(self.seconds * self.fps)) / float(self.fps)
        else:
            starts = np.array(ticks) / 1000
        return starts + self.late[0] - self.copied_from_s

    def beeps_s(self) -> list[float]:
        """When each whole beep starts on the clock of the file."""
        begin_s = np.arange(0.0, self.seconds - BEEP_S, 0.5)
        hole = self.hole or (-9.0, -9.0)
        there = [begin for begin in begin_s if begin + BEEP_S < hole[0] - 0.05 or begin > hole[1] + 0.05]
        moved = [begin + self.late[1] - self.copied_from_s for begin in there]
        return [begin for begin in moved if begin >= 0]


def number_of(picture: np.ndarray) -> int:
    """The number in an upright frame, [32, 64, 3]."""
    grey = picture.mean(axis=-1)
    blocks = grey.reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 4:12, :, 4:12].mean(axis=(1, 3)) > 128
    return int(sum(int(bit) << place for place, bit in enumerate(blocks.ravel())))


def make(path: Path, film: Film) -> Path:
    """The film as a file."""
    content = io.BytesIO()
    with av.open(content, "w", "mp4", {"movie_timescale": "90000"}) as target:
        picture = target.add_stream(film.codec, rate=film.fps, options={"g": "12", **film.options})
        rows, columns = ROWS * BLOCK, COLUMNS * BLOCK
        picture.height, picture.width = (columns, rows) if film.turn % 2 else (rows, columns)
        picture.pix_fmt = film.pixels
        picture.codec_context.time_base = Fraction(1, 1000) if film.ticks else 1 / film.fps
        sound = None
        if film.sound is not None:
            sound = target.add_stream(film.sound, rate=RATE_HZ, layout=film.layout)
            sound.bit_rate = 128_000 * len(film.gains)
        for frame in _frames(film, picture.codec_context.time_base):
            target.mux(picture.encode(frame))
        target.mux(picture.encode(None))
        if sound is not None:
            target.mux(sound.encode(_beeps(film, sound)))
            target.mux(sound.encode(None))
    data = content.getvalue()
    if film.hole or film.copied_from_s or any(film.late):
        data = _copied(data, film)
    path.write_bytes(_turned(data, film.turn))
    return path


def _frames(film: Film, clock: Fraction) -> Iterator[av.VideoFrame]:
    ticks = film.ticks or range(int(film.seconds * film.fps))
    for number, tick in enumerate(ticks):
        bits = np.array([number >> place & 1 for place in range(COLUMNS * ROWS)], dtype=np.uint8)
        upright = np.kron(bits.reshape(ROWS, COLUMNS) * 235, np.ones((BLOCK, BLOCK), dtype=np.uint8))
        stored = np.ascontiguousarray(np.rot90(upright, film.turn))
        frame = av.VideoFrame.from_ndarray(np.repeat(stored[..., None], 3, axis=-1), format="rgb24")
        frame.pts, frame.time_base = tick, clock
        yield frame


def _beeps(film: Film, stream: Any) -> av.AudioFrame:
    times = np.arange(int(film.seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = 500 + 200 * np.floor(times * 2)
    voice = LEVEL * np.sin(2 * np.pi * pitch_hz * times) * (times % 0.5 < BEEP_S)
    channels = (np.outer(film.gains, voice)).astype(np.float32)
    kind = stream.codec_context.format.name if stream.codec_context.format else "fltp"
    if kind.startswith("s"):
        channels = (channels * 2 ** (31 if "32" in kind else 15)).astype(np.int32 if "32" in kind else np.int16)
    packed = channels if kind.endswith("p") else channels.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), kind, film.layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    return frame


def _copied(data: bytes, film: Film) -> bytes:
    """Packets copied at other times, some of them left out."""
    content = io.BytesIO()
    options = {"movie_timescale": "90000", "avoid_negative_ts": "disabled"}
    with av.open(io.BytesIO(data)) as source, av.open(content, "w", "mp4", options) as target:
        streams = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        keys = [packet.pts * packet.time_base for packet in packets if packet.is_keyframe and _is_picture(packet)]
        key_s = max((key for key in keys if key <= film.copied_from_s), default=Fraction(0))
        for packet in packets:
            if _is_left_out(packet, film, key_s):
                continue
            moved_s = film.late[0 if _is_picture(packet) else 1] - film.copied_from_s
            moved = round(moved_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
    return content.getvalue()


def _is_left_out(packet: Any, film: Film, key_s: Fraction) -> bool:
    time_s, end_s = (time * packet.time_base for time in (packet.pts, packet.pts + packet.duration))
    if _is_picture(packet):
        return bool(packet.dts * packet.time_base < key_s - Fraction(1, 5) or time_s < key_s)
    if film.hole is not None:
        return bool(time_s < film.hole[1] and end_s > film.hole[0])
    return bool(film.copied_from_s and end_s < film.copied_from_s - 0.1)


def _is_picture(packet: Any) -> bool:
    return packet.stream.type == "video"


def _turned(data: bytes, quarters: int) -> bytes:
    """With the matrix of the first track, which is the picture's, saying so."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters % 4]
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 14]
    numbers = b"".join((number << 16).to_bytes(4, "big", signed=True) for number in matrix)
    place = data.index(b"tkhd") + 44
    return data[:place] + numbers + data[place + 36 :]
