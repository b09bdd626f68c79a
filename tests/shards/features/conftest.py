"""Kaldi's own filter banks, to compare with."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def kaldi_filter_bank() -> Callable[[np.ndarray, int], np.ndarray]:
    """(samples [N] in [-1, 1] at 16 kHz, number of bands) -> [F, bands] by kaldi-native-fbank, without dither."""
    kaldi = pytest.importorskip("kaldi_native_fbank")

    def compute(samples: np.ndarray, bands: int) -> np.ndarray:
        options = kaldi.FbankOptions()
        options.frame_opts.dither = 0
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = bands
        bank = kaldi.OnlineFbank(options)
        bank.accept_waveform(16000, (samples * 32768).tolist())
        bank.input_finished()
        return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])

    return compute
