"""How much a soak does: all of it takes some minutes a test; TRIPTYCH_SOAK=0.1 does a tenth."""

import os
import time

import numpy as np
import pytest


@pytest.fixture
def trials():
    """`trials(20)`: that many, or the share of them that is asked for."""
    share = float(os.environ.get("TRIPTYCH_SOAK", "1"))
    return lambda number: max(1, round(share * number))


@pytest.fixture
def random(record_property) -> np.random.Generator:
    """Different each time, so that every soak tries something new; TRIPTYCH_SOAK_SEED repeats one."""
    seed = int(os.environ.get("TRIPTYCH_SOAK_SEED", time.time_ns() % 2**32))
    record_property("measured", f"TRIPTYCH_SOAK_SEED={seed}")
    print(f"TRIPTYCH_SOAK_SEED={seed}")  # pytest shows it where the test fails
    return np.random.default_rng(seed)
