import pytest
import torch

from triptych.models.blocks import mean_pool, segment_pool


def ragged(lengths, longest=None):
    torch.manual_seed(0)
    longest = longest or max(lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), longest, 4, dtype=torch.float64), mask


def test_one_segment_is_the_mean():
    x, mask = ragged([7, 1, 0, 4])
    assert torch.equal(segment_pool(x, mask, 1), mean_pool(x, mask))


@pytest.mark.parametrize("length", range(1, 21))
def test_six_segments_are_the_means_of_consecutive_parts_of_near_equal_size(length):
    x, mask = ragged([length], longest=20)
    x[:, :, 0] = torch.arange(20)  # the step's number
    x[:, :, 1] = 1.0
    pooled = segment_pool(x, mask, 6).view(6, 4)
    filled = pooled[:, 1] == 1
    assert torch.all(pooled[~filled] == 0)
    assert filled.sum() == min(length, 6)
    centres = pooled[filled, 0]
    assert torch.all(centres.diff() > 0)
    sizes = torch.full((6,), length // 6)
    if length >= 6:  # a centre is the mean of its first and last step, so that sizes follow from the centres
        starts = [0]
        for centre in centres.tolist():
            starts.append(int(2 * centre - starts[-1]) + 1)
        sizes = torch.tensor(starts).diff()
        assert starts[-1] == length
    assert sizes.max() - sizes.min() <= 1


def test_the_batch_around_a_clip_does_not_move_its_segments():
    x, mask = ragged([3, 17, 6, 0])
    together = segment_pool(x, mask, 6)
    for clip, length in enumerate((3, 17, 6)):
        alone = segment_pool(x[clip : clip + 1, :length], mask[clip : clip + 1, :length], 6)
        torch.testing.assert_close(alone[0], together[clip])
    assert torch.all(together[3] == 0)
