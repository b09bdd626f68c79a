"""Rows whose labels their features tell, partly; only training rows are real where a test spoils the others."""

import numpy as np
import pytest
import torch

from linear_probe.heads.base import Problem


@pytest.fixture
def rows():
    """(number, width) -> correlated features [R, D] and four classes [R]."""

    def make(num, width, seed=0, num_classes=4):
        generator = np.random.default_rng(seed)
        labels = np.concatenate([np.arange(num_classes), generator.integers(0, num_classes, num - num_classes)])
        x = generator.normal(size=(num_classes, width))[labels] * 0.5 + generator.normal(size=(num, width))
        x += generator.normal(size=(num, 3)) @ generator.normal(size=(3, width)) + 5
        return torch.tensor(x, dtype=torch.float32), torch.tensor(labels)

    return make


@pytest.fixture
def halves():
    """R -> a problem that trains on the first half."""

    def make(num, seed=0):
        return Problem(np.arange(num // 2), np.arange(num // 2, num), seed)

    return make
