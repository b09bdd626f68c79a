"""A clip's picture as JPEG frames of one size and rate, packed in one file: `<key>.frames.npz`. No torch.

An mp4 must be decoded from a key frame on, so that 16 of its frames cost half as much as all of them; of these frames
any one costs the same. The file is a plain `np.savez` archive, nothing compressed, no pickle:

    jpeg      [B] uint8        the JPEG files, one after the other
    starts    [T + 1] int64    frame t is jpeg[starts[t]:starts[t + 1]]
    rate_hz   float64          frame t is shown from t / rate_hz on
    height, width   int64      of every frame

    archive = np.load(file)  # any reader needs numpy and Pillow only
    Image.open(io.BytesIO(archive["jpeg"][archive["starts"][t] : archive["starts"][t + 1]].tobytes()))

simplejpeg decodes them, which is libjpeg-turbo as in Pillow, with the same pixels in half of the time.
"""

import io
import math
import struct
import zipfile
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.lib import format as npy_format
from PIL import Image

from shards.media.decode import MAX_BYTES, MAX_DECODED_BYTES, MAX_SECONDS, DecodeError, on_grid

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member, the earliest that zip knows: the same frames give the same bytes."""
_KINDS = {"jpeg": ("|u1", 1), "starts": ("<i8", 1), "rate_hz": ("<f8", 0), "height": ("<i8", 0), "width": ("<i8", 0)}
"""Array -> its dtype and number of dimensions."""


def pack(frames: np.ndarray, rate_hz: float, quality: int) -> bytes:
    """The content of a frames.npz.

    Args:
        frames: [T, H, W, 3] uint8.
        rate_hz: frames a second.
        quality: of the JPEG, 1 to 95.
    """
    files = [_jpeg(frame, quality) for frame in frames]
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "starts": np.cumsum([0, *map(len, files)], dtype=np.int64),
        "rate_hz": np.float64(rate_hz),
        "height": np.int64(frames.shape[1]),
        "width": np.int64(frames.shape[2]),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w") as member:
                npy_format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return content.getvalue()


def unpack(data: bytes, rate_hz: float) -> np.ndarray:
    """The frames on a regular grid, as `shards.media.decode.decode_video` gives them; only those wanted are decoded.

    Args:
        data: the content of a frames.npz.
        rate_hz: frames a second of the result: step `i` is the stored frame nearest to `i / rate_hz`.

    Returns:
        [T, H, W, 3] uint8 with T = floor(stored seconds * rate_hz).

    Raises:
        DecodeError: damaged, or beyond the limits.
    """
    packed = _Packed.read(data)
    wanted = packed.on_grid(rate_hz)
    numbers, places = np.unique(wanted, return_inverse=True)
    decoded = np.empty((len(numbers), packed.height, packed.width, 3), dtype=np.uint8)
    for place, number in enumerate(numbers):
        packed.decode(number, into=decoded[place])
    return decoded if len(numbers) == len(wanted) else decoded[places]


@dataclass(frozen=True)
class _Packed:
    """What a frames.npz holds, proven to fit together but not yet decoded."""

    jpeg: np.ndarray
    starts: np.ndarray
    rate_hz: float
    height: int
    width: int

    @classmethod
    def read(cls, data: bytes) -> "_Packed":
        """Nothing here is larger than the file itself, whatever its headers say."""
        if len(data) > MAX_BYTES:
            raise DecodeError(f"{len(data) / 2**20:.0f} MiB of frames; the limit is {MAX_BYTES // 2**20} MiB")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                arrays = {name: _array(archive, name) for name in _KINDS}
        except DecodeError:
            raise
        # zipfile has no common error: also NotImplementedError and RuntimeError for features that no npz has
        except (zipfile.BadZipFile, struct.error, ValueError, EOFError, OSError, RuntimeError, OverflowError) as error:
            raise DecodeError(f"the frames cannot be read ({str(error)[:200]})") from None
        packed = cls(
            arrays["jpeg"],
            arrays["starts"],
            float(arrays["rate_hz"]),
            int(arrays["height"]),
            int(arrays["width"]),
        )
        packed._check()
        return packed

    def _check(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0 and min(self.height, self.width) > 0):
            raise DecodeError(f"frames of {self.width}x{self.height} pixels at {self.rate_hz:g} Hz cannot be")
        starts = self.starts
        if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(self.jpeg) or (starts[1:] <= starts[:-1]).any():
            raise DecodeError("the frames' places in the file do not follow each other")
        if self.duration_s > MAX_SECONDS:
            raise DecodeError(f"{self.duration_s:.0f} s of frames; the limit is {MAX_SECONDS:.0f} s")

    @property
    def duration_s(self) -> float:
        return (len(self.starts) - 1) / self.rate_hz

    def on_grid(self, rate_hz: float) -> np.ndarray:
        most = MAX_DECODED_BYTES // (self.height * self.width * 3)
        return on_grid(np.arange(len(self.starts) - 1) / self.rate_hz, self.duration_s, rate_hz, most)

    def decode(self, number: int, into: np.ndarray) -> None:
        """Frame `number` into [H, W, 3] uint8."""
        content = self.jpeg[self.starts[number] : self.starts[number + 1]]
        try:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
            # before any pixel is decoded: what is allocated is what the archive declares
            if (height, width) != (self.height, self.width) or colors != "YCbCr":
                raise DecodeError(f"frame {number} is not a colour picture of {self.width}x{self.height} pixels")
            simplejpeg.decode_jpeg(content, "RGB", buffer=into)
        except ValueError as error:
            if isinstance(error, DecodeError):
                raise
            raise DecodeError(f"frame {number} is not a whole JPEG ({error})") from None


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=quality, optimize=True)  # 5 % smaller, as fast to decode
    return content.getvalue()


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of the archive, without a copy. np.load would allocate what a header says before it reads."""
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DecodeError(f"the frames have no {name}") from None
    if entry.compress_type != zipfile.ZIP_STORED:
        raise DecodeError("the frames are compressed, which could make them as large as they like")
    content = archive.read(entry)  # checks the CRC-32
    header = io.BytesIO(content)
    if npy_format.read_magic(header) != (1, 0):
        raise DecodeError(f"the frames' {name} is not a plain .npy")
    shape, _, dtype = npy_format.read_array_header_1_0(header)
    if (dtype.str, len(shape)) != _KINDS[name]:
        expected, dimensions = _KINDS[name]
        raise DecodeError(f"the frames' {name} is {dtype.str} {shape}; expected {expected} of {dimensions} dimensions")
    if math.prod(shape) * dtype.itemsize != len(content) - header.tell():
        raise DecodeError(f"the frames' {name} is not as long as it says")
    return np.frombuffer(content, dtype=dtype, offset=header.tell()).reshape(shape)
