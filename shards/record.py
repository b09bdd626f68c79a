"""The record: one clip, from a raw corpus to a sample in a tar, and the manifest that accounts for all. No torch.

A sample is `<key>.json` (`ClipRecord.to_json`), the clip's own media files unchanged (`<key>.mp4`, `<key>.m4a`, ...),
or cut out of a recording, or its frames as pictures (`<key>.frames.npz`), and optional precomputed features
(`<key>.<feature>.npy`). A clip of labels and words alone has no media. A shard set is a folder:

    manifest.json                 Manifest: counts, hashes, splits, features, quarantine
    vocabulary.txt                "word count" lines of the training split, most frequent first
    train.durations.npy           [N] float32, seconds of the split's clips in the order of its shards
    train-000000.tar              WebDataset shard, readable by any WebDataset reader
    train-000000.index.json       ShardIndex: where each member lies, with its CRC-32
"""

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from triptych.config import UserError
from triptych.labels import LabelSpec, form_asked, form_of
from triptych.protocols.leaks import SPLITS as SPLITS  # what a shard set is divided into

FORMAT_VERSION = 2

_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_VIDEO_ID = re.compile(r"([A-Za-z0-9_-]{11})(\[\d+\]|_\d+)?")


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word; times in seconds from the clip's start."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The part of a longer recording that is one clip: decoded from there and encoded anew, never copied packets.

    The clip's words and labels are told from `start_s` on, its attachments are of the clip. See `shards.media.cut`.
    """

    start_s: float = 0.0
    end_s: float | None = None
    """None is the recording's end; a recording may end before."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom as shares of the picture: one of two people in a frame. None is all of it."""
    sound: bool = True
    """False cuts the picture alone: `audio` is a file of the clip's own, and stays as it is."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and (self.end_s is None or math.isfinite(self.end_s))):
            raise ValueError(f"cut from {self.start_s} to {self.end_s} s: expected numbers")
        left, top, right, bottom = self.box or (0.0, 0.0, 1.0, 1.0)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"box {self.box}: expected left < right and top < bottom, all from 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class RawClip:
    """One clip as a corpus finds it, before anything was opened."""

    key: str
    """Unique in the corpus; letters, digits, '_', '-' and '/' (a dot would split a WebDataset key)."""
    speaker: str
    video: Path | None = None
    """File with the picture; also with the sound where `audio` is None and it has an audio stream."""
    audio: Path | None = None
    attachments: dict[str, Path] = field(default_factory=dict)
    """Extension -> further file that goes into the sample unchanged ("landmarks.csv", ...); features may read it."""
    cut: Cut | None = None
    """Which part of `video` and `audio` the clip is; None is all, stored as the files are."""
    duration_s: float | None = None
    """Of a clip without media, whose labels and words alone are wanted; not given where there is a file."""
    unusable: str | None = None
    """Why the clip cannot be used, known without opening it: a file that the corpus' lists name is not there, or is
    known to be wrong. It is quarantined with this reason."""
    words: tuple[Word, ...] | None = None
    """None where no transcript knows the clip; () where the transcript says that nothing was spoken."""
    source: dict[str, str] = field(default_factory=dict)
    """Properties of the clip (video id, utterance, language, ...); split rules and `keep` read them."""
    labels: dict[str, Any] = field(default_factory=dict)
    """Name -> class (str), number (float), or series: {"rate_hz": 10.0, "values": [...]}, the first value at the clip's
    start. See `triptych.labels`."""

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(
                f"key {self.key!r}: only letters, digits, '_', '-' and '/' (a dot splits a WebDataset key)"
            )
        has_media = self.video is not None or self.audio is not None
        if self.duration_s is None:
            if not has_media and self.unusable is None:
                raise ValueError(f"clip {self.key}: has neither media nor duration_s")
        elif has_media:
            raise ValueError(f"clip {self.key}: has both media and duration_s, which is of clips without any")
        elif not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(f"clip {self.key}: duration_s {self.duration_s}; expected more than 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameTimes:
    """When the frames of a clip's picture are shown, in seconds from the clip's start; see `shards.media.spans`."""

    start_s: float = 0.0
    """Of the first frame, where the rate is constant."""
    rate_hz: float | None = None
    edges_s: tuple[float, ...] | None = None
    """At a variable rate: the start of each frame, and the end of the last one."""
    stored_hz: float | None = None
    """Rate of the stored frames, each of which is the one nearest in the file that they were made of."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "FrameTimes":
        """Rebuild them from `to_json`'s dict."""
        edges_s = fields.get("edges_s")
        return cls(**{**fields, "edges_s": None if edges_s is None else tuple(edges_s)})


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What `<key>.json` says of a sample."""

    key: str
    speaker: str
    split: str
    duration_s: float
    has_audio: bool
    has_video: bool
    words: tuple[Word, ...] | None
    source: dict[str, str]
    labels: dict[str, Any]
    frames: FrameTimes | None = None
    """Of the stored picture; not in the file where there is none, as in sets that were written before it was told."""

    def label(self, name: str, spec: LabelSpec) -> Any:
        """The clip's label of that name, proven to be what is asked for; None where it has none.

        Where a class is asked for and the clip has such a property (`source`: the speaker's gender), that is taken.

        Raises:
            UserError: it is none of the classes, or of another form or rate than is asked for.
        """
        asked = form_asked(spec)
        value = self.labels.get(name, self.source.get(name) if isinstance(spec, tuple) else None)
        if value is None:
            return None
        try:
            form = form_of(value)
        except ValueError as error:
            raise UserError(f"clip {self.key}: {name}: {error}") from None
        if form != asked:
            raise UserError(f"clip {self.key}: {name} is {form}, and is asked for as {asked}")
        if isinstance(spec, tuple) and value not in spec:
            raise UserError(
                f"clip {self.key}: {name} is {value!r}, which is none of {', '.join(spec)}; add it to the classes, or "
                "leave the clip out when writing the shards"
            )
        return value

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        # not asdict, which copies every number of a series and was a third of the time to write clips of text
        words = None if self.words is None else tuple(map(asdict, self.words))
        told = {**vars(self), "words": words}
        frames = told.pop("frames")
        return told if frames is None else {**told, "frames": frames.to_json()}

    def to_bytes(self) -> bytes:
        """Content of a sample's JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ClipRecord":
        """Rebuild a record from a sample's JSON."""
        words, frames = fields["words"], fields.get("frames")
        return cls(
            **{
                **fields,
                "words": None if words is None else tuple(Word(**word) for word in words),
                "frames": None if frames is None else FrameTimes.from_json(frames),
            }
        )


@dataclass(frozen=True)
class Member:
    """Where one file of a sample lies in its tar."""

    offset: int
    """Of the payload's first byte."""
    size: int
    crc32: int


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """`<shard>.index.json`: key -> extension -> Member, in the order of the tar."""

    shard: str
    samples: dict[str, dict[str, Member]]

    def to_json(self) -> dict[str, Any]:
        """The index as plain JSON types (members as [offset, size, crc32])."""
        return {
            "shard": self.shard,
            "samples": {
                key: {ext: [member.offset, member.size, member.crc32] for ext, member in members.items()}
                for key, members in self.samples.items()
            },
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ShardIndex":
        """Rebuild an index from `to_json`'s dict."""
        samples = {
            key: {ext: Member(*numbers) for ext, numbers in members.items()}
            for key, members in fields["samples"].items()
        }
        return cls(shard=fields["shard"], samples=samples)


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One shard in the manifest."""

    name: str
    """File name of the tar, relative to the manifest's folder."""
    split: str
    num_samples: int
    size: int
    sha256: str
    index: str
    index_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The one account of a shard set; `found == written + quarantined + filtered` holds."""

    format_version: int = FORMAT_VERSION
    corpus: str
    created_by: str
    """Version and commit of the code that wrote it."""
    split: dict[str, Any]
    """Rule, seed and shares that drew the splits."""
    found: int
    written: int
    filtered: dict[str, int]
    """Reason -> number of clips left out on purpose."""
    quarantined: dict[str, str]
    """Key (or file) -> why it could not be read."""
    shards: list[ShardInfo]
    features: list[dict[str, Any]]
    """FeatureSpec.to_json of every stored feature."""
    labels: dict[str, dict[str, int]]
    """Label -> class -> number of clips, over all splits; labels that are no classes are in `numbers`."""
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label that is a number or a series -> shards.counts.label_counts.Distribution.to_json over all splits. Not in the
    file where there are none, as in sets that were written before there were such labels."""
    counts: dict[str, int]
    """without_audio, without_video, without_words, words, words_past_end, seconds; and without_<feature> for each
    feature that a clip may lack: those that have its medium and lack it."""
    vocabulary_sha256: str
    """Of vocabulary.txt: with another one, every word would silently get another's id."""
    durations_sha256: dict[str, str]
    """Split -> SHA-256 of `<split>.durations.npy`."""

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON types."""
        fields = asdict(self)
        return fields if self.numbers else {name: value for name, value in fields.items() if name != "numbers"}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Manifest":
        """Rebuild a manifest.

        Raises:
            ValueError: the format is newer or older than this code reads.
        """
        if fields.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"manifest.json has format {fields.get('format_version')}, this version reads {FORMAT_VERSION}: "
                "write the shards again, or install the version that wrote them"
            )
        return cls(**{**fields, "shards": [ShardInfo(**shard) for shard in fields["shards"]]})


def video_id(name: str) -> str | None:
    """The YouTube id in a video's or a segment's name; None if it has another form.

    Args:
        name: `ViyQVpGW05w`, `ViyQVpGW05w[3]` or `ViyQVpGW05w_3`. A name of 11 characters is an id as a whole, also
            where it ends in `_3`.
    """
    match = _VIDEO_ID.fullmatch(name)
    return None if match is None else match[1]
