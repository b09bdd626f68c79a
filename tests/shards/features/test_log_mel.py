from pathlib import Path

import numpy as np
import pytest

from shards.features.lfbe import FLOOR, Lfbe, LfbeConfig
from shards.features.log_mel import LogMel, LogMelConfig
from shards.media.decode import decode_audio


def test_a_hundred_steps_a_second(make_clip, tmp_path: Path) -> None:
    feature = LogMel(LogMelConfig())

    steps = feature.compute({"wav": make_clip(tmp_path / "clip.wav", seconds=1.0).read_bytes()})

    assert steps is not None
    assert (steps.dtype, steps.shape) == (np.float16, (98, 80))  # the 99th window would end at 1.005 s
    assert feature.spec.shape == (80,)
    assert (steps[:45] == FLOOR).all()  # digital silence in the first half
    centres_hz = 700 * np.expm1(np.linspace(np.log1p(20 / 700), np.log1p(8000 / 700), 82))[1:-1]
    loudest = steps[60:90].mean(axis=0, dtype=np.float32).argmax()
    assert abs(loudest - np.abs(centres_hz - 440).argmin()) <= 1  # the tone of the second half


def test_a_step_does_not_depend_on_the_rest_of_the_clip(make_clip, tmp_path: Path) -> None:
    """Clip-wise scaling (Whisper's, librosa's `ref=max`) would tell a hidden word by the steps around it."""
    feature = LogMel(LogMelConfig())
    short, long = (
        feature.compute({"wav": make_clip(tmp_path / f"{seconds}.wav", seconds=seconds).read_bytes()})
        for seconds in (1.0, 2.0)
    )

    assert short is not None
    assert long is not None
    np.testing.assert_array_equal(short[:48], long[:48])  # silence in both; only the longer clip's tone comes later


def test_stacking_five_steps_gives_lfbe(make_clip, tmp_path: Path) -> None:
    media = {"wav": make_clip(tmp_path / "clip.wav", seconds=1.0).read_bytes()}

    single, stacked = LogMel(LogMelConfig(bands=40)).compute(media), Lfbe(LfbeConfig()).compute(media)

    assert single is not None
    assert stacked is not None
    np.testing.assert_array_equal(single[:95].reshape(19, 200), stacked)


def test_no_sound_is_none(make_clip, tmp_path: Path) -> None:
    mute = make_clip(tmp_path / "mute.mp4", audio=False).read_bytes()
    assert LogMel(LogMelConfig()).compute({"mp4": mute}) is None


@pytest.mark.real
@pytest.mark.parametrize("bands", [40, 80, 128])
def test_real_speech_equals_kaldi(real_data: Path, kaldi_filter_bank, bands: int) -> None:
    feature, checked = LogMel(LogMelConfig(bands=bands)), 0
    for clip in sorted((real_data / "vox2_form_clips").rglob("*.mp4"))[:3]:
        data = clip.read_bytes()
        samples, steps = decode_audio(data), feature.compute({"mp4": data})
        assert samples is not None
        assert steps is not None
        expected = np.maximum(kaldi_filter_bank(samples, bands), FLOOR)
        assert len(steps) == len(expected)
        np.testing.assert_allclose(steps.astype(np.float32), expected, rtol=2**-11, atol=1e-3)
        checked += 1
    assert checked == 3
