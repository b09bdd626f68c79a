import numpy as np
import pytest
import torch

from triptych.batch import Track
from triptych.models.steps import num_steps, on_steps


def track(*middles):
    """Clips of steps that last no time."""
    longest = max(map(len, middles))
    times = torch.zeros(len(middles), longest, 2)
    mask = torch.zeros(len(middles), longest, dtype=torch.bool)
    for clip, seconds in enumerate(middles):
        times[clip, : len(seconds)] = torch.tensor(seconds)[:, None]
        mask[clip, : len(seconds)] = True
    return Track(values=torch.zeros_like(mask), mask=mask, times=times)


def numbered(given):
    """A sequence whose only number is the step's."""
    return torch.arange(given.mask.shape[1]).float().expand(given.mask.shape)[..., None]


@pytest.mark.parametrize(
    ("seconds", "rate_hz", "steps"),
    [(0.3, 10, 3), (0.31, 10, 4), (7.0, 10, 70), (3599.9, 10, 35999), (0.01, 10, 1), (1 / 3, 3, 1), (60, 2.5, 150)],
)
def test_a_clip_has_a_step_for_every_part_of_it(seconds, rate_hz, steps):
    assert num_steps(np.array([seconds], dtype=np.float32), rate_hz).tolist() == [steps]


def test_a_row_is_the_mean_of_the_steps_that_lie_in_it():
    given = track([0.05, 0.15, 0.25, 0.35], [0.1, 0.3])
    rows = on_steps(numbered(given), given.mask, given, 5, [2, 2])
    assert rows[:, 0].tolist() == [0.5, 2.5, 0, 1]


def test_frames_on_the_boundary_of_a_step_belong_to_the_later_one():
    given = track([index / 25 for index in range(250)])  # 25 frames a second, each a moment
    rows = on_steps(numbered(given), given.mask, given, 5, [50])
    assert rows[:, 0].tolist() == [5 * row + 2 for row in range(50)]


def test_an_empty_row_is_the_step_nearest_to_its_middle():
    given = track([0.12, 0.68])
    rows = on_steps(numbered(given), given.mask, given, 10, [10])
    assert rows[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_steps_outside_of_the_clip_count_for_no_row_unless_none_is_nearer():
    given = track([-0.01, 0.05, 0.25], [0.35, 0.3])
    rows = on_steps(numbered(given), given.mask, given, 10, [2, 2])
    assert rows[:, 0].tolist() == [1, 1, 1, 1]


def test_fewer_steps_than_the_track_has_are_spread_over_it():
    given = track([0.1 * index for index in range(8)])  # each step of the sequence covers four: middles 0.15 and 0.55
    mask = torch.ones(1, 2, dtype=torch.bool)
    rows = on_steps(torch.tensor([[[10.0], [20.0]]]), mask, given, 2, [2])
    assert rows[:, 0].tolist() == [10, 20]


def test_a_clip_without_the_modality_has_zeros_and_leaves_the_others_alone():
    given = track([0.05], [], [0.05])
    rows = on_steps(1 + numbered(given), given.mask, given, 10, [1, 3, 2])
    assert rows[:, 0].tolist() == [1, 0, 0, 0, 1, 1]


def test_a_cls_has_no_time_whether_the_track_has_a_step_for_it_or_not():
    words, stored = track([0.1, 0.3], [], [0.5]), track([0.0, 0.1, 0.3], [], [0.0, 0.5])
    mask = stored.mask  # of a CLS and the words
    sequence = torch.tensor([[100.0, 1, 2], [100, 0, 0], [100, 3, 0]])[..., None]
    for given in (words, stored):
        rows = on_steps(sequence, mask, given, 5, [2, 1, 2], has_cls=True)
        assert rows[:, 0].tolist() == [1, 2, 0, 3, 3]
