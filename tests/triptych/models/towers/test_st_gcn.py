from dataclasses import replace

import pytest
import torch

from triptych.batch import Track
from triptych.modalities import FeatureSpec
from triptych.models.towers.st_gcn import EDGES, StGcnConfig, StGcnTower, normalised_adjacency

SPEC = FeatureSpec(name="landmarks", modality="video", version=1, rate_hz=25.0, shape=(68, 2), dtype="float32")
MIRROR = {
    **{17 + i: 26 - i for i in range(10)}, **{27 + i: 27 + i for i in range(4)}, **{31 + i: 35 - i for i in range(5)},
    36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 42: 39, 43: 38, 44: 37, 45: 36, 46: 41, 47: 40,
    **{48 + i: 54 - i for i in range(7)}, **{55 + i: 59 - i for i in range(5)},
    **{60 + i: 64 - i for i in range(5)}, 65: 67, 66: 66, 67: 65,
}  # fmt: skip
"""Point of the 68 -> the same one on the other side of the face."""


def build(norm="group", seed=0):
    torch.manual_seed(seed)
    return StGcnTower(StGcnConfig(channels=(8, 16), norm=norm, dropout=0.0), SPEC, 12).double().eval()


def track(*lengths, steps=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    steps = steps or max(lengths)
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    values = torch.zeros(len(lengths), steps, 68, 2, dtype=torch.float64)
    for clip, length in enumerate(lengths):
        values[clip, :length] = torch.randn(length, 68, 2, generator=generator, dtype=torch.float64)
    return Track(values=values, mask=mask, times=torch.zeros(*mask.shape, 2))


def test_the_graph_is_the_face():
    assert len(EDGES) == 65 == len({frozenset(edge) for edge in EDGES})
    assert {point for edge in EDGES for point in edge} == set(range(17, 68))
    reached, waiting = set(), [17]
    while waiting:
        point = waiting.pop()
        if point not in reached:
            reached.add(point)
            waiting += [other for edge in EDGES if point in edge for other in edge]
    assert reached == set(range(17, 68))


def test_both_sides_of_the_face_have_the_same_edges():
    mirrored = {frozenset(MIRROR[point] for point in edge) for edge in EDGES}
    assert mirrored == {frozenset(edge) for edge in EDGES}


def test_self_loops_are_added_once():
    adjacency = normalised_adjacency()
    neighbours = torch.tensor([sum(point in edge for edge in EDGES) for point in range(17, 68)])
    torch.testing.assert_close(adjacency.diagonal(), 1 / (1 + neighbours))
    torch.testing.assert_close(adjacency, adjacency.T)
    assert int((adjacency > 0).sum()) == 51 + 2 * 65
    torch.testing.assert_close(torch.linalg.eigvalsh(adjacency).max(), torch.tensor(1.0))


@pytest.mark.parametrize("norm", ["group", "synchronised"])
def test_a_clip_gives_the_same_in_any_batch(norm):
    tower, together = build(norm), track(9, 4, 0, 1)
    out = tower(together)
    assert out.sequence.shape == (4, 5, 16)
    assert out.mask.sum(dim=1).tolist() == [5, 2, 0, 1]
    assert torch.all(out.pooled[2] == 0)
    assert torch.all(out.sequence[~out.mask] == 0)
    assert out.pooled[[0, 1, 3]].abs().amin(dim=0).max() > 1e-3
    for clip, length in ((0, 9), (1, 4), (3, 1)):
        alone = tower(
            Track(
                **{name: value[clip : clip + 1, :length] for name, value in vars(together).items() if value is not None}
            )
        )
        torch.testing.assert_close(out.pooled[clip], alone.pooled[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(out.sequence[clip, : alone.sequence.shape[1]], alone.sequence[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", ["group", "synchronised"])
def test_padding_has_no_gradient_at_all(norm):
    given = track(9, 4, 0)
    values = given.values.clone().requires_grad_()
    out = build(norm).train()(replace(given, values=values))
    (out.pooled.square().sum() + out.sequence.square().sum()).backward()
    assert values.grad.isfinite().all()
    assert torch.all(values.grad[~given.mask] == 0)
    assert values.grad[0, :, 17:].abs().amax(dim=(1, 2)).min() > 0


def test_hidden_steps_tell_nothing_not_even_of_how_wide_they_are():
    tower, given = build(), track(9, 6)
    hidden = torch.zeros_like(given.mask)
    hidden[0, 2:5] = True
    wide = given.values.clone()
    wide[0, 2:5] *= 100
    one, other = (tower(replace(given, values=values, hidden=hidden)) for values in (given.values, wide))
    assert torch.equal(one.pooled, other.pooled)
    assert torch.equal(one.sequence, other.sequence)
    assert not torch.allclose(one.pooled[0], tower(given).pooled[0], atol=1e-3)
    assert torch.equal(one.pooled[1], tower(given).pooled[1])


def test_a_step_without_a_face_is_as_a_hidden_one():
    tower, given = build(), track(9)
    values, hidden = given.values + 5, torch.zeros_like(given.mask)
    values[:, 3], hidden[:, 3] = 0, True
    lost = tower(replace(given, values=values))
    torch.testing.assert_close(lost.pooled, tower(replace(given, hidden=hidden)).pooled)
    assert tower(replace(given, values=values * 0)).pooled.isfinite().all()


def test_where_the_face_is_and_how_large_says_nothing():
    tower, given = build(), track(7, 5)
    moved = given.values * torch.tensor([3.0, 0.25]) + torch.tensor([-40.0, 11.0])
    torch.testing.assert_close(
        tower(given).pooled, tower(replace(given, values=moved * given.mask[..., None, None])).pooled
    )


def test_the_jaw_is_left_out():
    tower, given = build(), track(7)
    values = given.values.clone()
    values[:, :, :17] += 3
    assert torch.equal(tower(given).pooled, tower(replace(given, values=values)).pooled)


def test_the_order_of_time_and_points_matters():
    tower, given = build(), track(9)
    pooled = tower(given).pooled
    for axis in (1, 2):
        turned = tower(replace(given, values=given.values.flip(axis))).pooled
        assert not torch.allclose(pooled, turned, atol=1e-3)


def test_the_default_has_as_many_weights_as_the_paper_without_its_last_map():
    weights = sum(weight.numel() for weight in StGcnTower(StGcnConfig(), SPEC, 512).parameters())
    assert 0.5e6 < weights < 1.5e6


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"channels": ()}, "channels"), ({"channels": (8, 0)}, "channels"), ({"dropout": 1.0}, "dropout")],
)
def test_settings_that_make_no_tower_are_refused(settings, says):
    with pytest.raises(ValueError, match=f"st_gcn.{says}"):
        StGcnConfig(**settings)


def test_another_feature_is_refused():
    with pytest.raises(ValueError, match=r"landmarks.*faces has \[112, 112\]"):
        StGcnTower(StGcnConfig(), replace(SPEC, name="faces", shape=(112, 112)), 8)
