"""How sound, picture and words lie in time: known lags of generated clips are found, and none is made up."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from shards.counts import offsets
from shards.media.frames import pack
from shards.record import ClipRecord, Word

STEP_S = 1 / offsets.RATE_HZ


def syllables(seed: int, steps: int = 100) -> np.ndarray:
    """[T] 0 or 1: spoken or not, in pieces of 3 to 8 steps."""
    draw = np.random.default_rng(seed)
    pieces = [np.full(draw.integers(3, 9), number % 2) for number in range(steps)]
    return np.concatenate(pieces)[:steps].astype(float)


def delayed(series: np.ndarray, steps: int) -> np.ndarray:
    return np.roll(np.pad(series, 30), steps)[30:-30]


def clip(seed: int, sound_late: int, words_late: int = 0) -> tuple[ClipRecord, dict[str, bytes]]:
    """A clip whose mouth moves with its syllables; sound and words come some steps later."""
    spoken, draw = syllables(seed), np.random.default_rng(seed)
    sound = np.repeat(delayed(spoken, sound_late), 640) * draw.normal(size=64_000) * 3000
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(sound.clip(-32768, 32767).astype("<i2").tobytes())
    frames = np.full((100, 64, 64, 3), 90, dtype=np.uint8)
    open_mouth = np.cumsum(spoken).astype(int) % 2 * 80
    frames[:, 40:56, 20:44] += open_mouth[:, None, None, None].astype(np.uint8)
    edges = np.flatnonzero(np.diff(np.pad(delayed(spoken, words_late), 1))).reshape(-1, 2) * STEP_S
    words = tuple(Word(text="la", start_s=float(start), end_s=float(end)) for start, end in edges)
    record = ClipRecord(
        key=f"c{seed}", speaker="s", split="train", duration_s=4.0, has_audio=True, has_video=True, words=words,
        source={}, labels={},
    )  # fmt: skip
    return record, {"wav": content.getvalue(), "frames.npz": pack(frames, 25.0, 90)}


@pytest.mark.parametrize("late", [-10, -3, 0, 2, 15])
def test_the_lag_of_one_clip_is_found(late: int) -> None:
    found = offsets.of_clip(*clip(1, sound_late=late, words_late=3))

    assert found["mouth"] == pytest.approx(late * STEP_S, abs=STEP_S)
    assert found["words"] == pytest.approx((late - 3) * STEP_S, abs=STEP_S)


def test_a_sets_lag_and_the_clips_that_are_elsewhere() -> None:
    late = dict.fromkeys(range(30), 2) | {7: 17, 11: -13}
    curves: dict[str, dict[str, np.ndarray]] = {"mouth": {}, "words": {}}
    for seed, steps in late.items():
        record, members = clip(seed, steps)
        for beside, curve in offsets._curves(record, members):
            curves[beside][record.key] = curve

    for beside in ("mouth", "words"):
        found = offsets.of_set(beside, curves[beside])
        assert found.seconds == pytest.approx(0.08, abs=0.02)
        assert found.low_s <= found.seconds <= found.high_s
        assert {key: round(seconds, 1) for key, seconds in found.outliers} == {"c7": 0.7, "c11": -0.5}
        assert [line.split(":")[0].strip() for line in found.told()][1:] == ["c7", "c11"]


def test_of_clips_that_have_nothing_to_do_with_each_other_no_lag_is_told() -> None:
    draw = np.random.default_rng(0)
    curves = {}
    for number in range(60):
        curve = offsets.correlation(draw.normal(size=100), draw.normal(size=100))
        assert curve is not None
        curves[str(number)] = curve

    found = offsets.of_set("mouth", curves)

    assert found.seconds is None
    assert not found.outliers
    assert "do not tell" in next(iter(found.told()))


@pytest.mark.parametrize("other", [np.zeros(100), np.ones(100), np.ones(20)])
def test_what_stands_still_or_is_short_has_no_curve(other: np.ndarray) -> None:
    assert offsets.correlation(np.random.default_rng(0).normal(size=100), other) is None


def test_check_and_the_contact_sheet_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shards.check import run
    from shards.pictures.contact_sheet import Clip, contact_sheet
    from shards.write import WriteConfig, write
    from triptych.config import load

    root, fields = tmp_path / "raw", {}
    for number in range(24):
        record, members = clip(number, sound_late=5)
        name = root / f"dev/aac/id00001/v/{number:05d}.m4a"
        name.parent.mkdir(parents=True, exist_ok=True)
        with av.open(io.BytesIO(members["wav"])) as source, av.open(str(name), "w", "ipod") as target:
            stream = target.add_stream("aac", rate=16_000, layout="mono")
            for frame in source.decode(audio=0):
                target.mux(stream.encode(frame))
            target.mux(stream.encode())
        fields[f"id00001/v/{number:05d}"] = record.words
    (root / "words.ctm").write_text(
        "\n".join(
            f"{key.replace('/', '-')} 1 {word.start_s:.2f} {word.end_s - word.start_s:.2f} {word.text}"
            for key, words in fields.items()
            for word in words or ()
        )
    )
    write(
        load(
            WriteConfig,
            {"corpus": {"voxceleb2": {"root": str(root), "transcripts": ["words.ctm"]}}},
            [f"out={tmp_path / 'set'}", "split.train=1", "split.valid=0", "split.test=0", "workers=1"],
        )
    )

    assert run(str(tmp_path / "set")) == 0
    assert "sound after the words' times: +0.2" in capsys.readouterr().out
    sheet = contact_sheet([Clip(*clip(3, sound_late=5))])
    assert sheet is not None
    assert "sound after mouth +0.2" in sheet.subfigs[0].get_suptitle()
