from dataclasses import replace

import pytest
import torch

from pretrain.masking import HideConfig, MaskConfig, draw_ways, draw_words, hidden_steps
from triptych.batch import Batch, Track, fake_batch
from triptych.modalities import FeatureSpec

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
}

HALF = MaskConfig(rate=0.5)


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
    drawn = draw_words(batch, HALF, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = replace(
        batch,
        keys=tuple(batch.keys[i] for i in order),
        tracks={
            name: replace(track, values=track.values[order], mask=track.mask[order], times=track.times[order])
            for name, track in batch.tracks.items()
        },
    )
    assert torch.equal(draw_words(shuffled, HALF, seed=1), drawn[order])
    assert not torch.equal(draw_words(batch, HALF, seed=2), drawn)
    assert not torch.equal(draw_words(replace(batch, epochs=(1,) * 8), HALF, seed=1), drawn)


def test_rate_is_met_and_unknown_words_and_padding_are_never_drawn():
    batch = fake_batch(SPECS, num_clips=400, num_words=400)
    text = batch.tracks["text"]
    values = text.values.clone()
    values[:, ::7] = 0
    batch = replace(batch, tracks={**batch.tracks, "text": replace(text, values=values)})
    drawn = draw_words(batch, MaskConfig(), seed=0)
    known = text.mask & (values > 0)
    assert not drawn[~known].any()
    assert drawn[known].float().mean().item() == pytest.approx(0.15, abs=0.01)


def runs(drawn):
    """Lengths of the runs of masked words."""
    edges = torch.nn.functional.pad(drawn.int(), (1, 1)).diff(dim=1)
    return (edges == -1).nonzero()[:, 1] - (edges == 1).nonzero()[:, 1]


@pytest.mark.parametrize(("rate", "span"), [(0.15, 3.0), (0.5, 4.0)])
def test_spans_have_their_mean_length_and_every_place_the_same_rate(rate, span):
    batch = fake_batch(SPECS, num_clips=400, num_words=400)
    known = batch.tracks["text"].mask
    drawn = draw_words(batch, MaskConfig(rate=rate, span=span), seed=0)
    assert drawn[known].float().mean().item() == pytest.approx(rate, abs=0.02)
    first = draw_words(fake_batch(SPECS, num_clips=4000, num_words=3), MaskConfig(rate=rate, span=span), seed=0)
    assert first[:, 0].float().mean().item() == pytest.approx(rate, abs=0.03)
    assert runs(drawn).float().mean().item() == pytest.approx(span, rel=0.1)
    alone = draw_words(batch, MaskConfig(rate=rate), seed=0)
    assert runs(alone).float().mean().item() == pytest.approx(1 / (1 - rate), rel=0.1)


def test_spans_depend_on_the_clip_alone_and_not_on_the_padding_behind_it():
    config = MaskConfig(rate=0.4, span=3.0)
    short, long = (fake_batch(SPECS, num_clips=8, num_words=words) for words in (12, 30))
    both = short.tracks["text"].mask & long.tracks["text"].mask[:, :12]
    assert torch.equal(draw_words(short, config, seed=1)[both], draw_words(long, config, seed=1)[:, :12][both])
    assert not torch.equal(draw_words(short, config, seed=2), draw_words(short, config, seed=1))


WAYS = MaskConfig(
    rate=0.5,
    hide=("text",),
    otherwise=[HideConfig(hide=("text", "audio"), share=0.3), HideConfig(hide=("text", "audio", "video"), share=0.2)],
)


def test_ways_are_drawn_by_their_shares_a_clip_and_epoch_and_leave_the_words_as_they_were():
    batch = fake_batch(SPECS, num_clips=4000, num_words=3)
    ways = draw_ways(batch, WAYS, seed=1)
    shares = torch.bincount(ways) / len(ways)
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    again = replace(batch, keys=batch.keys[::-1])
    assert torch.equal(draw_ways(again, WAYS, seed=1), ways.flip(0))
    assert not torch.equal(draw_ways(replace(batch, epochs=(1,) * 4000), WAYS, seed=1), ways)
    words = draw_words(batch, WAYS, seed=1)
    assert torch.equal(words, draw_words(batch, HALF, seed=1))
    masked = words[:, 0].float()  # of the same seed, epoch and key, and yet independent
    assert torch.corrcoef(torch.stack([masked, (ways == 0).float()]))[0, 1].abs() < 0.05
    assert not draw_ways(batch, HALF, seed=1).any()


def test_each_clip_hides_where_its_own_way_says():
    batch = fake_batch(SPECS, num_clips=3, num_words=4)
    words = batch.tracks["text"].mask
    hidden = hidden_steps(batch, words, WAYS, torch.tensor([0, 1, 2]))
    everywhere = hidden_steps(batch, words, MaskConfig())["audio"]
    assert torch.equal(hidden["text"], words)
    assert not hidden["audio"][0].any()
    assert everywhere[1:].any(dim=1).all()
    assert torch.equal(hidden["audio"][1:], everywhere[1:])
    assert "audio" not in hidden_steps(batch, words, WAYS)


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 0.0},
        {"rate": 1.5},
        {"hide": ("audio",)},
        {"margin_s": -1.0},
        {"span": 1.0},
        {"span": 5.0, "rate": 1.0},
        {"otherwise": [HideConfig(hide=("text",), share=1.0)]},
        {"otherwise": [HideConfig(hide=("text",), share=0.0)]},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        MaskConfig(**settings)


def test_every_way_hides_the_word_itself():
    with pytest.raises(ValueError, match="hide"):
        MaskConfig(otherwise=[HideConfig(hide=("audio",), share=0.5)])
