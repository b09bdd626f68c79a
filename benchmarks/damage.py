"""What happens when a shard is damaged: the same ten kinds of damage to shards of ours, of webdataset and of streaming.

    python benchmarks/damage.py [webdataset=PYTHON] [streaming=PYTHON]

PYTHON is the interpreter of an environment with that peer (`uv venv PEER && uv pip install --python PEER/bin/python
webdataset torch`, or `mosaicml-streaming`); a peer that is not given is not measured. Prints a table for README.md.
Ours and webdataset read the same tar. Streaming reads its own format, damaged in the same places, as it would be in a
store: with hashes written and checked (`validate_hash`), which it does when it copies a shard.
"""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEER = Path(__file__).with_name("damage_peer.py")
NUM_CLIPS = 100
PEER_TIMEOUT_S = 45
"""Four times what a peer takes for the undamaged clips."""


@dataclass(frozen=True)
class File:
    """A file in a tar; places in bytes."""

    name: str
    header: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Of its last block."""
        return self.offset + -(-self.size // 512) * 512


def files_of(tar: bytes) -> list[File]:
    """All files of a tar, in its order."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [File(entry.name, entry.offset, entry.offset_data, entry.size) for entry in archive]


def _middle(files: list[File]) -> tuple[int, int]:
    """First and second file of the sample in the middle."""
    key = files[len(files) // 2].name.partition(".")[0]
    first = next(number for number, file in enumerate(files) if file.name.partition(".")[0] == key)
    return first, first + 1


def _cut_at_a_sample(tar: bytes, files: list[File]) -> bytes:
    return tar[: files[_middle(files)[0]].header]


def _cut_between_members(tar: bytes, files: list[File]) -> bytes:
    return tar[: files[_middle(files)[1]].header]


def _cut_in_a_payload(tar: bytes, files: list[File]) -> bytes:
    file = files[_middle(files)[1]]
    return tar[: file.offset + file.size // 2]


def _with(tar: bytes, start: int, content: bytes) -> bytes:
    return tar[:start] + content + tar[start + len(content) :]


def _broken_header(tar: bytes, files: list[File]) -> bytes:
    file = files[_middle(files)[0]]
    return _with(tar, file.header, bytes(byte ^ 0x15 for byte in tar[file.header : file.header + 200]))


def _zeroed_payload(tar: bytes, files: list[File]) -> bytes:
    file = files[_middle(files)[1]]
    return _with(tar, file.offset, bytes(file.size))


def _two_zero_blocks(tar: bytes, files: list[File]) -> bytes:
    return _with(tar, files[_middle(files)[0]].header, bytes(1024))


def _empty(tar: bytes, files: list[File]) -> bytes:
    return b""


def _page(tar: bytes, files: list[File]) -> bytes:
    return b"<!DOCTYPE html><html><head><title>503</title></head><body>Service Unavailable</body></html>\n" * 20


def _interleaved(tar: bytes, files: list[File]) -> bytes:
    """The same files, each once, but one kind after the other, as `tar` packs them from folders by kind."""
    order = sorted(files, key=lambda file: (file.name.partition(".")[2], file.offset))
    return b"".join(tar[file.header : file.end] for file in order) + tar[files[-1].end :]


def _flipped_bits(tar: bytes, files: list[File]) -> bytes:
    file, damaged = files[_middle(files)[1]], bytearray(tar)
    for place in (file.size // 4, file.size // 2, 3 * file.size // 4):
        damaged[file.offset + place] ^= 1
    return bytes(damaged)


DAMAGES: dict[str, Callable[[bytes, list[File]], bytes]] = {
    "cut at a sample's end": _cut_at_a_sample,
    "cut between a sample's files": _cut_between_members,
    "cut inside a payload": _cut_in_a_payload,
    "broken header in the middle": _broken_header,
    "zeroed payload": _zeroed_payload,
    "two zero blocks in the middle": _two_zero_blocks,
    "empty file": _empty,
    "HTML page in its place": _page,
    "files of samples not side by side": _interleaved,
    "flipped bits": _flipped_bits,
}
"""The tar and its files -> the damaged tar."""


def damage_mds(kind: str, shard: bytes) -> bytes | None:
    """The same kind of damage to a shard of streaming: sample count, a table of offsets, samples. None: has no such."""
    count = int.from_bytes(shard[:4], "little")
    starts = [int.from_bytes(shard[4 + 4 * number : 8 + 4 * number], "little") for number in range(count + 1)]
    start, stop = starts[count // 2], starts[count // 2 + 1]
    flipped = bytearray(shard)
    flipped[(start + stop) // 2] ^= 1
    made = {
        "none": shard,
        "cut at a sample's end": shard[:start],
        "cut inside a payload": shard[: (start + stop) // 2],
        "broken header in the middle": _with(shard, 4 + 4 * (count // 2), b"\x15\x15\x15\x15"),
        "zeroed payload": _with(shard, start + 64, bytes(stop - start - 64)),
        "two zero blocks in the middle": _with(shard, start, bytes(1024)),
        "empty file": b"",
        "HTML page in its place": _page(shard, []),
        "flipped bits": bytes(flipped),
    }
    return made.get(kind)


def samples() -> dict[str, dict[str, bytes]]:
    """Made-up clips: key -> extension -> bytes. Random, so that no two are alike."""
    drawn = random.Random(0)
    clips: dict[str, dict[str, bytes]] = {}
    for number in range(NUM_CLIPS):
        key = f"clip{number:03d}"
        record = {"key": key, "speaker": f"s{number % 7}", "split": "train", "duration_s": 1.0, "has_audio": True}
        record |= {"has_video": False, "words": None, "source": {}, "labels": {}}
        clips[key] = {"json": json.dumps(record).encode(), "m4a": drawn.randbytes(3000)}
    return clips


def write_ours(folder: Path, clips: dict[str, dict[str, bytes]]) -> Path:
    """A shard set of one shard; returns the tar."""
    import numpy as np

    from shards.record import Manifest
    from shards.vocabulary import Vocabulary
    from shards.writing.tar import ShardWriter

    folder.mkdir(parents=True)
    writer = ShardWriter(folder, "train-000000", "train")
    for key, members in clips.items():
        writer.add(key, members)
    shard = writer.finish()
    assert shard is not None
    vocabulary, durations = Vocabulary(()).to_bytes({}), io.BytesIO()
    np.save(durations, np.ones(len(clips), dtype=np.float32))
    (folder / "vocabulary.txt").write_bytes(vocabulary)
    (folder / "train.durations.npy").write_bytes(durations.getvalue())
    counts = {"without_audio": 0, "without_video": len(clips), "without_words": len(clips), "words": 0}
    manifest = Manifest(
        corpus="made up",
        created_by="benchmarks/damage.py",
        split={"by": "clip"},
        found=len(clips),
        written=len(clips),
        filtered={},
        quarantined={},
        shards=[shard],
        features=[],
        labels={},
        counts={**counts, "words_past_end": 0, "seconds": len(clips)},
        vocabulary_sha256=hashlib.sha256(vocabulary).hexdigest(),
        durations_sha256={"train": hashlib.sha256(durations.getvalue()).hexdigest()},
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return folder / shard.name


def read_ours(folder: Path) -> tuple[dict[str, str], str]:
    """Key -> hash of what reading delivers, and the error that ended it, if one did."""
    from shards.reading.index import ShardSet
    from triptych.config import UserError

    found: dict[str, str] = {}
    try:
        split = ShardSet(folder).split("train")
        for number in range(len(split)):
            members = split.read(number)
            found[json.loads(members["json"])["key"]] = digest(members)
    except UserError as error:
        return found, str(error)
    return found, ""


def digest(members: dict[str, bytes]) -> str:
    """Of a sample's files, as damage_peer.py makes it."""
    return hashlib.sha256(members.get("json", b"") + b"|" + members.get("m4a", b"")).hexdigest()


def read_peer(python: str, peer: str, folder: Path, workers: int) -> tuple[dict[str, str], str]:
    """As `read_ours`, of a peer in its own environment and process."""
    command = [python, str(PEER), peer, str(folder), str(workers)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            out, errors = process.communicate(timeout=PEER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its loader processes too, which would wait for ever
            return {}, f"hung for {PEER_TIMEOUT_S} s"
    lines = [line for line in out.splitlines() if line.startswith('{"found"')]
    if process.returncode < 0:
        return {}, f"process died of signal {-process.returncode}"
    if not lines:  # a mistake of ours, not the peer's answer
        raise RuntimeError(errors)
    told = json.loads(lines[-1])
    return told["found"], told["error"]


def verdict(truth: dict[str, str], found: dict[str, str], error: str, names: tuple[str, ...]) -> str:
    """A cell of the table: what was delivered, and whether the reader was told.

    Args:
        truth: key -> hash.
        found: the same of what was delivered.
        error: that ended it; empty if none did.
        names: of the damaged shard and of things in it, one of which an error should name.
    """
    right = sum(truth.get(key) == value for key, value in found.items())
    wrong = len(found) - right
    if not error and right == len(truth):
        return f"all {right} right"
    count = f"{right} right" + (f", {wrong} wrong" if wrong else "")
    if not error:
        return f"**silent**: {count} of {len(truth)}"
    if error.startswith("hung"):
        return f"**{error}**"
    named = [what for what, name in zip(("shard", "file", "byte"), names, strict=True) if name in error]
    told = f"names {', '.join(named)}" if named else "names nothing: " + " ".join(error.split())[:60].replace("|", "/")
    after = f"error after {count}" if found else "error at the start"
    return f"{'**wrong data**, then ' if wrong else ''}{after}; {told}"


def main(arguments: list[str]) -> None:
    """Print the table."""
    peers = dict(argument.split("=", 1) for argument in arguments)
    clips = samples()
    truth = {key: digest(members) for key, members in clips.items()}
    columns = ["reading", "`check`", "webdataset", "streaming, 0 workers", "streaming, 2 workers"]
    print("| damage | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        tar = write_ours(root / "ours", clips)
        whole, mds = tar.read_bytes(), _whole_mds(peers, root, clips)
        for kind, damage in {"none": lambda tar, files: tar, **DAMAGES}.items():
            tar.write_bytes(damage(whole, files_of(whole)))
            cells = [*_ours(tar, truth), _webdataset(peers, tar, truth), *_streaming(peers, mds, kind, truth)]
            print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def _ours(tar: Path, truth: dict[str, str]) -> tuple[str, str]:
    from shards.check import inspect
    from shards.reading.index import load_manifest

    started = time.monotonic()
    reading = verdict(truth, *read_ours(tar.parent), (tar.name, "clip", "at byte"))
    problems = inspect(tar.parent, load_manifest(tar.parent), quiet=True).problems
    seconds = time.monotonic() - started
    told = "; ".join(f"{problem.where}: {problem.what}" for problem in problems)
    named = [
        what
        for what, name in zip(("shard", "file", "byte"), (tar.name, "clip", "at byte"), strict=True)
        if name in told
    ]
    assert seconds < 5, f"{seconds:.1f} s"
    return reading, f"names {', '.join(named)}" if problems else "all right"


def _webdataset(peers: dict[str, str], tar: Path, truth: dict[str, str]) -> str:
    if "webdataset" not in peers:
        return "not measured"
    return verdict(truth, *read_peer(peers["webdataset"], "webdataset", tar, 0), (tar.name, "clip", "at byte"))


def _whole_mds(peers: dict[str, str], root: Path, clips: dict[str, dict[str, bytes]]) -> Path:
    folder = root / "mds"
    if "streaming" in peers:
        content = {key: {name: value.hex() for name, value in members.items()} for key, members in clips.items()}
        command = [peers["streaming"], str(PEER), "write", str(folder), "0"]
        subprocess.run(command, input=json.dumps(content), text=True, check=True, capture_output=True)
    return folder


def _streaming(peers: dict[str, str], folder: Path, kind: str, truth: dict[str, str]) -> tuple[str, str]:
    if "streaming" not in peers:
        return "not measured", "not measured"
    shard = folder / "shard.00000.mds"
    whole = shard.read_bytes()
    damaged = damage_mds(kind, whole)
    if damaged is None:
        return "cannot happen", "cannot happen"
    shard.write_bytes(damaged)
    try:
        names = (shard.name, "clip", "at byte")
        found = [read_peer(peers["streaming"], "streaming", folder, workers) for workers in (0, 2)]
        return verdict(truth, *found[0], names), verdict(truth, *found[1], names)
    finally:
        shard.write_bytes(whole)


if __name__ == "__main__":
    main(sys.argv[1:])
