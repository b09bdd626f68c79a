"""Files of any kind that PyAV decodes are taken, what it does not decode is refused: no medium is lost in silence."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from shards.check import inspect
from shards.corpora.ravdess import RavdessConfig
from shards.features.config import FeaturesConfig
from shards.media.decode import DecodeError, audio_of, decode_audio, decode_video, video_of
from shards.media.media_form import StoreConfig
from shards.reading.index import load_manifest
from shards.record import ClipRecord, Cut, RawClip
from shards.write import WriteConfig, write
from shards.writing.probe import Job, Opened, encoded_anew, open_clip
from triptych.config import load

RATE_HZ, FPS, SECONDS = 44100, 25, 2
BURST_S = 1.0
"""The tone begins here, and the picture turns bright."""

PICTURES = {
    ".flv": "flv1",
    ".avi": "mpeg4",
    ".mkv": "libx264",
    ".mov": "libx264",
    ".webm": "libvpx",
    ".mpg": "mpeg2video",
}
SOUNDS = {
    ".mp3": "libmp3lame",
    ".ogg": "flac",
    ".opus": "libopus",
    ".aac": "aac",
    ".wma": "wmav2",
    ".aiff": "pcm_s16be",
}
OF_PICTURES = {".flv": "libmp3lame", ".avi": "libmp3lame", ".webm": "libopus", ".mpg": "mp2"}


def media(path: Path, picture: str = "", sound: str = "") -> Path:
    """Two seconds; dark and silent in the first, bright and a tone of 440 Hz in the second."""
    with av.open(str(path), "w") as target:
        rate_hz = 48000 if sound == "libopus" else RATE_HZ
        streams = []
        if picture:
            video = target.add_stream(picture, rate=FPS)
            video.width, video.height, video.pix_fmt, video.bit_rate = 64, 64, "yuv420p", 2_000_000
            streams.append((video, _frames()))
        if sound:
            audio = target.add_stream(sound, rate=rate_hz, layout="mono")
            audio.bit_rate = 64_000
            streams.append((audio, _tone(rate_hz)))
        for stream, frames in streams:
            for frame in frames:
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    return path


def _frames() -> Iterator[av.VideoFrame]:
    for number in range(SECONDS * FPS):
        light = 200 if number >= BURST_S * FPS else 40
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), light, dtype=np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _tone(rate_hz: int) -> Iterator[av.AudioFrame]:
    times = np.arange(SECONDS * rate_hz) / rate_hz
    samples = (8000 * np.sin(2 * np.pi * 440 * times) * (times >= BURST_S)).astype(np.int16)
    fifo = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    fifo.sample_rate, fifo.pts, fifo.time_base = rate_hz, 0, Fraction(1, rate_hz)
    yield fifo


def bright_in(path: Path) -> float:
    """When the picture turns bright, in seconds from the start of the stream that starts first."""
    with av.open(str(path)) as container:
        frames = ((frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0))
        return next(time for time, light in frames if light > 120) - container.start_time / 1e6


@dataclass(frozen=True)
class Found:
    opened: Opened

    def sound_starts_s(self) -> float:
        data = audio_of(self.opened.members)
        assert data is not None
        samples = decode_audio(data, 16000)
        assert samples is not None
        assert 0.1 < np.abs(samples[int(1.2 * 16000) : int(1.8 * 16000)]).max() < 0.4  # 8000 of 32768, perhaps + 3 dB
        return int(np.argmax(np.abs(samples) > 0.08)) / 16000

    def bright_from_s(self) -> float:
        data = video_of(self.opened.members)
        assert data is not None
        frames = decode_video(data, FPS)
        assert frames is not None
        light = frames.mean(axis=(1, 2, 3))
        assert light[0] == pytest.approx(40, abs=8)
        assert light[-1] == pytest.approx(200, abs=8)
        return int(np.argmax(light > 120)) / FPS


Open = Callable[..., Found]


@pytest.fixture
def opened() -> Open:
    def run(video: Path | None = None, audio: Path | None = None, media: str = "original") -> Found:
        job = Job(key="a", video=video, audio=audio)
        return Found(open_clip(job, FeaturesConfig(), StoreConfig(media=media)))

    return run


@pytest.mark.parametrize("ending", PICTURES)
def test_a_picture_in_any_container_is_stored_for_all_readers(opened: Open, tmp_path: Path, ending: str) -> None:
    path = media(tmp_path / f"a{ending.upper()}", PICTURES[ending], OF_PICTURES.get(ending, "aac"))
    found = opened(video=path)
    assert set(found.opened.members) == {"mp4"}
    assert (found.opened.has_video, found.opened.has_audio) == (True, True)
    assert found.bright_from_s() == pytest.approx(bright_in(path), abs=0.5 / FPS)
    assert found.sound_starts_s() == pytest.approx(BURST_S, abs=0.06)  # up to a packet of the codec
    assert found.opened.duration_s == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("ending", SOUNDS)
def test_sound_of_any_kind_beside_an_mp4_is_the_clips_sound(opened: Open, tmp_path: Path, ending: str) -> None:
    picture = media(tmp_path / "a.mp4", "libx264")
    found = opened(video=picture, audio=media(tmp_path / f"a{ending}", sound=SOUNDS[ending]))
    assert found.opened.members["mp4"] == picture.read_bytes()  # what readers take stays as it is
    assert set(found.opened.members) == {"mp4", "flac"}
    assert found.sound_starts_s() == pytest.approx(BURST_S, abs=0.06)


def test_of_a_picture_with_sound_and_a_sound_file_the_file_is_the_sound(opened: Open, tmp_path: Path) -> None:
    silent = media(tmp_path / "a.flv", "flv1", "libmp3lame")
    found = opened(video=silent, audio=media(tmp_path / "b.wav", sound="pcm_s16le"))
    assert set(found.opened.members) == {"mp4", "wav"}
    assert decode_audio(found.opened.members["mp4"]) is None


def test_converted_pictures_are_stored_as_frames_too(opened: Open, tmp_path: Path) -> None:
    path = media(tmp_path / "a.flv", "flv1", "libmp3lame")
    found = opened(video=path, media="frames")
    assert "frames.npz" in found.opened.members
    assert found.bright_from_s() == pytest.approx(bright_in(path), abs=0.5 / FPS)
    assert found.sound_starts_s() == pytest.approx(BURST_S, abs=0.06)


def test_a_clip_of_sound_alone_may_be_an_mp3(opened: Open, tmp_path: Path) -> None:
    found = opened(audio=media(tmp_path / "a.mp3", sound="libmp3lame"))
    assert set(found.opened.members) == {"flac"}
    assert not found.opened.has_video


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"video": "text.flv"}, "cannot be decoded"),
        ({"audio": "text.xyz"}, "cannot be decoded"),
        ({"video": "picture.mp4", "audio": "text.mp3"}, "cannot be decoded"),
        ({"video": "sound.mp3"}, "sound.mp3: no picture in it"),
        ({"video": "sound.mp3", "audio": "sound.wav"}, "sound.mp3: no picture in it"),
        ({"video": "picture.mp4", "audio": "picture.mkv"}, "picture.mkv: no sound in it"),
        ({"video": "picture.mp4", "audio": "picture.mp4"}, "picture.mp4: no sound in it"),
    ],
)
def test_what_is_not_what_it_was_given_for_is_refused(
    opened: Open, tmp_path: Path, given: dict[str, str], message: str
) -> None:
    for name in ("text.flv", "text.xyz", "text.mp3"):
        (tmp_path / name).write_text("Not a medium.\n" * 100)
    media(tmp_path / "sound.mp3", sound="libmp3lame")
    media(tmp_path / "sound.wav", sound="pcm_s16le")
    for name in ("picture.mp4", "picture.mkv"):
        media(tmp_path / name, "libx264")
    with pytest.raises(DecodeError, match=message):
        opened(**{kind: tmp_path / name for kind, name in given.items()})


@pytest.mark.parametrize(
    ("video", "audio", "cut", "anew"),
    [
        ("a.mp4", None, None, []),
        ("a.mp4", "a.m4a", None, []),
        ("a.flv", None, None, [".flv"]),
        ("a.MOV", "a.mp3", None, [".mov", ".mp3"]),
        (None, "a.mp4", None, []),
        ("a.mp4", "b.mp4", None, [".mp4"]),
        ("a.flv", None, Cut(start_s=0.0, end_s=1.0), []),
    ],
)
def test_what_is_encoded_anew_is_known_before(
    video: str | None, audio: str | None, cut: Cut | None, anew: list[str]
) -> None:
    paths = [None if name is None else Path(name) for name in (video, audio)]
    assert encoded_anew(RawClip(key="a", speaker="s", video=paths[0], audio=paths[1], cut=cut)) == anew


def test_the_account_counts_what_was_encoded_anew_and_check_knows_older_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw" / "Actor_01"
    folder.mkdir(parents=True)
    for take in (1, 2):
        media(folder / f"01-01-03-01-01-{take:02d}-01.mp4", "libx264", "aac")
    root = {"ravdess": {"root": str(tmp_path / "raw"), "modality": "av"}}
    config = {"corpus": root, "out": str(tmp_path / "out"), "split": {"train": 1, "valid": 0, "test": 0}, "workers": 1}
    ravdess = RavdessConfig.clips

    def as_flv(self: RavdessConfig) -> Iterator[RawClip]:
        for clip in ravdess(self):
            assert clip.video is not None
            yield replace(clip, video=clip.video.rename(clip.video.with_suffix(".flv")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RavdessConfig, "clips", as_flv)
        write(load(WriteConfig, config))

    assert "encoded anew, for no reader looks for them: 2 .flv" in capsys.readouterr().out
    assert not inspect(tmp_path / "out", load_manifest(tmp_path / "out"), quiet=True).problems


def test_a_medium_that_an_older_version_stored_and_nobody_reads_is_found(shard_set_of: Callable[..., Path]) -> None:
    record = ClipRecord(
        key="a/b/c",
        speaker="a",
        split="train",
        duration_s=1.0,
        has_audio=False,
        has_video=False,
        words=None,
        source={},
        labels={},
    )
    folder = shard_set_of([(record, {"json": record.to_bytes(), "flv": b"a picture that was never decoded"})])

    (found,) = [
        problem for problem in inspect(folder, load_manifest(folder), quiet=True).problems if problem.check == "media"
    ]

    assert found.what.startswith("a/b/c: .flv is read by nobody, and was stored by an older version")
