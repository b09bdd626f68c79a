"""Tiny real media files, made on the spot, and a shard set written with WebDataset itself: tars of another hand."""

import hashlib
import io
import json
import tarfile
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset

from shards.features.config import AudioFeature, Feature, FeaturesConfig, VideoFeature, build
from shards.features.face_crops import FaceCropsConfig
from shards.features.lfbe import LfbeConfig
from shards.record import SPLITS, ClipRecord, Manifest, Member, ShardIndex, ShardInfo, Word
from shards.words.words import Vocabulary

MakeClip = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def children_with_torch() -> None:
    """The server that forks the pools' children has loaded torch: some hundred children need it for a sound feature,
    2 s of a core for each that loads it itself, as those of a command do."""
    forkserver.set_forkserver_preload(["shards.writing.compute", "torchaudio.compliance.kaldi"])
    forkserver.ensure_running()


def _encode_video(container: Any, stream: Any, seconds: float, size: int) -> None:
    """Brightness rises from 0 to 250 over the clip, so that a frame tells its time."""
    count = round(seconds * stream.codec_context.framerate)
    for index in range(count):
        picture = np.full((size, size, 3), round(250 * index / max(1, count - 1)), dtype=np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())


def _encode_audio(container: Any, stream: Any, seconds: float, rate_hz: int) -> None:
    """Silence in the first half, a 440 Hz tone in the second."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.5 * np.sin(2 * np.pi * 440 * times) * (times >= seconds / 2)
    sound = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    sound.sample_rate = rate_hz
    # without a time the file does not tell the encoder's 1024 samples of run-in, and sounds that much late
    sound.pts, sound.time_base = 0, Fraction(1, rate_hz)
    container.mux(stream.encode(sound))
    container.mux(stream.encode())


@pytest.fixture(scope="session")
def make_clip() -> MakeClip:
    """`make_clip(path, seconds=1.0, fps=25, size=64, audio=True)`: an mp4, or sound alone for .m4a, .wav and .flac."""

    def make(
        path: Path,
        seconds: float = 1.0,
        fps: Fraction | int = 25,
        size: int = 64,
        audio: bool = True,
        rate_hz: int = 16000,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = {".wav": "pcm_s16le", ".flac": "flac"}.get(path.suffix, "aac")
        options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
        with av.open(str(path), "w", options=options) as container:
            video_stream = audio_stream = None  # both must be there before the first packet
            if path.suffix == ".mp4":
                video_stream = container.add_stream(
                    "h264", rate=Fraction(fps), options={"preset": "ultrafast", "g": "10"}
                )
                video_stream.width = video_stream.height = size
                video_stream.pix_fmt = "yuv420p"
            if audio:
                audio_stream = container.add_stream(codec, rate=rate_hz, layout="mono")
            if video_stream is not None:
                _encode_video(container, video_stream, seconds, size)
            if audio_stream is not None:
                _encode_audio(container, audio_stream, seconds, rate_hz)
        return path

    return make


@pytest.fixture
def make_corpus(make_clip: MakeClip, tmp_path: Path) -> Callable[..., Path]:
    """`make_corpus(speakers=4, clips=2)`: a folder in VoxCeleb2's layout with transcripts.ctm; each clip has 0.4 s."""

    def make(speakers: int = 4, clips: int = 2) -> Path:
        root = tmp_path / "raw"
        lines = []
        for speaker in range(speakers):
            for clip in range(clips):
                key = f"id{speaker:05d}/video{speaker}/{clip:05d}"
                make_clip(root / "dev" / "mp4" / f"{key}.mp4", seconds=0.4, size=32)
                lines += [f"{key} 1 0.05 0.10 hello 0.9\n", f"{key} 1 0.20 0.15 number{clip} 0.8\n"]
        (root / "transcripts.ctm").write_text("".join(lines))
        return root

    return make


TINY_FEATURES = FeaturesConfig(
    audio=AudioFeature(lfbe=LfbeConfig(bands=4)), video=VideoFeature(face_crops=FaceCropsConfig(size=8, rate_hz=5.0))
)
WORDS = ("set", "red", "at", "bin", "blue")
NUM_CLIPS = {"train": 23, "valid": 7}
PER_SHARD = 5


def clip(split: str, number: int) -> ClipRecord:
    """Clip 1 has no words, clip 2 no sound, clip 3 no picture; clip 4 has no label."""
    words = tuple(Word(WORDS[(number + place) % 5], 0.2 * place, 0.2 * place + 0.15) for place in range(1 + number % 4))
    return ClipRecord(
        key=f"{split}-speaker{number // PER_SHARD}/clip{number:02d}",
        speaker=f"{split}-speaker{number // PER_SHARD}",
        split=split,
        duration_s=1.0 + 0.05 * (number % 5),
        has_audio=number != 2,
        has_video=number != 3,
        words=None if number == 1 else words,
        source={"video": f"{split}-video{number}"},
        labels={} if number == 4 else {"emotion": ("happy", "sad")[number % 2]},
    )


