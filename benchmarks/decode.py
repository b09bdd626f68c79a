"""What a clip's picture costs to read, as mp4 and as JPEG frames: one process, one thread, the same clips.

pip install decord    # the peer
python benchmarks/decode.py FOLDER [FOLDER ...] [--repeats 4]

Every way of reading gets all clips in turn, forwards and then backwards through the list of ways (ABBA), so that what
else the machine does hits them alike. Printed is the best pass of each in CPU time, which other work on the machine
disturbs least, and the median in clips a second of wall time.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import decord
import numpy as np
from rich.console import Console
from rich.table import Table

from shards.features.face_crops import FaceCrops, FaceCropsConfig
from shards.media.decode import decode_video, video_of
from shards.media.media_form import StoreConfig, as_frames

RATE_HZ = 25.0
FEW = 16
"""Frames of a clip that a tower for whole frames typically takes."""

FORMS = {
    "mp4": StoreConfig(),
    "224 px, 25 Hz": StoreConfig(media="frames"),
    "112 px, 25 Hz": StoreConfig(media="frames", size=(112, 112)),
    "224 px, 5 Hz": StoreConfig(media="frames", rate_hz=5.0),
}
CROPS = FaceCrops(FaceCropsConfig())
SLOW_CROPS = FaceCrops(FaceCropsConfig(rate_hz=5.0))

Read = Callable[[bytes], object]


def bare_decord(data: bytes, num: int | None = None) -> np.ndarray:
    """What decord's manual shows, without a look at times or damage."""
    reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
    return reader.get_batch(spread(len(reader), num)).asnumpy()


def bare_pyav(data: bytes, num: int | None = None) -> np.ndarray:
    """All frames in a row: seeking to few of them is slower where, as here, key frames are rare."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        wanted = set(spread(stream.frames, num))
        frames = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for place, frame in frames if place in wanted])


def spread(total: int, num: int | None) -> list[int]:
    """`num` of `total` numbers at equal distances; all for None."""
    return list(range(total)) if num is None else [place * total // num for place in range(num)]


def few(data: bytes, seconds: dict[bytes, float]) -> np.ndarray | None:
    """FEW frames through the function that every feature uses."""
    return decode_video(data, FEW / seconds[data])


def ways(seconds: dict[bytes, float]) -> list[tuple[str, str, str, Read]]:
    """What is read, how, from which form, and the function."""
    listed: list[tuple[str, str, str, Read]] = [
        ("all", "decord alone", "mp4", bare_decord),
        ("all", "PyAV alone", "mp4", bare_pyav),
        (str(FEW), "decord alone", "mp4", lambda data: bare_decord(data, FEW)),
        (str(FEW), "PyAV alone", "mp4", lambda data: bare_pyav(data, FEW)),
    ]
    for form, store in FORMS.items():
        if store.rate_hz == RATE_HZ:
            listed.append(("all", "decode_video", form, lambda data: decode_video(data, RATE_HZ)))
            listed.append(("crops, 25 Hz", "face_crops", form, lambda data: CROPS.compute(as_members(data))))
        listed.append(("crops, 5 Hz", "face_crops", form, lambda data: SLOW_CROPS.compute(as_members(data))))
        listed.append((str(FEW), "decode_video", form, lambda data: few(data, seconds)))
    return sorted(listed, key=lambda way: way[0])


def as_members(data: bytes) -> dict[str, bytes]:
    """The sample that a feature expects."""
    return {"frames.npz" if data[:2] == b"PK" else "mp4": data}


def measure(read: Read, clips: Sequence[bytes]) -> tuple[float, float]:
    """CPU and wall milliseconds a clip of one pass."""
    cpu, wall = time.process_time(), time.perf_counter()
    for data in clips:
        read(data)
    return (1000 * (time.process_time() - cpu) / len(clips), 1000 * (time.perf_counter() - wall) / len(clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="mp4 files anywhere below are read")
    parser.add_argument("--repeats", type=int, default=4, help="passes of each way over the clips")
    parser.add_argument("--clips", type=int, default=20, help="at most so many of each folder")
    chosen = parser.parse_args()
    films = [path.read_bytes() for folder in chosen.folders for path in sorted(folder.rglob("*.mp4"))[: chosen.clips]]
    stored: dict[str, list[bytes]] = {}
    kilobytes: dict[str, float] = {}
    seconds: dict[bytes, float] = {}
    for form, store in FORMS.items():
        clips = [{"mp4": film} if store.media == "original" else as_frames({"mp4": film}, store) for film in films]
        stored[form] = [picture for members in clips if (picture := video_of(members)) is not None]
        kilobytes[form] = statistics.mean(sum(map(len, members.values())) for members in clips) / 1000
    lengths = [len(bare_pyav(film)) for film in films]
    for packed in stored.values():
        seconds |= {data: number / RATE_HZ for data, number in zip(packed, lengths, strict=True)}
    listed = ways(seconds)
    passes: list[list[tuple[float, float]]] = [[] for _ in listed]
    for repeat in range(chosen.repeats):
        order = list(enumerate(listed))
        for number, (_, _, form, read) in order if repeat % 2 == 0 else reversed(order):
            passes[number].append(measure(read, stored[form]))
    report(listed, passes, kilobytes, f"{len(films)} clips of {statistics.mean(lengths):.0f} frames")


def report(
    listed: Sequence[tuple[str, str, str, Read]],
    passes: Sequence[Sequence[tuple[float, float]]],
    kilobytes: dict[str, float],
    title: str,
) -> None:
    """One table; `x mp4` compares with decode_video or face_crops of the mp4, for the same frames."""
    cpu_ms = [min(cpu for cpu, _ in times) for times in passes]
    from_mp4 = {
        what: ms for (what, how, form, _), ms in zip(listed, cpu_ms) if form == "mp4" and not how.endswith("alone")
    }
    table = Table(title=title)
    for heading in (
        "frames",
        "read by",
        "from",
        "CPU ms a clip",
        "clips/s (wall, median)",
        "x mp4",
        "kB a clip, with sound",
    ):
        table.add_column(heading, justify="right" if heading not in ("frames", "read by", "from") else "left")
    for (what, how, form, _), ms, times in zip(listed, cpu_ms, passes):
        rate = 1000 / statistics.median(wall for _, wall in times)
        table.add_row(
            what, how, form, f"{ms:.1f}", f"{rate:.0f}", f"{from_mp4[what] / ms:.2f}", f"{kilobytes[form]:.0f}"
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
