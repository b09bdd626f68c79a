from pathlib import Path

import numpy as np
import pytest

from shards.features.config import FeaturesConfig
from shards.features.waveform import Waveform, WaveformConfig
from shards.media.decode import decode_audio
from triptych.config import UserError, load


def test_steps_side_by_side_are_the_sound(make_clip, tmp_path: Path) -> None:
    feature = Waveform(WaveformConfig())
    media = make_clip(tmp_path / "clip.wav", seconds=0.99).read_bytes()

    steps = feature.compute({"wav": media})

    assert steps is not None
    assert (steps.dtype, steps.shape) == (np.float16, (49, 320))  # the 50th would need 1.0 s
    assert (feature.spec.rate_hz, feature.spec.support_s) == (50, (0.0, 0.02))
    samples = decode_audio(media)
    assert samples is not None
    np.testing.assert_allclose(steps.astype(np.float32).ravel(), samples[: 49 * 320], rtol=2**-11)
    assert np.abs(steps).max() <= 1


def test_a_tenth_of_a_second_at_22050_hz(make_clip, tmp_path: Path) -> None:
    feature = Waveform(WaveformConfig(sample_rate_hz=22050, step_samples=2205, max_s=180))

    steps = feature.compute({"mp4": make_clip(tmp_path / "clip.mp4", seconds=1.0).read_bytes()})

    assert steps is not None
    assert steps.shape[1:] == (2205,)
    assert len(steps) in (9, 10)  # AAC's last packet
    assert (feature.spec.rate_hz, feature.spec.max_length) == (10, 1800)


def test_no_sound_is_none(make_clip, tmp_path: Path) -> None:
    mute = make_clip(tmp_path / "mute.mp4", audio=False).read_bytes()
    assert Waveform(WaveformConfig()).compute({"mp4": mute}) is None


@pytest.mark.parametrize("wrong", [{"sample_rate_hz": 0}, {"step_samples": 16001}, {"max_s": 0.001}])
def test_settings_without_a_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"waveform.{next(iter(wrong))}"):
        load(FeaturesConfig, {"audio": {"waveform": wrong}})