def sound(record: ClipRecord) -> bytes:
    """A wav file of noise, a function of the key."""
    generator = np.random.default_rng(zlib.crc32(record.key.encode()))
    samples = generator.integers(-3000, 3000, round(record.duration_s * 16000)).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return content.getvalue()


def npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getvalue()


def members(record: ClipRecord, features: dict[str, Feature]) -> dict[str, bytes]:
    """Extension -> bytes of a sample, its sound feature computed and its picture feature random."""
    found = {"json": json.dumps(record.to_json()).encode()}
    if record.has_audio:
        found["wav"] = sound(record)
        values = features["audio"].compute({"wav": found["wav"]})
        assert values is not None
        found["lfbe.npy"] = npy(values)
    if record.has_video:
        generator = np.random.default_rng(zlib.crc32(record.key.encode()))
        found["face_crops.npy"] = npy(generator.integers(0, 256, (int(record.duration_s * 5), 8, 8), dtype=np.uint8))
    return found


Samples = list[tuple[ClipRecord, dict[str, bytes]]]


def write_shard(folder: Path, split: str, number: int, contents: Samples) -> ShardInfo:
    name = f"{split}-{number:06d}"
    tar = folder / f"{name}.tar"
    with webdataset.TarWriter(str(tar), mtime=0) as writer:
        for record, content_of in contents:
            writer.write({"__key__": record.key, **content_of})
    samples: dict[str, dict[str, Member]] = {}
    with tarfile.open(tar) as archive:
        for info in archive:
            folder_name, _, file_name = info.name.rpartition("/")
            stem, _, extension = file_name.partition(".")
            content = archive.extractfile(info)
            assert content is not None
            samples.setdefault(f"{folder_name}/{stem}", {})[extension] = Member(
                info.offset_data, info.size, zlib.crc32(content.read())
            )
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps(ShardIndex(shard=tar.name, samples=samples).to_json()))
    return ShardInfo(
        name=tar.name,
        split=split,
        num_samples=len(contents),
        size=tar.stat().st_size,
        sha256=hashlib.sha256(tar.read_bytes()).hexdigest(),
        index=index.name,
        index_sha256=hashlib.sha256(index.read_bytes()).hexdigest(),
    )


def write_manifest(folder: Path, shards: list[ShardInfo], records: list[ClipRecord], **changes: Any) -> None:
    words = [word.text for record in records for word in record.words or ()]
    train = [word.text for record in records if record.split == "train" for word in record.words or ()]
    counts = {word: train.count(word) for word in set(train)}
    vocabulary = Vocabulary.from_counts(counts).to_bytes(counts)
    (folder / "vocabulary.txt").write_bytes(vocabulary)
    durations = {}
    for split in SPLITS:
        seconds = np.array([record.duration_s for record in records if record.split == split], dtype=np.float32)
        (folder / f"{split}.durations.npy").write_bytes(npy(seconds))
        durations[split] = hashlib.sha256(npy(seconds)).hexdigest()
    labels = [record.labels["emotion"] for record in records if record.labels]
    fields: dict[str, Any] = {
        "corpus": "tiny",
        "created_by": "test",
        "split": {"by": "speaker"},
        "found": len(records) + 2,
        "written": len(records),
        "filtered": {"too short": 1},
        "quarantined": {"broken": "the file cannot be decoded"},
        "shards": shards,
        "features": [feature.spec.to_json() for feature in build(TINY_FEATURES).values()],
        "labels": {"emotion": {name: labels.count(name) for name in ("happy", "sad")}},
        "counts": {
            "without_audio": sum(not record.has_audio for record in records),
            "without_video": sum(not record.has_video for record in records),
            "without_words": sum(not record.words for record in records),
            "words": len(words),
            "seconds": sum(
                round(sum(record.duration_s for record in records if record.split == split)) for split in NUM_CLIPS
            ),
        },
        "vocabulary_sha256": hashlib.sha256(vocabulary).hexdigest(),
        "durations_sha256": durations,
    }
    (folder / "manifest.json").write_text(json.dumps(Manifest(**{**fields, **changes}).to_json()))


def write_set(folder: Path, contents: Samples, **changes: Any) -> Path:
    """Write samples as a shard set, with any field of the manifest changed."""
    folder.mkdir()
    shards = []
    for split in SPLITS:
        there = [sample for sample in contents if sample[0].split == split]
        for number, start in enumerate(range(0, len(there), PER_SHARD)):
            shards.append(write_shard(folder, split, number, there[start : start + PER_SHARD]))
    write_manifest(folder, shards, [record for record, _ in contents], **changes)
    return folder


@pytest.fixture
def shard_set_of(tmp_path: Path) -> Callable[..., Path]:
    """Write given samples, (record, extension -> bytes), as a shard set; returns its folder."""
    return lambda contents, **changes: write_set(tmp_path / "given", contents, **changes)


@pytest.fixture
def tiny_shards(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny set with any field of the manifest changed; returns its folder."""

    def write(**changes: Any) -> Path:
        features = build(TINY_FEATURES)
        records = [clip(split, number) for split, num_clips in NUM_CLIPS.items() for number in range(num_clips)]
        return write_set(tmp_path / "tiny", [(record, members(record, features)) for record in records], **changes)

    return write
