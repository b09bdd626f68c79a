"""Opens one clip completely: what is not proven readable here never gets into a shard. Runs in a child process."""

import io
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from shards.features.config import FeaturesConfig, build
from shards.media.cut import cut_media, cut_picture, cut_sound
from shards.media.decode import (
    AUDIO_EXTENSIONS,
    MAX_BYTES,
    DecodeError,
    audio_of,
    decode_audio,
    decode_video,
    video_of,
)
from shards.media.media_form import StoreConfig, as_frames
from shards.media.spans import frame_times
from shards.record import Cut, FrameTimes, RawClip

_SAMPLE_RATE_HZ = 16000
_PROOF_RATE_HZ = 25.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is opened of one clip; see RawClip."""

    key: str
    video: Path | None
    audio: Path | None
    attachments: dict[str, Path] = field(default_factory=dict)
    cut: Cut | None = None
    duration_s: float | None = None

    @classmethod
    def of(cls, clip: RawClip) -> "Job":
        """Without words and labels, which no child process needs."""
        return cls(**{field.name: getattr(clip, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What was found in a clip."""

    members: dict[str, bytes]
    """Extension -> bytes: the media files, unchanged or as `shards.media.media_form` says, and `<feature>.npy`."""
    duration_s: float
    """Of the longer of sound and picture, the picture to within one frame; that of the corpus where there is none."""
    has_audio: bool
    has_video: bool
    frames: FrameTimes | None


def open_clip(job: Job, features: FeaturesConfig, store: StoreConfig) -> Opened:
    """Read, bring into the form that is stored, decode that and compute from it: what a run will read and compute.

    Raises:
        DecodeError: a file cannot be read, is damaged, or there is neither sound nor picture in the clip's files.
    """
    media = media_of(job)
    media |= {extension: read_file(path) for extension, path in job.attachments.items()}
    film = media.get("mp4")
    shown = None if film is None else frame_times(film)
    if store.media == "frames":
        media = as_frames(media, store)
        shown = shown and replace(shown, stored_hz=store.rate_hz)
    audio_bytes, video_bytes = audio_of(media), video_of(media)
    samples = None if audio_bytes is None else decode_audio(audio_bytes, _SAMPLE_RATE_HZ)
    computed = {modality: (feature, feature.compute(media)) for modality, feature in build(features).items()}
    feature, frames = computed.get("video", (None, None))
    rate_hz = (feature and feature.spec.rate_hz) or _PROOF_RATE_HZ
    # computing a feature decoded the picture, except one that a clip may lack: it may come from another file
    if frames is None or (feature and feature.spec.optional):
        rate_hz = _PROOF_RATE_HZ
        frames = None if video_bytes is None else decode_video(video_bytes, rate_hz)
    if samples is None and frames is None and job.duration_s is None:
        raise DecodeError("neither sound nor picture")
    seconds = [
        job.duration_s or 0.0,
        0.0 if samples is None else len(samples) / _SAMPLE_RATE_HZ,
        0.0 if frames is None else len(frames) / rate_hz,
    ]
    arrays = {f"{feature.spec.name}.npy": npy(array) for feature, array in computed.values() if array is not None}
    return Opened(
        members={**media, **arrays},
        duration_s=max(seconds),
        has_audio=samples is not None,
        has_video=frames is not None,
        frames=None if frames is None else shown,
    )


def media_of(job: Job) -> dict[str, bytes]:
    """Extension -> bytes of the clip's sound and picture: its files as they are, or the part of them that it is.

    A file of a kind that readers do not look for, as .flv or .mp3, is encoded anew as a cut is.

    Raises:
        DecodeError: a file cannot be read or has not what it was given for, or the part is not in it.
    """
    if job.cut is not None and job.cut.sound:
        return cut_media(job.video, job.audio, job.cut)
    media: dict[str, bytes] = {}
    if job.video is not None:
        if job.cut is not None:
            media = cut_picture(job.video, job.cut)
        elif _kind(job.video) == "mp4":
            media = {"mp4": read_file(job.video)}
        else:
            media = cut_picture(job.video, Cut()) if job.audio else cut_media(job.video, None, Cut())
            if "mp4" not in media:
                raise DecodeError(f"{job.video.name}: no picture in it")
    if job.audio is not None:
        kind = _kind(job.audio)
        if kind in AUDIO_EXTENSIONS or (kind == "mp4" and not media):
            return media | {kind: read_file(job.audio)}
        sound = cut_sound(job.audio, Cut())
        if sound is None:
            raise DecodeError(f"{job.audio.name}: no sound in it")
        media["flac"] = sound
    return media


def encoded_anew(clip: RawClip) -> list[str]:
    """Endings of the clip's files that are encoded anew because readers do not look for them; cuts always are."""
    if clip.cut is not None:
        return []
    video, audio = (None if path is None else _kind(path) for path in (clip.video, clip.audio))
    taken = AUDIO_EXTENSIONS if video is not None else (*AUDIO_EXTENSIONS, "mp4")
    anew = [video] if video not in (None, "mp4") else []
    return [f".{kind}" for kind in (*anew, *([audio] if audio not in (None, *taken) else [])) if kind]


def _kind(path: Path) -> str:
    return path.suffix[1:].lower()


def read_file(path: Path) -> bytes:
    """A media file's bytes; a DecodeError where it cannot be read, or is so big that it was given by mistake."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DecodeError(f"{size / 2**20:.0f} MiB in one media file; the limit is {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise DecodeError(f"{path.name} cannot be read: {error.strerror}") from None


def npy(array: np.ndarray) -> bytes:
    """The array as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
