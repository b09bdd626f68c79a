import math

import pytest
import torch

from triptych.config import UserError
from triptych.training.loss_scale import GROW_AFTER, LossScale


def test_the_scale_moves_as_torchs_own():
    own = LossScale()
    scale, tracker = torch.full((), own.value), torch.zeros((), dtype=torch.int32)
    finite = [math.nan, math.inf, *[1.0] * (GROW_AFTER + 5), math.inf, *[1.0] * (2 * GROW_AFTER - 1)]
    for step, norm in enumerate(finite):
        own.update(norm, step)
        found = torch.tensor(0.0 if math.isfinite(norm) else 1.0)
        torch._amp_update_scale_(scale, tracker, found, 2.0, 0.5, GROW_AFTER)
        assert (own.value, own.good_steps) == (float(scale), int(tracker)), step
    assert own.skipped_steps == 3
    assert own.value == 2.0**15


def test_what_is_stored_goes_on_equally():
    own = LossScale()
    for step, norm in enumerate([math.inf, *[1.0] * (GROW_AFTER - 1)]):
        own.update(norm, step)
    again = LossScale.of(own.state())
    assert again == own
    again.update(1.0, 0)
    assert again.value == 2 * own.value


def test_overflow_after_overflow_ends_with_what_to_do():
    own = LossScale()
    for step in range(16):
        own.update(math.inf, step)
    with pytest.raises(UserError, match=r"step 16: .* \(16 steps .* bf16 or fp32, or with a lower learning rate"):
        own.update(math.inf, 16)
