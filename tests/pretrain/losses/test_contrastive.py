import math

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.losses import tiles
from pretrain.losses.contrastive import VARIANTS, all_pairs, all_pairs_loss, pair_loss

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def tiny_tiles(monkeypatch):
    monkeypatch.setitem(tiles.TILE, "cpu", (3, 2))


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, [x for x in inputs if x is not None])


def agree(found, expected, relative):
    """Each tensor as a whole: the error's norm against the expected one's."""
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm().item() <= relative * other.norm().item()


@every_variant
@pytest.mark.parametrize("heat", [1, 0.05], ids=["plain", "large scores"])
@pytest.mark.parametrize("tile", [(3, 2), (2, 5), (1024, 1024)])
def test_every_variant_is_its_equation_whatever_the_tiles(naive, monkeypatch, variant, heat, tile):
    monkeypatch.setitem(tiles.TILE, "cpu", tile)
    (z_m, z_n), temperature, bias = naive.example(variant)
    found = pair_loss(z_m, z_n, temperature=heat * temperature, variant=variant, bias=bias)
    expected = naive.pair_loss(z_m, z_n, heat * temperature, variant, bias)
    assert found.shape == ()
    agree([found], [expected], 1e-10)
    inputs = (z_m, z_n, temperature, bias)
    agree(gradients(found, *inputs), gradients(expected, *inputs), 1e-8)


@every_variant
@pytest.mark.parametrize(("heat", "scale"), [(1, 1), (0.05, 20)], ids=["plain", "large scores"])
def test_single_precision_is_near_double(naive, tiny_tiles, variant, heat, scale):
    """Rounding grows with the scores, which are 20 times as large at a twentieth of the temperature."""
    (z_m, z_n), temperature, bias = inputs = naive.example(variant, 40, 16, dtype=torch.float32)
    found = pair_loss(z_m, z_n, temperature=heat * temperature, variant=variant, bias=bias)
    exact = [x.detach().double().requires_grad_() for x in (*inputs[0], *inputs[1:]) if x is not None]
    expected = naive.pair_loss(*exact[:2], heat * exact[2], variant, *exact[3:])
    agree([found], [expected], 1e-6 * scale)
    agree(gradients(found, z_m, z_n, temperature, bias), gradients(expected, *exact), 1e-5 * scale)


@pytest.mark.slow
@every_variant
def test_gradients_are_those_of_finite_differences(naive, tiny_tiles, variant):
    embeddings, temperature, bias = naive.example(variant, 4, 2, modalities=3)
    present = {"a": torch.tensor([True, True, True, False]), "b": torch.ones(4, dtype=torch.bool)}
    present["c"] = present["b"]
    names, inputs = list(present), [*embeddings, temperature] + ([] if bias is None else [bias])

    def loss(a, b, c, temperature, bias=None):
        named = dict(zip(names, (a, b, c), strict=True))
        return all_pairs_loss(named, present, temperature=temperature, variant=variant, bias=bias)

    assert torch.autograd.gradcheck(loss, inputs)


def test_two_views_are_the_authors_closed_form(naive):
    (z_m, z_n), temperature, _ = naive.example("two_view")
    s = naive.cosines(z_m, z_n) / temperature
    positives = torch.cat([s.diagonal(7), s.diagonal(-7)])
    others = s.masked_fill(torch.eye(14, dtype=torch.bool), -torch.inf)
    expected = (-0.5 * (positives - others.logsumexp(dim=1))).mean()
    agree([pair_loss(z_m, z_n, temperature=temperature, variant="two_view")], [expected], 1e-10)


@every_variant
def test_all_pairs_are_the_mean_over_both_directions_of_each_of_the_clips_that_have_both(naive, tiny_tiles, variant):
    embeddings, temperature, bias = naive.example(variant, modalities=3)
    named = dict(zip("abc", embeddings, strict=True))
    present = {name: torch.ones(7, dtype=torch.bool) for name in "abc"}
    present["a"][[0, 4]] = present["c"][4] = present["c"][6] = False
    setting = {"temperature": temperature, "variant": variant, "bias": bias}
    found = all_pairs_loss(named, present, **setting)
    losses = []
    for m, n in ("ab", "ba", "ac", "ca", "bc", "cb"):
        kept = (present[m] & present[n]).repeat(2 if variant == "two_view" else 1)
        losses.append(naive.pair_loss(named[m][kept], named[n][kept], temperature, variant, bias))
    expected = torch.stack(losses).mean()
    inputs = (*embeddings, temperature, bias)
    agree([found], [expected], 1e-10)
    agree(gradients(found, *inputs), gradients(expected, *inputs), 1e-8)
    swapped = all_pairs_loss({name: named[name] for name in "cab"}, present, **setting)
    agree([swapped], [found], 1e-10)


