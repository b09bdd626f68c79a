"""The equations written out, one row after the other, in whatever precision the embeddings have."""

import torch


def cosines(z_m, z_n):
    return (z_m / z_m.norm(dim=1, keepdim=True)) @ (z_n / z_n.norm(dim=1, keepdim=True)).T


def pair_loss(z_m, z_n, temperature, variant, bias=None):
    s = cosines(z_m, z_n) / temperature
    num, rows = len(s), []
    for i in range(num):
        others = torch.tensor([j for j in range(num) if j != i])
        if variant == "paper":
            rows.append(-torch.log(s[i, i].exp() / s[i, others].exp().sum()))
        elif variant == "infonce":
            rows.append(-torch.log(s[i, i].exp() / s[i].exp().sum()))
        elif variant == "two_view":
            positive = s[i, (i + num // 2) % num]
            rows.append(-0.5 * (positive - torch.log(s[i, others].exp().sum())))
        else:
            y = torch.tensor([1.0 if j == i else -1.0 for j in range(num)], dtype=s.dtype)
            rows.append(-torch.log(1 / (1 + (-y * (s[i] + bias)).exp())).sum())
    return torch.stack(rows).mean()


def example(variant, num_clips=7, width=5, modalities=2, dtype=torch.float64, seed=0):
    """Embeddings whose positives are alike, a temperature and, for sigmoid, a bias: all leaves that take gradients."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * num_clips if variant == "two_view" else num_clips
    common = torch.randn(num_clips, width, generator=generator, dtype=torch.float64).repeat(rows // num_clips, 1)
    drawn = [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(modalities)]
    embeddings = [(3 * (common + noise)).to(dtype).requires_grad_() for noise in drawn]
    temperature = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    bias = torch.tensor(-1.5, dtype=dtype, requires_grad=True) if variant == "sigmoid" else None
    return embeddings, temperature, bias
