"""A file has one timeline, whichever way it is read: whole, cut, from the mp4 or from stored frames."""

import io
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from told_films import BEEP_S, LEVEL, RATE_HZ, Film, make, number_of

from shards.media.cut import cut_media
from shards.media.decode import DecodeError, audio_of, decode_audio, decode_video, video_of
from shards.media.media_form import StoreConfig, as_frames
from shards.record import Cut

HZ = 25.0
SOUND_HZ = 16000


def drawn(seed: int) -> Film:
    """Some film: offsets, rates, key frames, channels, codecs, turns and holes by chance."""
    chance = random.Random(seed)
    codec, pixels, options = chance.choice(
        [
            ("libx264", "yuv420p", {"bf": "0", "preset": "ultrafast"}),
            ("libx264", "yuv420p", {"bf": "2"}),
            ("libx264", "yuv420p10le", {"bf": "2"}),
            ("libx264", "yuv444p", {}),
            ("libx265", "yuv420p", {"x265-params": "log-level=none:pools=none"}),
            ("mpeg4", "yuv420p", {"qscale": "2"}),
            ("libvpx-vp9", "yuv420p", {"cpu-used": "8", "deadline": "realtime"}),
            ("libsvtav1", "yuv420p", {"preset": "8", "crf": "15"}),
        ]
    )
    fps = chance.choice([Fraction(25), Fraction(30), Fraction(24000, 1001), Fraction(15), Fraction(30000, 1001)])
    layout, gains = chance.choice(
        [
            ("mono", (1.0,)),
            ("stereo", (1.0, 1.0)),
            ("stereo", (1.0, 0.0)),
            ("stereo", (0.3, 1.0)),
            ("5.1", (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)),
            ("5.1", (1.0,) * 6),
        ]
    )
    odd = chance.choice(["plain", "late", "hole", "copied", "variable"])
    late, hole, ticks, copied_from_s = (0.0, 0.0), None, None, 0.0
    if odd == "late":
        late = chance.choice([(chance.uniform(0, 0.8), 0.0), (0.0, chance.uniform(0, 0.8)), (5.0, 5.2)])
    if odd == "hole":
        hole = (1.0, chance.uniform(1.1, 1.9))
    if odd == "copied" and codec == "libx264":
        copied_from_s = float(round(chance.uniform(0.1, 1.4) * fps) / fps)  # between two frames FFmpeg rounds
    if odd == "variable" and codec.startswith("libx26"):
        steps = [chance.choice([20, 33, 40, 67, 120]) for _ in range(200)]
        ticks = [tick for tick in np.cumsum([0, *steps]).tolist() if tick < 2400]
    return Film(
        fps=fps,
        ticks=ticks,
        codec=codec,
        options={**options, "g": str(chance.choice([1, 5, 12, 250]))},
        pixels=pixels,
        turn=chance.randrange(4),
        sound=chance.choice(["aac", "aac", "libmp3lame" if len(gains) < 3 else "aac", "flac"]),
        layout=layout,
        gains=gains,
        late=late,
        hole=hole,
        copied_from_s=copied_from_s,
    )


def check(film: Film, path: Path) -> None:
    """Read it in all ways."""
    data = make(path, film).read_bytes()
    ways = {"whole": {"mp4": data}, "cut": cut_media(path, None, Cut(start_s=0.0, end_s=99.0))}
    whole = decode_video(data, HZ)
    assert whole is not None
    assert whole.shape[1:] == (32, 64, 3)
    ways["frames"] = as_frames(ways["whole"], StoreConfig(media="frames", size=(32, 64)))
    ways["frames of the cut"] = as_frames(ways["cut"], StoreConfig(media="frames", size=(32, 64)))
    levels = {}
    for way, members in ways.items():
        picture, sound = video_of(members), audio_of(members)
        assert picture is not None
        frames = decode_video(picture, HZ)
        assert frames is not None
        check_picture(film, [number_of(frame) for frame in frames], way)
        assert abs(len(frames) - len(whole)) <= (2 if film.ticks else 1), way  # the last frame's length
        samples = None if sound is None else decode_audio(sound, SOUND_HZ)
        assert (samples is None) == (film.sound is None)
        if samples is not None:
            levels[way] = check_sound(film, samples, way)
    for way, found in levels.items():
        assert np.abs(np.subtract(found, levels["whole"])).max() < 0.1, way


