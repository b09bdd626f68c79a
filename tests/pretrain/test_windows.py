from dataclasses import replace

import pytest
import torch

from pretrain.windows import WindowsConfig, crop, crop_batch, draw_windows, inside
from triptych import config
from triptych.batch import Batch, Track, fake_batch
from triptych.modalities import FeatureSpec

SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
    "video": FeatureSpec(
        name="faces", modality="video", version=1, rate_hz=10.0, shape=(3, 2, 2), dtype="uint8", support_s=(-0.06, 0.1)
    ),
}


def many_clips(num_clips, seconds, epoch=0):
    """Clips of these many seconds of frames at 10 Hz."""
    starts = torch.arange(round(seconds * 10)) / 10
    times = torch.stack([starts, starts + 0.1], dim=-1).expand(num_clips, -1, -1)
    mask = torch.ones(times.shape[:2], dtype=torch.bool)
    track = Track(values=torch.zeros(*mask.shape, 1), mask=mask, times=times)
    keys = tuple(f"clip-{number}" for number in range(num_clips))
    return Batch(keys=keys, epochs=(epoch,) * num_clips, tracks={"audio": track})


def pick(batch, order):
    """The clips of a batch in another order."""
    tracks = {
        name: Track(values=track.values[order], mask=track.mask[order], times=track.times[order])
        for name, track in batch.tracks.items()
    }
    keys, epochs = (tuple(given[i] for i in order) for given in (batch.keys, batch.epochs))
    return replace(batch, keys=keys, epochs=epochs, tracks=tracks)


def test_windows_are_drawn_by_seed_epoch_and_key_wherever_the_clip_stands_in_a_batch():
    batch = fake_batch(SPECS, num_clips=8, num_words=20)
    windows = WindowsConfig(seconds=1.0)
    drawn = draw_windows(batch, windows, 2, seed=1)
    assert drawn.shape == (8, 2, 2)
    order = [5, 0, 7]
    assert torch.equal(draw_windows(pick(batch, order), windows, 2, seed=1), drawn[order])
    assert (draw_windows(batch, windows, 2, seed=2) != drawn).any(dim=(1, 2)).all()
    assert (draw_windows(replace(batch, epochs=(1,) * 8), windows, 2, seed=1) != drawn).any(dim=(1, 2)).all()
    assert torch.equal(draw_windows(batch, windows, 1, seed=1), drawn[:, :1])


@pytest.mark.parametrize("min_overlap", [0.0, 0.5, 0.9])
def test_windows_lie_in_the_clip_and_views_differ_and_overlap_as_asked(min_overlap):
    batch = many_clips(2000, seconds=8.0)
    drawn = draw_windows(batch, WindowsConfig(seconds=3.0, min_overlap=min_overlap), 2, seed=0)
    starts, ends = drawn.unbind(-1)
    torch.testing.assert_close(ends - starts, torch.full_like(starts, 3.0), rtol=0, atol=1e-5)
    assert starts.min() >= 0
    assert ends.max() <= 8.0
    apart = (starts[:, 0] - starts[:, 1]).abs()
    assert (apart > 0).all()
    allowed = 3.0 * (1 - min_overlap)
    assert 0.95 * allowed < apart.max() <= allowed + 1e-5


def test_each_view_starts_anywhere_in_the_clip_equally_often():
    batch = many_clips(4000, seconds=8.05)  # middles from 0.05 to 7.95
    starts = draw_windows(batch, WindowsConfig(seconds=3.0, min_overlap=0.2), 2, seed=0)[..., 0]
    for view in starts.unbind(dim=1):
        # Kolmogorov and Smirnov: 1.95 / sqrt(n) is passed once in a thousand draws
        ranks = torch.arange(1, 4001) / 4000
        assert (view.sort().values / (7.95 - 3.0) - ranks).abs().max() < 1.95 / 4000**0.5


def test_a_clip_that_is_not_longer_than_a_window_is_taken_whole():
    batch = fake_batch(SPECS, num_clips=4, num_words=6, absent={"audio": (3,), "video": (3,), "text": (3,)})
    drawn = draw_windows(batch, WindowsConfig(seconds=2.0), 2, seed=0)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    for name, track in crop_batch(batch, drawn[:, 1]).tracks.items():
        for given, kept in zip(vars(batch.tracks[name]).values(), vars(track).values(), strict=True):
            assert given is kept is None or torch.equal(given, kept), name


