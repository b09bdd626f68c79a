import io
import random
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.media.decode import DecodeError, decode_video, video_of
from shards.media.frames import pack


def film(num_frames: int = 10, height: int = 16, width: int = 24) -> np.ndarray:
    """Frame t has brightness 10 t."""
    return np.repeat(np.arange(num_frames, dtype=np.uint8) * 10, height * width * 3).reshape(-1, height, width, 3)


def times(frames: np.ndarray | None) -> list[int]:
    """Which frames of `film` these are."""
    assert frames is not None
    return [round(float(frame.mean()) / 10) for frame in frames]


def archive_of(**changes: Any) -> bytes:
    """What numpy itself writes of a film, some arrays changed or (None) left out."""
    arrays: dict[str, Any] = dict(np.load(io.BytesIO(pack(film(), 25.0, 90)), allow_pickle=False)) | changes
    content = io.BytesIO()
    np.savez(content, **{name: array for name, array in arrays.items() if array is not None})
    return content.getvalue()


def as_zip(**members: bytes) -> bytes:
    """A film's archive with some members' bytes replaced, their checksums right."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive_of())) as source, zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(name.removesuffix(".npy"), source.read(name)))
    return content.getvalue()


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
    return content.getvalue()


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [
        (25.0, list(range(10))),
        (50.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),  # between two: the earlier
        (10.0, [0, 2, 5, 7]),
        (2.5, [0]),
    ],
)
def test_steps_are_the_nearest_stored_frames(rate_hz: float, expected: list[int]) -> None:
    assert times(decode_video(pack(film(), 25.0, 90), rate_hz)) == expected


@pytest.mark.parametrize("rate_hz", [25.0, 15.0, 10.0, 4.0])
def test_frames_and_the_mp4_they_are_from_give_the_same_steps(make_clip, tmp_path: Path, rate_hz: float) -> None:
    mp4 = make_clip(tmp_path / "clip.mp4", seconds=2.0, audio=False).read_bytes()
    whole, wanted = decode_video(mp4, 25.0), decode_video(mp4, rate_hz)
    assert whole is not None
    assert wanted is not None

    frames = decode_video(pack(whole, 25.0, 95), rate_hz)

    assert frames is not None
    assert frames.shape == wanted.shape
    assert np.abs(frames.astype(int) - wanted).max() <= 2  # neighbours are 5 apart


def test_numpy_and_pillow_alone_can_read_it() -> None:
    archive = np.load(io.BytesIO(pack(film(), 25.0, 90)), allow_pickle=False)

    starts = archive["starts"]
    images = [Image.open(io.BytesIO(archive["jpeg"][a:b].tobytes())) for a, b in pairwise(starts)]

    assert times(np.stack([np.asarray(image) for image in images])) == list(range(10))
    assert (archive["rate_hz"], archive["height"], archive["width"]) == (25.0, 16, 24)


def test_the_same_frames_give_the_same_bytes_at_any_time(monkeypatch) -> None:
    now = pack(film(), 25.0, 90)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2040, 1, 1, 0, 0, 0, 0, 0, 0))
    assert pack(film(), 25.0, 90) == now


def test_only_the_wanted_frames_are_decoded() -> None:
    whole = np.load(io.BytesIO(archive_of()), allow_pickle=False)
    jpeg = whole["jpeg"].copy()
    jpeg[whole["starts"][3] : whole["starts"][4]] = 0
    data = archive_of(jpeg=jpeg)

    assert times(decode_video(data, 5.0)) == [0, 5]
    with pytest.raises(DecodeError, match="frame 3 is not a whole JPEG"):
        decode_video(data, 25.0)


def test_the_mp4_is_preferred() -> None:
    assert video_of({"frames.npz": b"b", "mp4": b"a"}) == b"a"
    assert video_of({"frames.npz": b"b", "m4a": b"c"}) == b"b"


CUT = np.array([0, 400, 300], dtype=np.int64)
DAMAGED = {
    "wrong dtype": archive_of(starts=np.arange(11, dtype=np.float32)),
    "wrong dimensions": archive_of(jpeg=np.zeros((5, 5), dtype=np.uint8)),
    "an array is missing": archive_of(height=None),
    "pickled objects": archive_of(starts=np.array([{}], dtype=object)),
    "places beyond the file": archive_of(starts=np.array([0, 2**62], dtype=np.int64)),
    "places go back": archive_of(starts=CUT, jpeg=np.zeros(300, dtype=np.uint8)),
    "no frame": archive_of(starts=np.zeros(1, dtype=np.int64), jpeg=np.zeros(0, dtype=np.uint8)),
    "another size than the pictures'": archive_of(height=np.int64(17)),
    "huge frames": archive_of(height=np.int64(2**40), width=np.int64(2**40)),
    "no pixels": archive_of(width=np.int64(0)),
    "negative": archive_of(width=np.int64(-24)),
    "rate 0": archive_of(rate_hz=np.float64(0)),
    "rate nan": archive_of(rate_hz=np.float64("nan")),
    "endless": archive_of(rate_hz=np.float64(1e-320)),
    "no time": archive_of(rate_hz=np.float64(1e300)),
    "a declared terabyte": as_zip(jpeg=npy_header("|u1", (2**40,))),
    "a declared count beyond integers": as_zip(starts=npy_header("<i8", (2**70,))),
    "no npy": as_zip(jpeg=b"GIF89a"),
    "a grey picture": archive_of(
        jpeg=np.frombuffer(
            jpeg := (grey := io.BytesIO(), Image.new("L", (24, 16)).save(grey, "JPEG"))[0].getvalue(), "u1"
        ),
        starts=np.array([0, len(jpeg)], dtype=np.int64),
    ),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_one_sentence(data: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        decode_video(data, 25.0)
    assert "\n" not in str(raised.value)


def test_a_compressed_archive_is_refused() -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **np.load(io.BytesIO(archive_of()), allow_pickle=False))
    with pytest.raises(DecodeError, match="compressed"):
        decode_video(content.getvalue(), 25.0)


def test_no_cut_and_no_flipped_byte_is_silent_or_anything_but_a_decode_error() -> None:
    data = pack(film(), 25.0, 90)
    whole = decode_video(data, 25.0)
    for length in range(4, len(data), len(data) // 60):
        with pytest.raises(DecodeError):
            decode_video(data[:length], 25.0)
    generator = random.Random(0)
    for _ in range(300):
        flipped = bytearray(data)
        flipped[generator.randrange(4, len(data))] ^= generator.randrange(1, 256)
        try:
            np.testing.assert_array_equal(decode_video(bytes(flipped), 25.0), whole)  # a flip in what nobody reads
        except DecodeError:
            continue


def test_a_clip_that_fills_the_memory_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("shards.media.frames.MAX_DECODED_BYTES", 10 * 16 * 24 * 3)
    assert times(decode_video(pack(film(), 25.0, 90), 25.0)) == list(range(10))
    with pytest.raises(DecodeError, match="20 frames are more than"):
        decode_video(pack(film(), 25.0, 90), 50.0)
