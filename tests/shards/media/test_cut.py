import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from shards.asr.sounds import decode_clip
from shards.media import cut as module
from shards.media.cut import cut_media, from_start
from shards.media.decode import DecodeError, decode_audio, decode_video
from shards.record import Cut, RawClip, Word
from shards.writing.probe import Job

Make = Callable[..., Path]
SECONDS, FPS = 4.0, 25


@pytest.fixture(scope="module")
def recording(make_clip: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 100 frames, each 2.5 brighter than the one before, a key frame every 10; silence until 2 s, then a tone."""
    return make_clip(tmp_path_factory.mktemp("recordings") / "long.mp4", seconds=SECONDS, fps=FPS)


def pictures(content: bytes) -> tuple[list[float], list[int]]:
    """When each frame starts, and how bright it is."""
    with av.open(io.BytesIO(content)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    return [time for time, _ in frames], [round(light) for _, light in frames]


def sound(content: bytes, rate_hz: int = 16000) -> np.ndarray:
    samples = decode_audio(content, rate_hz)
    assert samples is not None
    return samples


def encode(path: Path, ticks: Sequence[int], clock: Fraction, pixels: Callable[[int], np.ndarray]) -> Path:
    """A picture without sound whose frame `i` starts at `ticks[i] * clock`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "5"})
        first = pixels(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p" if max(first.shape[0] % 2, first.shape[1] % 2) == 0 else "yuv444p"
        stream.codec_context.time_base = clock
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(pixels(number), format="rgb24")
            frame.pts, frame.time_base = tick, clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(number: int) -> np.ndarray:
    return np.full((32, 48, 3), 5 * number, dtype=np.uint8)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (0.4, 0.8), (1.16, 3.0), (3.48, 4.0), (2.0, None)])
def test_a_cut_is_the_frames_and_samples_of_its_time(recording: Path, start_s: float, end_s: float | None) -> None:
    times, lights = pictures(recording.read_bytes())
    first, stop = round(start_s * FPS), round((end_s or SECONDS) * FPS)

    content = cut_media(recording, None, Cut(start_s=start_s, end_s=end_s))["mp4"]

    found_times, found_lights = pictures(content)
    assert np.abs(np.subtract(found_lights, lights[first:stop])).max() <= 1  # neighbours differ by 2.5
    assert found_times == pytest.approx([time - start_s for time in times[first:stop]], abs=1e-4)
    frames = decode_video(content, FPS)
    assert frames is not None
    assert len(frames) == stop - first
    whole, part = sound(recording.read_bytes()), sound(content)
    begin = round(start_s * 16000)
    end = len(whole) if end_s is None else round(end_s * 16000)
    assert len(part) == end - begin
    assert np.abs(part - whole[begin:end]).mean() < 0.01  # of an amplitude of 0.5, coded once more


def test_the_sound_starts_at_its_sample(recording: Path, make_clip: Make, tmp_path: Path) -> None:
    """A tone of 440 Hz moves by 0.08 of full scale from one sample to the next."""
    content = cut_media(recording, None, Cut(start_s=2.51237, end_s=3.5))["mp4"]
    whole, part = sound(recording.read_bytes())[round(2.51237 * 16000) :], sound(content)
    inner = slice(1000, 15000)
    errors = [np.abs(part[inner] - np.roll(whole, shift)[inner]).mean() for shift in (-2, -1, 0, 1, 2)]
    assert int(np.argmin(errors)) == 2


def test_cuts_that_follow_each_other_share_the_frames(recording: Path) -> None:
    """Also where they meet between two frames."""
    ends = (0.0, 0.51, 1.05, 2.019, 2.021, 3.333, 4.5)
    lights: list[int] = []
    for start_s, end_s in pairwise(ends):
        lights += pictures(cut_media(recording, None, Cut(start_s=start_s, end_s=end_s))["mp4"])[1]
    assert np.abs(np.subtract(lights, pictures(recording.read_bytes())[1])).max() <= 1


def test_the_same_recording_gives_the_same_bytes(recording: Path) -> None:
    part = Cut(start_s=1.03, end_s=1.71)
    assert cut_media(recording, recording, part) == cut_media(recording, recording, part)