def slow_crop(track, clip, start, end):
    """Values, times and hidden of the steps that a clip keeps, looked at one by one."""
    kept = []
    for step in range(track.mask.shape[1]):
        middle = (track.times[clip, step, 0] + track.times[clip, step, 1]) / 2
        if track.mask[clip, step] and start <= middle <= end:
            kept.append((track.values[clip, step], track.times[clip, step] - start, track.hidden[clip, step]))
    return kept


@pytest.mark.parametrize("modality", SPECS)
def test_a_crop_keeps_what_a_look_at_each_step_would_keep(modality):
    batch = fake_batch(SPECS, num_clips=9, num_words=24, absent=dict.fromkeys(SPECS, (2,)))
    track = batch.tracks[modality]
    if modality == "text":  # words of any length and with gaps; those of clip 4 begin late
        edges = torch.rand(9, 48, generator=torch.Generator().manual_seed(1)).sort(dim=1).values * 7.2
        edges[4] = 5.0 + edges[4] / 7.2
        track = replace(track, times=edges.view(9, 24, 2) * track.mask[..., None])
    hidden = torch.rand(track.mask.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    track = replace(track, hidden=hidden & track.mask)
    windows = draw_windows(batch, WindowsConfig(seconds=1.3), 1, seed=4)[:, 0]
    windows[4] = torch.tensor([2.0, 3.3])
    cropped = crop(track, windows)
    expected = [slow_crop(track, clip, *windows[clip]) for clip in range(9)]
    assert cropped.mask.shape[1] == max(map(len, expected)) > 0
    assert cropped.values.dtype == track.values.dtype
    assert cropped.values.shape[2:] == track.values.shape[2:]
    for clip, steps in enumerate(expected):
        assert cropped.mask[clip].tolist() == [step < len(steps) for step in range(cropped.mask.shape[1])]
        for given, column in ((cropped.values, 0), (cropped.times, 1), (cropped.hidden, 2)):
            if steps:
                assert torch.equal(given[clip, : len(steps)], torch.stack([step[column] for step in steps]))
            assert not given[clip, len(steps) :].any()
    assert not cropped.present[2]
    assert torch.equal(cropped.present, inside(track, windows).any(dim=1))
    if modality == "text":
        assert not cropped.present[4]  # no word in its window
    real = cropped.times.mean(dim=-1)[cropped.mask]
    assert real.min() >= 0
    assert real.max() <= 1.3 + 1e-5


def test_a_modality_without_any_step_in_the_windows_keeps_one_empty_step():
    batch = fake_batch(SPECS, num_clips=2)
    audio = crop(batch.tracks["audio"], torch.tensor([[90.0, 91.0], [90.0, 91.0]]))
    assert audio.values.shape == (2, 1, 8)
    assert not audio.values.any()
    assert not audio.present.any()


def test_all_modalities_of_a_clip_are_cropped_to_one_window_and_labels_and_targets_stay():
    batch = fake_batch(SPECS, num_clips=3, num_words=24)
    given = {"labels": {"emotion": torch.arange(3)}, "targets": {"contrastive/windows": torch.zeros(3, 1, 2)}}
    batch = replace(batch, **given)
    cropped = crop_batch(batch, torch.tensor([[1.0, 3.0]] * 3))
    assert (cropped.keys, cropped.labels, cropped.targets) == (batch.keys, batch.labels, batch.targets)
    assert [cropped.tracks[name].mask[0].sum() for name in ("audio", "video")] == [40, 20]
    assert batch.tracks["audio"].mask[0].sum() == 144  # the batch itself is as it was


@pytest.mark.parametrize(
    ("given", "message"), [(["seconds=0"], "windows.seconds"), (["seconds=2", "min_overlap=1"], "views are the same")]
)
def test_impossible_windows_are_refused(given, message):
    with pytest.raises(config.UserError, match=message):
        config.load(WindowsConfig, {}, given)
