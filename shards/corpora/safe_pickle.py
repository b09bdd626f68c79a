"""Reads numbers, text, plain containers and numpy arrays out of a pickle, and can be made to do nothing else.

A pickle is a program for a small stack machine that names functions and calls them. This is such a machine without
functions: the standard library takes the program apart (`pickletools`), and a name leads to nothing but the few forms
that numpy writes arrays in, which are checked and built here. (numpy's own `__setstate__` would take flags from the
file that let bytes pass for pointers.)
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from triptych.config import UserError

_KINDS = "biufSU"


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
        machine = _Machine()
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                machine.step(opcode.name, argument)
        return machine.stack.pop()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the pickle cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError, OverflowError) as error:
        raise UserError(f"{path}: the pickle is refused: {error or type(error).__name__}") from None


class Stored:
    """An array of a pickle."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = np.empty(0) if values is None else values

    def set_state(self, state: Any) -> None:
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

    def set_state(self, state: Any) -> None:
        fields = state if isinstance(state, tuple) and len(state) >= 5 else _refuse("a dtype's state")
        if fields[1] not in ("<", ">", "|", "=") or any(field is not None for field in fields[2:5]):
            _refuse("arrays with fields")
        self.order = fields[1]

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.order == "|" else self.order + self.code)


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"it holds {what}; only numbers, text, plain containers and numpy arrays are read")


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
    if subtype != _Name("numpy.ndarray") or shape != (0,):
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


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names."""

    full: str


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # how Python 3 writes no bytes at all into protocols 0 to 2
}
for _core in ("numpy.core", "numpy._core"):
    _CALLS |= {
        f"{_core}.multiarray._reconstruct": _reconstruct,
        f"{_core}.multiarray.scalar": _scalar,
        f"{_core}.numeric._frombuffer": _from_buffer,
    }

_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_ARGUMENTS = frozenset(
    (
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
"""Steps whose argument is the value."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack machine; `step` after `step`, what is left on the stack is the value."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One step.

        Raises:
            ValueError: one that is of no use for plain values.
        """
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        elif name in _TUPLES:
            items = self.stack[-_TUPLES[name] :]
            del self.stack[-_TUPLES[name] :]
            self.stack.append(tuple(items))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP") and not self._marked(name):
            self._composed(name, argument)

    def _marked(self, name: str) -> bool:
        """Steps that begin a list of values, or take one; False for the others."""
        if name == "MARK":
            self._below.append(self.stack)
            self.stack = []
            return True
        if name not in ("TUPLE", "LIST", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK"):
            return False
        items, self.stack = self.stack, self._below.pop()
        match name:
            case "TUPLE":
                self.stack.append(tuple(items))
            case "LIST":
                self.stack.append(items)
            case "DICT":
                self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))
            case "FROZENSET":
                self.stack.append(frozenset(items))
            case "APPENDS":
                self._top(list).extend(items)
            case "SETITEMS":
                self._top(dict).update(zip(items[::2], items[1::2], strict=True))
            case "ADDITEMS":
                self._top(set).update(items)
        return True

    def _composed(self, name: str, argument: Any) -> None:
        """Steps that take values from the stack, and names."""
        match name:
            case "GLOBAL":
                self.stack.append(_named(".".join(str(argument).split(" "))))
            case "STACK_GLOBAL":
                last, module = self.stack.pop(), self.stack.pop()
                self.stack.append(_named(f"{module}.{last}"))
            case "REDUCE":
                arguments, function = self.stack.pop(), self.stack.pop()
                if not isinstance(function, _Name) or function.full not in _CALLS or not isinstance(arguments, tuple):
                    _refuse(f"a call of {function}")
                self.stack.append(_CALLS[function.full](*arguments))
            case "BUILD":
                state = self.stack.pop()
                if not isinstance(self.stack[-1], Stored | _Dtype):
                    _refuse(f"a change of {self.stack[-1]}")
                self.stack[-1].set_state(state)
            case "APPEND":
                item = self.stack.pop()
                self._top(list).append(item)
            case "SETITEM":
                item, key = self.stack.pop(), self.stack.pop()
                self._top(dict)[key] = item
            case "POP":
                self.stack.pop()
            case "DUP":
                self.stack.append(self.stack[-1])
            case _:
                _refuse(f"the step {name}")

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            _refuse(f"a change of {self.stack[-1]} as of a {kind.__name__}")
        return self.stack[-1]


def _named(full: str) -> _Name:
    if full not in _CALLS and full != "numpy.ndarray":
        _refuse(full)
    return _Name(full)