@every_variant
def test_heads_of_a_pair_are_compared_with_each_other_only(naive, variant):
    embeddings, temperature, bias = naive.example(variant, modalities=6)
    keys = [("a", "b"), ("b", "a"), ("c", "a"), ("a", "c"), ("b", "c"), ("c", "b")]
    heads = dict(zip(keys, embeddings, strict=True))
    present = {name: torch.ones(7, dtype=torch.bool) for name in "abc"}
    setting = {"temperature": temperature, "variant": variant, "bias": bias}
    made = all_pairs(heads, present, **setting)
    each = {f"{m}_to_{n}": pair_loss(heads[m, n], heads[n, m], **setting) for m, n in keys}
    assert made.pairs.keys() == each.keys()
    agree([made.loss], [torch.stack(list(each.values())).mean()], 1e-10)
    for name, loss in each.items():
        agree([made.pairs[name].loss], [loss], 1e-10)


@every_variant
def test_a_clip_counts_as_found_when_its_positive_is_the_best_candidate(naive, tiny_tiles, variant):
    (z_m, z_n), temperature, bias = naive.example(variant, 30, 3)
    present = {name: torch.ones(30, dtype=torch.bool) for name in "mn"}
    present["m"][7] = False
    made = all_pairs({"m": z_m, "n": z_n}, present, temperature=temperature, variant=variant, bias=bias)
    kept = (present["m"] & present["n"]).repeat(len(z_m) // 30)
    s = naive.cosines(z_m[kept], z_n[kept])
    answers = torch.arange(len(s))
    if variant == "two_view":
        answers = answers.roll(29)
        s.fill_diagonal_(-1)
    assert int(made.pairs["m_to_n"].correct) == int((s.argmax(dim=1) == answers).sum())
    assert int(made.pairs["n_to_m"].correct) == int((s.argmax(dim=0) == answers).sum())
    assert made.pairs["m_to_n"].count == made.pairs["n_to_m"].count == len(s)
    assert 0 < int(made.pairs["m_to_n"].correct) < len(s)


def test_a_pair_with_one_common_clip_is_left_out_and_a_batch_without_pairs_has_a_loss_of_zero(naive):
    (a, b, c), temperature, _ = naive.example("paper", modalities=3)
    flags = {"a": [1, 1, 1, 0, 0, 0, 0], "b": [1, 1, 1, 1, 0, 0, 0], "c": [0, 0, 1, 1, 1, 1, 1]}
    present = {name: torch.tensor(values, dtype=torch.bool) for name, values in flags.items()}
    setting = {"temperature": temperature, "variant": "paper"}
    made = all_pairs({"a": a, "b": b, "c": c}, present, **setting)
    expected = (pair_loss(a[:3], b[:3], **setting) + pair_loss(b[:3], a[:3], **setting)) / 4
    expected = expected + (pair_loss(b[2:4], c[2:4], **setting) + pair_loss(c[2:4], b[2:4], **setting)) / 4
    agree([made.loss], [expected], 1e-10)
    assert made.num_pairs == 4
    assert {name: pair.count for name, pair in made.pairs.items()} == {
        "a_to_b": 3, "b_to_a": 3, "a_to_c": 0, "c_to_a": 0, "b_to_c": 2, "c_to_b": 2
    }  # fmt: skip
    alone = all_pairs({"a": a, "c": c}, present, **setting)
    assert (alone.num_pairs, alone.loss.item()) == (0, 0)
    assert not gradients(alone.loss, a)[0].any()
    with pytest.raises(ValueError, match="no two modalities of a, b, c have 2 clips in common"):
        all_pairs_loss({"a": a, "c": c}, present, **setting)


@pytest.mark.parametrize(("variant", "expected"), [("paper", math.log(63)), ("infonce", math.log(64))])
@pytest.mark.parametrize("temperature", [1e-3, 0.01, 0.07, 10])
def test_embeddings_that_are_all_the_same_have_the_loss_of_guessing_and_nothing_right(variant, expected, temperature):
    z = torch.randn(512, generator=torch.Generator().manual_seed(0)).expand(64, -1).clone().requires_grad_()
    present = dict.fromkeys("mn", torch.ones(64, dtype=torch.bool))
    made = all_pairs({"m": z, "n": z.detach()}, present, temperature=temperature, variant=variant)
    assert made.loss.item() == pytest.approx(expected, rel=1e-4)
    assert [int(pair.correct) for pair in made.pairs.values()] == [0, 0]
    made.loss.backward()
    assert bool(z.grad.isfinite().all())


@every_variant
def test_a_clip_near_all_others_hides_nothing_at_a_low_temperature(naive, variant):
    """Its column's scores are so far above the others' that exponentials of a common scale would be lost."""
    (z_m, z_n), _, bias = naive.example(variant, 8, 64, dtype=torch.float32)
    with torch.no_grad():
        z_m += 50
        z_n[2] = 1
        z_n[3:] -= z_n[3:].mean(dim=1, keepdim=True)
    present = dict.fromkeys("mn", torch.ones(8, dtype=torch.bool))
    found = all_pairs_loss({"m": z_m, "n": z_n}, present, temperature=0.01, variant=variant, bias=bias)
    exact = [z.detach().double().requires_grad_() for z in (z_m, z_n)]
    ways = (exact, exact[::-1])
    expected = sum(naive.pair_loss(*way, 0.01, variant, None if bias is None else bias.double()) for way in ways) / 2
    agree([found], [expected], 1e-5)
    agree(gradients(found, z_m, z_n), gradients(expected, *exact), 1e-3)


@every_variant
def test_an_embedding_of_zeros_has_no_direction_and_spoils_nothing(naive, variant):
    (z_m, z_n), temperature, bias = naive.example(variant)
    with torch.no_grad():
        z_m[2] = 0
    loss = pair_loss(z_m, z_n, temperature=temperature, variant=variant, bias=bias)
    of_m, of_n = gradients(loss, z_m, z_n)
    assert bool(loss.isfinite())
    assert not of_m[2].any()
    assert bool(of_m.isfinite().all() and of_n.isfinite().all())


def test_half_precision_embeddings_are_compared_in_single(naive):
    (z_m, z_n), _, _ = naive.example("paper", 30, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pair_loss(z_m, z_n, temperature=0.07, variant="paper")
    same = pair_loss(z_m.float(), z_n.float(), temperature=0.07, variant="paper")
    assert loss.dtype == torch.float32
    assert loss.item() == same.item()
    assert gradients(loss, z_m)[0].dtype == torch.bfloat16


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.untyped_storage().nbytes() // one.element_size())
        return made


@every_variant
@pytest.mark.parametrize("heat", [1, 0.05], ids=["plain", "large scores"])
def test_a_training_step_makes_nothing_larger_than_an_embedding(naive, monkeypatch, variant, heat):
    monkeypatch.setitem(tiles.TILE, "cpu", (20, 16))
    (a, b, c), temperature, bias = naive.example(variant, 96, 4, modalities=3, dtype=torch.float32)
    present = {name: torch.ones(96, dtype=torch.bool) for name in "abc"}
    present["a"][3] = False
    saved = []
    largest = Largest()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x), largest:
        named, heated = {"a": a, "b": b, "c": c}, heat * temperature
        all_pairs_loss(named, present, temperature=heated, variant=variant, bias=bias).backward()
    assert largest.numel == a.numel()
    assert max(saved) == a.numel()
    assert sum(saved) < 3 * a.numel() + 40 * len(a)  # the embeddings themselves, and a few numbers a row


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_ranks_add_up_to_what_one_process_computes(tmp_path, ranks, warm, world):
    outputs = tmp_path / "out", tmp_path / "err"
    started = [warm.start([ranks.__file__, str(rank), str(world), str(tmp_path)], outputs) for rank in range(world)]
    try:
        assert [process.wait(timeout_s=100) for process in started] == [0] * world, outputs[1].read_text()
    finally:
        for process in started:
            process.kill()
    shares = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(world)]
    for name, whole in ranks.all_shares(None).items():
        together = sum(share[name] for share in shares)
        torch.testing.assert_close(together, whole, rtol=1e-9, atol=1e-12, msg=name)
        own = [float(share[name]) for share in shares if name.endswith("count")]
        assert not own or len(set(own)) > 1  # unequal shares


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "infonse"}, "unknown variant 'infonse' of the contrastive loss. Did you mean infonce?"),
        ({"temperature": 0.0}, "temperature=0: it divides the cosines and must be positive"),
        ({"temperature": torch.tensor(-1.0)}, "temperature=-1:"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"variant": "sigmoid"}, "the variant sigmoid needs a bias"),
        ({"bias": 1.0}, "the variant paper has no bias"),
        ({"z_m": torch.zeros(1, 3), "z_n": torch.zeros(1, 3)}, "it needs 2 at least, and got 1"),
        ({"z_m": torch.zeros(4, 2)}, "all .N, D. alike"),
        ({"variant": "two_view"}, "two views of every clip, view 1 first, and got 5 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    setting = {"z_m": torch.zeros(5, 3), "z_n": torch.zeros(5, 3), "temperature": 0.07, "variant": "paper", **change}
    with pytest.raises(ValueError, match=message):
        pair_loss(setting.pop("z_m"), setting.pop("z_n"), **setting)


@pytest.mark.parametrize(
    ("keys", "present", "message"),
    [
        (["a"], {"a": 5}, "embeddings of two modalities or more are needed"),
        (["a", ("a", "b")], {"a": 5, "b": 5}, "keyed by modality or by pair, not both"),
        ([("a", "b"), ("b", "a"), ("a", "c")], {"a": 5, "b": 5, "c": 5}, "embeddings lack .*'c', 'a'"),
        (["a", "b"], {"a": 5}, "present must say of each of the 5 clips whether it has b"),
        (["a", "b"], {"a": 5, "b": 4}, "present must say of each of the 5 clips whether it has b"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(keys, present, message):
    flags = {name: torch.ones(number, dtype=torch.bool) for name, number in present.items()}
    with pytest.raises(ValueError, match=message):
        all_pairs({key: torch.ones(5, 3) for key in keys}, flags, temperature=0.07, variant="paper")