def check_picture(film: Film, numbers: list[int], way: str) -> None:
    """Each step shows the frame of its time, to half a frame; the first one before it starts."""
    starts_s = film.starts_s()
    begin_s = min(film.late) if film.sound else film.late[0]
    starts_s = starts_s - begin_s
    shown = starts_s >= -1e-6  # what an edit list hides is not to be seen
    first = int(np.argmax(shown))
    length_s = np.append(np.diff(starts_s), 0.12 if film.ticks else 1 / float(film.fps))  # the last one's is not known
    for step, number in enumerate(numbers):
        time_s, start_s = step / HZ, starts_s[number]
        half_s = length_s[number - 1] / 2 if number else 0.0
        held = number == first and time_s <= start_s
        assert shown[number], f"{way}: step {step} shows the hidden frame {number}"
        assert held or start_s - half_s - 2e-3 <= time_s <= start_s + length_s[number] + 2e-3, f"{way}: {step} {number}"
    if not film.ticks:
        assert len(numbers) == pytest.approx((starts_s[-1] + length_s[-1]) * HZ, abs=1.1), way


def check_sound(film: Film, samples: np.ndarray, way: str) -> list[float]:
    """Each beep at its time and in its pitch, silence in the hole; how loud each is, in dB."""
    begin_s = min(film.late)
    levels = []
    for start_s in film.beeps_s():
        at = round((start_s - begin_s) * SOUND_HZ)
        pitch_hz = 500 + 200 * round((start_s - film.late[1] + film.copied_from_s) * 2)
        around = np.abs(samples[max(0, at - 800) : at + 800])
        onset = int(np.argmax(around > 0.3 * around.max())) - min(800, at)
        assert start_s - begin_s < 0.06 or abs(onset) < 0.008 * SOUND_HZ, f"{way}: {onset} samples off at {start_s}"
        inner = samples[at + 800 : at + round(BEEP_S * SOUND_HZ) - 800]
        waves = np.exp(-2j * np.pi * pitch_hz * np.arange(len(inner)) / SOUND_HZ)
        amplitude = 2 * np.abs(inner @ waves) / len(inner)
        assert amplitude <= 1.03 * LEVEL * max(film.gains), f"{way}: louder than its loudest channel"
        if len(set(film.gains)) == 1:
            assert amplitude == pytest.approx(LEVEL, rel=0.08), f"{way}: not as loud as in one channel"
        levels.append(20 * np.log10(amplitude))
    if film.hole is not None:
        hole = samples[round((film.hole[0] + 0.05) * SOUND_HZ) : round((film.hole[1] - 0.05) * SOUND_HZ)]
        assert not len(hole) or np.abs(hole).max() < 0.01, way
    return levels


@pytest.mark.parametrize(("gop", "from_s"), [(250, 0.52), (250, 1.32), (12, 1.32)])
def test_what_an_edit_list_hides_is_not_seen(tmp_path: Path, gop: int, from_s: float) -> None:
    """A clip cut by `ffmpeg -ss 1.32 -c copy`: its packets start at the key frame before."""
    check(Film(options={"g": str(gop), "bf": "2"}, copied_from_s=from_s), tmp_path / "film.mp4")


@pytest.mark.parametrize("late", [(0.1, 0), (0.3, 0), (0.45, 0), (0.7, 0), (0, 0.7), (10, 10.3), (10.1, 10)])
def test_what_starts_late_is_seen_and_heard_late(tmp_path: Path, late: tuple[float, float]) -> None:
    sound = "flac" if late[1] == 10 else "aac"  # AAC's first packet, before its time 0, would be the start
    check(Film(late=late, sound=sound), tmp_path / "film.mp4")


