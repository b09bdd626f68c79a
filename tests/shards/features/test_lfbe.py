from pathlib import Path

import numpy as np
import pytest

from shards.features.lfbe import FLOOR, Lfbe, LfbeConfig, filter_bank
from shards.media.decode import decode_audio


def test_equals_kaldi(kaldi_filter_bank) -> None:
    samples = (np.random.default_rng(0).standard_normal(16000) * 0.1).astype(np.float32)

    np.testing.assert_allclose(filter_bank(samples, 40), kaldi_filter_bank(samples, 40), atol=1e-4)


@pytest.mark.real
@pytest.mark.parametrize("speech", ["vox2_form_clips/**/*.mp4", "grid_vox2/dev/aac/**/*.m4a"])
def test_equals_kaldi_on_real_speech(real_data: Path, kaldi_filter_bank, speech: str) -> None:
    clips = sorted(real_data.glob(speech))[:4]
    assert clips
    for clip in clips:
        samples = decode_audio(clip.read_bytes())
        assert samples is not None
        ours, kaldis = filter_bank(samples, 40), kaldi_filter_bank(samples, 40)
        # what both round to digital silence differs; the feature floors it
        np.testing.assert_allclose(np.maximum(ours, FLOOR), np.maximum(kaldis, FLOOR), atol=1e-3)


def test_twenty_steps_a_second_of_200_numbers(make_clip, tmp_path: Path) -> None:
    feature = Lfbe(LfbeConfig())

    steps = feature.compute({"wav": make_clip(tmp_path / "clip.wav", seconds=1.0).read_bytes()})

    assert steps is not None
    assert steps.dtype == np.float16
    assert steps.shape == (19, *feature.spec.shape)  # the twentieth would need 1.015 s
    assert feature.spec.rate_hz == 20
    assert (steps[:8] == FLOOR).all()  # digital silence in the first half
    assert steps[12:].mean() > FLOOR + 3  # the tone is in the second


def test_a_step_depends_on_its_support_and_on_nothing_else() -> None:
    spec = Lfbe(LfbeConfig()).spec
    step = 7
    start, end = (round(16000 * (step / spec.rate_hz + support)) for support in spec.support_s)
    generator = np.random.default_rng(0)
    samples = generator.standard_normal(16000).astype(np.float32) * 0.1
    changed = generator.standard_normal(16000).astype(np.float32) * 0.1
    changed[start:end] = samples[start:end]
    rows = slice(5 * step, 5 * step + 5)
    expected = filter_bank(samples, 40)[rows]

    np.testing.assert_array_equal(filter_bank(changed, 40)[rows], expected)

    for edge in (start, end - 1):
        touched = samples.copy()
        touched[edge] += 0.5
        assert not np.array_equal(filter_bank(touched, 40)[rows], expected)


def test_no_sound_is_none_and_very_short_sound_has_no_step(make_clip, tmp_path: Path) -> None:
    feature = Lfbe(LfbeConfig())

    assert feature.compute({"mp4": make_clip(tmp_path / "mute.mp4", audio=False).read_bytes()}) is None
    short = feature.compute({"wav": make_clip(tmp_path / "short.wav", seconds=0.02).read_bytes()})
    assert short is not None
    assert short.shape == (0, 200)
