"""Run by damage.py in a peer's own environment: `PEER PATH WORKERS` prints what it delivers, and its error, as JSON."""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def samples_of_webdataset(tar: str, workers: int) -> Iterator[dict[str, Any]]:
    """Plain webdataset with its defaults."""
    import webdataset

    yield from webdataset.WebDataset([tar], shardshuffle=False)


def samples_of_streaming(folder: str, workers: int) -> Iterator[dict[str, Any]]:
    """MDS in a "store" (the folder), copied to a local folder and checked there."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    with tempfile.TemporaryDirectory() as local:
        dataset = StreamingDataset(remote=folder, local=local, shuffle=False, batch_size=1, validate_hash="xxh64")
        yield from DataLoader(dataset, batch_size=None, num_workers=workers)


def write(folder: str) -> None:
    """Write the samples given on the input as one MDS shard with hashes."""
    from streaming import MDSWriter

    shutil.rmtree(folder, ignore_errors=True)
    with MDSWriter(out=folder, columns={"json": "bytes", "m4a": "bytes"}, hashes=["xxh64"]) as writer:
        for members in json.load(sys.stdin).values():
            writer.write({name: bytes.fromhex(value) for name, value in members.items()})


def main() -> None:
    """Read all, or write."""
    peer, path, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if peer == "write":
        write(path)
        return
    read = {"webdataset": samples_of_webdataset, "streaming": samples_of_streaming}[peer]
    found: dict[str, str] = {}
    error = ""
    try:
        for number, sample in enumerate(read(str(Path(path)), workers)):
            content = sample.get("json", b"") + b"|" + sample.get("m4a", b"")
            try:
                key = json.loads(sample["json"])["key"]
            except (KeyError, ValueError):
                key = f"sample {number} without a readable json"
            while key in found:  # the same clip twice, or in two halves
                key += "+"
            found[key] = hashlib.sha256(content).hexdigest()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"found": found, "error": error}), flush=True)


if __name__ == "__main__":
    main()