@pytest.mark.parametrize("hole", [(1.5, 1.9), (0.9, 1.9), (1.3, 2.5)])
@pytest.mark.parametrize("sound", ["aac", "flac"])
def test_a_hole_in_the_sound_is_silence(tmp_path: Path, hole: tuple[float, float], sound: str) -> None:
    check(Film(hole=hole, sound=sound), tmp_path / "film.mp4")


@pytest.mark.parametrize(("layout", "gains"), [("stereo", (1.0, 1.0)), ("5.1", (1.0,) * 6), ("stereo", (1.0, 0.0))])
@pytest.mark.parametrize("sound", ["aac", "flac", "alac"])
def test_a_voice_in_several_channels_is_as_loud_as_in_one(
    tmp_path: Path, layout: str, gains: tuple[float, ...], sound: str
) -> None:
    check(Film(layout=layout, gains=gains, sound=sound), tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("codec", "pixels"), [("libsvtav1", "yuv420p"), ("libsvtav1", "yuv420p10le"), ("libx264", "yuv422p10le")]
)
def test_any_codec_is_seen(tmp_path: Path, codec: str, pixels: str) -> None:
    check(Film(codec=codec, pixels=pixels, options={"preset": "8"} if "av1" in codec else {}), tmp_path / "film.mp4")


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_picture_is_upright_whole_and_cut(tmp_path: Path, turn: int) -> None:
    check(Film(turn=turn), tmp_path / "film.mp4")


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_box_is_cut_out_of_the_upright_picture(tmp_path: Path, turn: int) -> None:
    path = make(tmp_path / "film.mp4", Film(turn=turn))
    frames = decode_video(cut_media(path, None, Cut(box=(0.5, 0.0, 1.0, 0.5)))["mp4"], HZ)
    assert frames is not None
    assert frames.shape[1:3] == (16, 32)
    left, right = (frames[:, 4:12, place : place + 8].mean(axis=(1, 2, 3)) > 128 for place in (4, 20))
    assert left.tolist() == [bool(number & 4) for number in range(len(frames))]
    assert right.tolist() == [bool(number & 8) for number in range(len(frames))]


def test_a_mirrored_picture_is_turned_as_players_do(tmp_path: Path) -> None:
    data = make(tmp_path / "film.mp4", Film(sound=None)).read_bytes()
    plain = decode_video(data, HZ)
    place = data.index(b"tkhd") + 44
    for at, mirrored in ((0, np.s_[:, :, ::-1]), (16, np.s_[:, ::-1])):
        flipped = bytearray(data)
        flipped[place + at : place + at + 4] = (-(1 << 16)).to_bytes(4, "big", signed=True)
        frames = decode_video(bytes(flipped), HZ)
        assert plain is not None
        np.testing.assert_array_equal(frames, plain[mirrored])


def test_a_frame_stays_in_a_hole_of_the_picture(tmp_path: Path) -> None:
    """Of frames at 0, 40, ..., 480 ms and from 2 s on the later ones are not seen before; a cut between is no error."""
    path = make(tmp_path / "film.mp4", Film(ticks=[*range(0, 500, 40), *range(2000, 2400, 40)]))
    frames = decode_video(path.read_bytes(), HZ)
    assert frames is not None
    numbers = [number_of(frame) for frame in frames]
    assert numbers[12:48] == [12] * 36
    assert numbers[50:] == list(range(13, 23))
    for start_s, end_s in ((0.8, 1.4), (1.2, 2.04), (0.2, 1.5)):
        part = decode_video(cut_media(path, None, Cut(start_s=start_s, end_s=end_s))["mp4"], HZ)
        assert part is not None
        first = round(start_s * HZ)
        assert np.abs(np.subtract([number_of(frame) for frame in part], numbers[first:][: len(part)])).max() <= 1
        assert [number_of(frame) for frame in part][:5] == numbers[first : first + 5]


