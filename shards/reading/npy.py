"""An array out of the bytes of an .npy file, without a copy.

`np.load` evaluates the header as Python source each time and copies the data: a third of the time that it takes to read
a clip with stored features. Clips of one length share their header, so that it is parsed once.
"""

import io
from functools import lru_cache
from math import prod
from threading import Lock
from typing import Literal

import numpy as np
from numpy.lib import format as npy

_ONE_AT_A_TIME = Lock()
"""Numpy parses a header as Python source, and Python 3.11 fails now and then where two threads do that at once
("AST constructor recursion depth mismatch", cpython issue 106905)."""


def from_bytes(content: bytes) -> np.ndarray:
    """The array, read-only and in place.

    Args:
        content: of the whole file.

    Raises:
        ValueError: no .npy file, cut short, or an array of Python objects (which would need pickle).
    """
    end = npy.MAGIC_LEN + 2
    header = content[: end + int.from_bytes(content[npy.MAGIC_LEN : end], "little")]
    shape, order, dtype = _parse(header)
    return np.frombuffer(content, dtype, count=prod(shape), offset=len(header)).reshape(shape, order=order)


@lru_cache(maxsize=4096)  # a header takes 128 bytes; there is one a feature and length
def _parse(header: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    file = io.BytesIO(header)
    if (version := npy.read_magic(file)) != (1, 0):
        raise ValueError(f"format {version} of .npy; arrays are stored as 1.0")
    with _ONE_AT_A_TIME:
        shape, fortran_order, dtype = npy.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects is not read: it would need pickle")
    return shape, "F" if fortran_order else "C", dtype
