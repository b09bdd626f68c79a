"""Frames as they are to be seen: turned as the file says, in one pixel format, and perhaps cropped. No torch.

Phones store the picture as the sensor lies, and a matrix that players turn it by; FFmpeg's decoders do not.
"""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

from shards.media.timeline import DecodeError

CLOCK = Fraction(1, 90_000)
"""NTSC's and film's rates are whole ticks of it, or a third of a tick off."""
_MIN_SIDE = 16

Box = tuple[float, float, float, float]


class Upright:
    """Makes frames of one stream upright.

    Args:
        first: all frames are of its size and pixel format.
        pixels: the format wanted, as FFmpeg names it.
        box: left, top, right, bottom as shares of the upright picture, to crop to even sizes; None leaves all of it.

    Raises:
        DecodeError: the box is too small.
    """

    def __init__(self, first: Any, pixels: str, box: Box | None = None) -> None:
        self._stored = _form(first)
        turns = _turns(first)
        across = any(name == "transpose" for name, _ in turns)
        self.width, self.height = (first.height, first.width) if across else (first.width, first.height)
        steps = [("format", pixels), *turns]
        if box is not None:
            steps.append(("crop", self._crop(box)))
        self._graph = graph = av.filter.Graph()
        if hasattr(graph, "threads"):  # PyAV 18 on; each would start a pool of threads, which no fork survives
            graph.threads = 1
        source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=CLOCK)
        filters = [graph.add(name, arguments) if arguments else graph.add(name) for name, arguments in steps]
        graph.link_nodes(source, *filters, graph.add("buffersink")).configure()

    def _crop(self, box: Box) -> str:
        left, top, right, bottom = box
        x, y = round(left * self.width) // 2 * 2, round(top * self.height) // 2 * 2
        width, height = (round(right * self.width) - x) // 2 * 2, (round(bottom * self.height) - y) // 2 * 2
        if min(width, height) < _MIN_SIDE:
            raise DecodeError(f"{width}x{height} pixels of {self.width}x{self.height} are too small for a picture")
        self.width, self.height = width, height
        return f"{width}:{height}:{x}:{y}"

    def of(self, frame: Any) -> Any:
        """The frame, upright.

        Raises:
            DecodeError: it is of another size.
        """
        if _form(frame) != self._stored:
            raise DecodeError("the picture changes its size")
        self._graph.vpush(frame)
        return self._graph.vpull()


def _form(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _turns(frame: Any) -> list[tuple[str, str]]:
    """Filters that turn a frame as its matrix says, to the nearest quarter; as the ffmpeg program chooses them."""
    told = frame.side_data.get(Type.DISPLAYMATRIX)
    if told is None:
        return []
    a, b, _, c, d = np.frombuffer(bytes(told), dtype="<i4")[:5].tolist()
    if abs(b) > abs(a):  # rows become columns
        direction = ("cclock_flip" if c > 0 else "clock") if b > 0 else ("clock_flip" if c < 0 else "cclock")
        return [("transpose", direction)]
    return [(name, "") for name, turned in (("hflip", a < 0), ("vflip", d < 0)) if turned]
