"""Reads numbers, text, plain containers and numpy arrays out of a pickle, and can be made to do nothing else.

A pickle is a program: it names functions and calls them. Here no name leads to a real function or class. The few that
numpy's arrays need lead to stand-ins of this file, which check what they are given and build the array themselves:
numpy's own `__setstate__` takes flags from the pickle that let bytes pass for pointers.
"""

import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError

_KINDS = "biufSU"
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


def load(path: Path, max_bytes: int) -> Any:
    """What the pickle holds: None, bool, int, float, str, bytes, list, tuple, dict, set, and `Stored` for arrays.

    Args:
        path: the file, of protocol 0 to 5; text of Python 2 is read as Latin-1.
        max_bytes: a larger file is refused.

    Raises:
        UserError: the file cannot be read, is damaged or too large, or names anything but numpy's plain arrays.
    """
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise UserError(f"{path}: {size / 1e9:.1f} GB; the limit is {max_bytes / 1e9:.1f} GB (max_gb)")
        with path.open("rb") as file:
            for place, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                # the memo is allocated up to the index that is named: more than there are values is an attack
                if opcode.name in _MEMO_OPCODES and int(str(argument)) > place + 1:
                    raise pickle.UnpicklingError(f"memo entry {argument} after {place} steps")
            file.seek(0)
            return _Unpickler(file, encoding="latin1").load()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the pickle cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can raise anything; what it raises is all that it can do
        raise UserError(f"{path}: the pickle is refused: {error}") from None


class Stored:
    """An array of a pickle."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = np.empty(0) if values is None else values

    def __setstate__(self, state: Any) -> None:
        version_shape_dtype = state if isinstance(state, tuple) and len(state) == 5 else _refuse("an array's state")
        _, shape, dtype, fortran, content = version_shape_dtype
        self.values = _array(content, dtype, shape, "F" if fortran else "C")


class _Dtype:
    """A numpy dtype: kind and size, and the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not (
            code == "O8" or code == "O" or (code[:1] in _KINDS and code[1:].isdigit())
        ):
            _refuse(f"arrays of {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        fields = state if isinstance(state, tuple) and len(state) >= 5 else _refuse("a dtype's state")
        if fields[1] not in ("<", ">", "|", "=") or any(field is not None for field in fields[2:5]):
            _refuse("arrays with fields")
        self.order = fields[1]

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.order == "|" else self.order + self.code)


class _StandIn:
    """What a pickle gets in place of a function or class of this name. It cannot be changed by the pickle."""

    __slots__ = ("_call", "name")

    name: str
    _call: Callable[..., Any] | None

    def __init__(self, name: str, call: Callable[..., Any] | None) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return _refuse(f"a call of {self.name}") if self._call is None else self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        _refuse(f"a change of {self.name}")

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse(f"a change of {self.name}")


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f"it holds {what}; only numbers, text, plain containers and numpy arrays are read")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    plain = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
    if not isinstance(dtype, _Dtype) or not plain or order not in ("C", "F"):
        _refuse("an array of no known form")
    if dtype.is_object:
        if not isinstance(content, list) or len(content) != math.prod(shape):
            _refuse("an array of objects without them")
        objects = np.empty(len(content), object)
        objects[:] = content
        return objects.reshape(shape, order=order)
    if isinstance(content, str):
        content = content.encode("latin1")  # of Python 2
    kind = dtype.dtype()
    if not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape) * kind.itemsize:
        _refuse("an array whose bytes are not as many as its shape says")
    return np.frombuffer(content, kind).reshape(shape, order=order) if content else np.empty(shape, kind)


def _reconstruct(subtype: Any, shape: Any, _: Any) -> Stored:
    if not isinstance(subtype, _StandIn) or subtype.name != "numpy.ndarray" or shape != (0,):
        _refuse("an array of a subclass")
    return Stored()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Stored:
    return Stored(_array(content, dtype, shape, order))


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        _refuse("text in an unknown encoding")
    return text.encode("latin1")


_KNOWN: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # how Python 3 writes no bytes at all there
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        f"{_core}.multiarray._reconstruct": _reconstruct,
        f"{_core}.multiarray.scalar": _scalar,
        f"{_core}.numeric._frombuffer": _from_buffer,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _KNOWN:
            _refuse(full)
        return _StandIn(full, _KNOWN[full])
