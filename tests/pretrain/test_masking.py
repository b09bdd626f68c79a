from dataclasses import replace

import pytest
import torch

from pretrain.masking import MaskConfig, draw_words, hidden_steps
from triptych.batch import Batch, Track, fake_batch
from triptych.modalities import FeatureSpec

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
}


def clip(words, num_frames):
    """One clip with words at these (start, end) seconds and sound frames of 65 ms each 50 ms."""
    spans = torch.tensor(words)
    frames = torch.arange(num_frames) * 0.05
    text = Track(values=torch.arange(1, len(words) + 1)[None], mask=torch.ones(1, len(words)).bool(), times=spans[None])
    audio = Track(
        values=torch.zeros(1, num_frames, 8),
        mask=torch.ones(1, num_frames).bool(),
        times=torch.stack([frames, frames + 0.065], dim=-1)[None],
    )
    return Batch(keys=("a",), epochs=(0,), tracks={"text": text, "audio": audio})


def test_every_frame_that_overlaps_a_masked_word_at_all_is_hidden():
    batch = clip([(0.0, 0.2), (0.3, 0.42)], num_frames=12)
    hidden = hidden_steps(batch, torch.tensor([[False, True]]), MaskConfig())
    # frame i covers [0.05 i, 0.05 i + 0.065): frame 5 ends at .315, inside the word; frame 8 begins at .40
    assert hidden["audio"][0].nonzero().flatten().tolist() == [5, 6, 7, 8]
    assert hidden["text"].tolist() == [[False, True]]


def test_margin_widens_and_hide_limits_what_is_hidden():
    batch = clip([(0.0, 0.2), (0.3, 0.42)], num_frames=12)
    masked = torch.tensor([[False, True]])
    assert "audio" not in hidden_steps(batch, masked, MaskConfig(hide=("text",)))
    wide = hidden_steps(batch, masked, MaskConfig(margin_s=0.06))
    assert wide["audio"][0].nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 9]


def test_words_are_drawn_by_seed_epoch_and_key_wherever_the_clip_stands_in_a_batch():
    batch = fake_batch(SPECS, num_clips=8, num_words=12)
    drawn = draw_words(batch, 0.5, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = replace(
        batch,
        keys=tuple(batch.keys[i] for i in order),
        tracks={
            name: replace(track, values=track.values[order], mask=track.mask[order], times=track.times[order])
            for name, track in batch.tracks.items()
        },
    )
    assert torch.equal(draw_words(shuffled, 0.5, seed=1), drawn[order])
    assert not torch.equal(draw_words(batch, 0.5, seed=2), drawn)
    assert not torch.equal(draw_words(replace(batch, epochs=(1,) * 8), 0.5, seed=1), drawn)


def test_rate_is_met_and_unknown_words_and_padding_are_never_drawn():
    batch = fake_batch(SPECS, num_clips=400, num_words=400)
    text = batch.tracks["text"]
    values = text.values.clone()
    values[:, ::7] = 0
    batch = replace(batch, tracks={**batch.tracks, "text": replace(text, values=values)})
    drawn = draw_words(batch, 0.15, seed=0)
    known = text.mask & (values > 0)
    assert not drawn[~known].any()
    assert drawn[known].float().mean().item() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.5}, {"hide": ("audio",)}, {"margin_s": -1.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        MaskConfig(**settings)
