import torch

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.towers.tcn import GlobalLayerNorm, TcnConfig, TcnTower


def spec(bands):
    return FeatureSpec(name="x", modality="audio", version=1, rate_hz=100.0, shape=(bands,), dtype="float32")


def track(values_BTC):
    mask = torch.ones(values_BTC.shape[:2], dtype=torch.bool)
    return Track(values=values_BTC, mask=mask, times=torch.zeros(*mask.shape, 2))


def test_the_papers_size():
    """mpuc-mer (models/TCN.py at 1ae3add) with 128 bands: 217,813 parameters."""
    tower = TcnTower(TcnConfig(), spec(128), 512)
    assert sum(p.numel() for p in tower.parameters()) == 217_813


def test_a_repeat_of_five_blocks_reaches_31_steps_to_each_side():
    tower = TcnTower(TcnConfig(repeats=1), spec(4), 8).eval()
    # The norms join all steps of a clip: without them what is left is the convolutions' own reach.
    for module in tower.modules():
        if isinstance(module, GlobalLayerNorm):
            module.forward = lambda x, mask: x
    values = torch.randn(1, 101, 4)
    other = values.clone()
    other[:, 50] += 1
    changed = (tower(track(values)).sequence - tower(track(other)).sequence).abs().sum(dim=-1)[0] > 1e-7
    assert changed.nonzero()[[0, -1], 0].tolist() == [50 - 31, 50 + 31]


def test_the_norm_is_of_each_clips_own_real_steps():
    norm = GlobalLayerNorm(3)
    x = 5 + 2 * torch.randn(2, 3, 50)
    mask = torch.arange(50)[None] < torch.tensor([[50], [20]])
    out = norm(x, mask)
    for clip, length in enumerate((50, 20)):
        real = out[clip, :, :length]
        torch.testing.assert_close(real.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
        torch.testing.assert_close(real.var(unbiased=False), torch.tensor(1.0), rtol=0, atol=1e-4)
        assert torch.all(out[clip, :, length:] == 0)