def test_only_what_is_near_is_decoded(make_clip: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded, timed = make_clip(tmp_path / "long.mp4", seconds=20, size=32), list[Any](), module.timed

    def counted(frames: Any, zero_s: Fraction) -> Any:
        for pair in timed(frames, zero_s):
            decoded.append(pair)
            yield pair

    monkeypatch.setattr(module, "timed", counted)
    monkeypatch.setattr("shards.media.decode.MAX_BYTES", 1000)  # a recording may have any size
    cut_media(path, None, Cut(start_s=18, end_s=18.4))
    assert len(decoded) < 10 + 12 + 25  # to the key frame, the cut, and 1.4 s of sound in packets of 64 ms


@pytest.mark.parametrize("ending", [".wav", ".flac", ".m4a"])
def test_sound_alone_becomes_flac(make_clip: Make, tmp_path: Path, ending: str) -> None:
    path = make_clip(tmp_path / f"a{ending}", seconds=3.0)
    media = cut_media(None, path, Cut(start_s=1.2345, end_s=2.2))
    assert list(media) == ["flac"]
    whole, part = sound(path.read_bytes()), sound(media["flac"])
    wanted = whole[round(1.2345 * 16000) : round(2.2 * 16000)]
    assert len(part) == len(wanted)
    np.testing.assert_allclose(part, wanted, atol=0 if ending != ".m4a" else 1 / 32768)


def test_separate_sound_stays_separate(recording: Path, make_clip: Make, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.wav", seconds=SECONDS)
    media = cut_media(recording, path, Cut(start_s=1.0, end_s=2.0))
    assert list(media) == ["mp4", "flac"]
    assert decode_audio(media["mp4"]) is None
    np.testing.assert_array_equal(sound(media["flac"]), sound(path.read_bytes())[16000:32000])


def test_what_is_not_there_is_left_out_and_words_and_labels_move_along(recording: Path) -> None:
    content = cut_media(recording, None, Cut(start_s=-0.6, end_s=0.4))["mp4"]
    assert len(pictures(content)[0]) == 10
    assert len(sound(content)) == 6400
    assert len(pictures(cut_media(recording, None, Cut(start_s=3.8, end_s=99.0))["mp4"])[0]) == 5
    series = {"rate_hz": 10.0, "values": [float(number) for number in range(10)]}
    words = (Word("a", 0.1, 0.4), Word("b", 0.5, 0.7), Word("c", 0.8, 1.0))
    clip = RawClip(
        key="a", speaker="s", video=recording, cut=Cut(start_s=-0.6, end_s=0.4), words=words, labels={"v": series}
    )
    moved = from_start(clip)
    assert moved.labels["v"]["values"] == [6.0, 7.0, 8.0, 9.0]
    assert [(word.start_s, word.end_s) for word in moved.words or ()] == [
        (0.0, 0.0),
        (0.0, pytest.approx(0.1)),
        (pytest.approx(0.2), pytest.approx(0.4)),
    ]


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [
        (5.0, 6.0, "the cut from 5 s to 6 s is outside of the recording, whose sound ends at 4.0"),
        (-3.0, -1.0, "the cut from -3 s to -1 s holds nothing"),
        (2.0, 2.0, "the cut from 2 s to 2 s holds nothing"),
        (2.025, 2.03, "the cut from 2.025 s to 2.03 s is shorter than a frame of the picture"),
    ],
)
def test_a_cut_that_holds_nothing_is_refused(recording: Path, start_s: float, end_s: float, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        cut_media(recording, None, Cut(start_s=start_s, end_s=end_s))


def test_a_recording_that_breaks_off_is_refused(recording: Path, tmp_path: Path) -> None:
    """Its header, at its start, says that it has 4 s."""
    (tmp_path / "half.mp4").write_bytes(recording.read_bytes()[: recording.stat().st_size // 2])
    with pytest.raises(DecodeError):
        cut_media(tmp_path / "half.mp4", None, Cut(start_s=3.0, end_s=3.9))
    with pytest.raises(DecodeError, match=r"gone\.mp4 cannot be read: No such file"):
        cut_media(tmp_path / "gone.mp4", None, Cut(end_s=1.0))


@pytest.mark.parametrize("ending", [".mkv", ".ts"])
def test_time_0_is_the_recordings_start(tmp_path: Path, ending: str) -> None:
    path = encode(tmp_path / f"late{ending}", range(250, 300), Fraction(1, FPS), grey)
    times, lights = pictures(cut_media(path, None, Cut(start_s=1.2, end_s=1.6))["mp4"])
    assert times == pytest.approx([number / FPS for number in range(10)], abs=0.002)  # mkv counts milliseconds
    assert np.abs(np.subtract(lights, [5 * number for number in range(30, 40)])).max() <= 2


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [0, 40, 200, 210, 250, 400, 900, 940, 1300, 1340, 1400, 1500]  # ms
    path = encode(tmp_path / "variable.mp4", ticks, Fraction(1, 1000), grey)
    times, lights = pictures(cut_media(path, None, Cut(start_s=0.225, end_s=1.33))["mp4"])
    assert times == pytest.approx([0.0, 0.025, 0.175, 0.675, 0.715, 1.075], abs=1e-4)
    assert np.abs(np.subtract(lights, [15, 20, 25, 30, 35, 40])).max() <= 2


def halves(number: int) -> np.ndarray:
    """45 rows, 65 columns: the left of two people is dark, the right one bright."""
    picture = np.full((45, 65, 3), 40, dtype=np.uint8)
    picture[:, 33:] = 200
    return picture


@pytest.mark.parametrize(
    ("box", "shape", "light"),
    [(None, (44, 64), None), ((0, 0, 0.5, 1), (44, 32), 40), ((0.52, 0.1, 1, 1), (40, 30), 200)],
)
def test_a_box_is_one_of_two_people(
    tmp_path: Path, box: tuple[float, float, float, float] | None, shape: tuple[int, int], light: int | None
) -> None:
    """Odd sizes, which H.264 of this format does not have, lose a row or a column."""
    path = encode(tmp_path / "two.mp4", range(10), Fraction(1, FPS), halves)
    frames = decode_video(cut_media(path, None, Cut(box=box))["mp4"], FPS)
    assert frames is not None
    assert frames.shape[1:3] == shape
    if light is not None:
        assert np.abs(frames[:, 2:-2, 2:-2].astype(int) - light).max() <= 4


@pytest.mark.parametrize(
    "fields",
    [{"start_s": float("nan")}, {"end_s": float("inf")}, {"box": (0.5, 0, 0.5, 1)}, {"box": (-0.1, 0, 0.5, 1)}],
)
def test_a_cut_that_cannot_be_is_a_bug_of_the_corpus(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Cut(**fields)


def test_a_part_is_transcribed_alone(recording: Path) -> None:
    job = Job(key="a", video=recording, audio=None, cut=Cut(start_s=2.5, end_s=3.0))
    heard = decode_clip(job, 16000)
    assert heard is not None
    assert len(heard) == 8000
    assert np.abs(heard).mean() > 0.2
