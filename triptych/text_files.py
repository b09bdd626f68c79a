"""Text files that people made, whatever program saved them: the one way to read them. No torch.

Notepad and Excel put a mark before UTF-8 (EF BB BF) or save UTF-16; the mark says which, and is no part of the first
word.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from triptych.config import UserError

# the longer marks first: UTF-32's little one begins with UTF-16's
_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@contextmanager
def open_text(path: Path, newline: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """A file of text, to be read line by line.

    Args:
        path: UTF-8 with or without its mark; UTF-16 or UTF-32 with it.
        newline: as of `open`; "" for the csv module.
        errors: as of `open`; "replace" for files whose remarks are of any code.

    Raises:
        OSError: it cannot be opened or read.
        UserError: it is not text in one of those codes; where, and what to do.
    """
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
    try:
        with path.open(encoding=encoding, newline=newline, errors=errors) as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_where(path, encoding, error)}; save it as UTF-8") from None


def read_text(path: Path, errors: str = "strict") -> str:
    """The whole of a file of text; arguments as of `open_text`.

    Raises:
        OSError, UserError: as of `open_text`.
    """
    with open_text(path, errors=errors) as lines:
        return lines.read()


def decode_text(content: bytes, name: str) -> str:
    """The text of a file that was read already.

    Raises:
        UserError: as of `open_text`; `name` says where.
    """
    encoding = next((code for mark, code in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}: {_not(encoding)} in line {line} ({_shown(error)}); save it as UTF-8") from None


def _where(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """The line of the first byte that is no text: the error itself knows only its piece of the file."""
    if encoding != "utf-8-sig":
        return f"{_not(encoding)} ({_shown(error)})"
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as found:
                return f"{_not(encoding)} in line {number} ({_shown(found)})"
    return f"{_not(encoding)} ({_shown(error)})"


def _not(encoding: str) -> str:
    return f"is not {encoding.removesuffix('-sig').upper()}"


def _shown(error: UnicodeDecodeError) -> str:
    return f"bytes {error.object[error.start : error.start + 4].hex(' ')}"
