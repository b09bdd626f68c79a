"""Files that are whole or absent, and their hashes. No torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from triptych.refusals import sync


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write or replace a file: after a crash it is the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)


def sha256_of(value: Any) -> str:
    """SHA-256 of plain types, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