def test_a_cut_before_a_late_picture_shows_its_first_frame(tmp_path: Path) -> None:
    path = make(tmp_path / "film.mp4", Film(late=(0.7, 0.0)))
    frames = decode_video(cut_media(path, None, Cut(start_s=0.1, end_s=0.5))["mp4"], HZ)
    assert frames is not None
    assert [number_of(frame) for frame in frames] == [0] * 10


def test_a_picture_that_is_shorter_than_the_sound_is_whole(tmp_path: Path) -> None:
    """Matroska tells the length of the longer one alone; a file of which half is there is still refused."""
    film = make(tmp_path / "film.mp4", Film())
    with av.open(str(film)) as source, av.open(str(tmp_path / "film.mkv"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts * packet.time_base < 1.2):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    part = cut_media(tmp_path / "film.mkv", None, Cut())["mp4"]
    frames, samples = decode_video(part, HZ), decode_audio(part)
    assert frames is not None
    assert samples is not None
    assert 1.1 < len(frames) / HZ < 1.4
    assert len(samples) / SOUND_HZ == pytest.approx(2.5, abs=0.1)
    data = (tmp_path / "film.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(DecodeError, match="truncated"):
        cut_media(tmp_path / "half.mkv", None, Cut())


def test_an_mp3_whose_length_is_guessed_is_whole(tmp_path: Path) -> None:
    """Of a variable rate, silent at first: FFmpeg expects far more than the 4 s that it has."""
    samples = np.random.default_rng(0).normal(0, 0.2, 4 * RATE_HZ).astype(np.float32)
    samples[: 3 * RATE_HZ] = 0
    with av.open(str(tmp_path / "a.mp3"), "w", options={"write_xing": "0"}) as target:
        options = {"flags": "+qscale", "global_quality": str(118 * 2)}
        stream = target.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    heard = decode_audio(cut_media(None, tmp_path / "a.mp3", Cut())["flac"])
    assert heard is not None
    assert len(heard) / SOUND_HZ == pytest.approx(4.0, abs=0.1)


def test_a_small_picture_is_decoded(make_clip, tmp_path: Path) -> None:
    for size in (16, 48, 50):
        frames = decode_video(make_clip(tmp_path / f"{size}.mp4", seconds=1.0, size=size).read_bytes(), HZ)
        assert frames is not None
        assert frames.shape == (25, size, size, 3)


def test_a_cover_picture_is_no_picture(make_clip, tmp_path: Path) -> None:
    """The second track of an m4a, as music has it; or in front of the video."""
    sound, film = make_clip(tmp_path / "a.m4a", seconds=1.0), make(tmp_path / "film.mp4", Film())
    only, beside = covered(sound.read_bytes()), covered(film.read_bytes())
    assert decode_video(only, HZ) is None
    np.testing.assert_array_equal(decode_audio(only), decode_audio(sound.read_bytes()))
    np.testing.assert_array_equal(decode_video(beside, HZ), decode_video(film.read_bytes(), HZ))
    (tmp_path / "only.mp4").write_bytes(only)
    (tmp_path / "beside.mp4").write_bytes(beside)
    assert list(cut_media(tmp_path / "only.mp4", None, Cut())) == ["flac"]
    assert decode_video(cut_media(tmp_path / "beside.mp4", None, Cut())["mp4"], HZ) is not None


def covered(data: bytes) -> bytes:
    """The same with a cover picture as its first track."""
    content = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(content, "w", "mp4") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        streams = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        target.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")))
        target.mux(cover.encode(None))
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    return content.getvalue()


@pytest.mark.parametrize("seed", range(30))
def test_any_file_is_read_alike_in_all_ways(tmp_path: Path, seed: int) -> None:
    check(drawn(seed), tmp_path / "film.mp4")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30, 300))
def test_many_files_are_read_alike_in_all_ways(tmp_path: Path, seed: int) -> None:
    check(drawn(seed), tmp_path / "film.mp4")
