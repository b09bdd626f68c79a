from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import video
from torchvision.models._api import WeightsEnum

from triptych.batch import Track
from triptych.config import UserError, load
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoder
from triptych.models.towers import r2plus1d
from triptych.models.towers.r2plus1d import R2Plus1DConfig, R2Plus1DTower, frame_steps

SIDE = 32
COLOUR = FeatureSpec(
    name="faces", modality="video", version=1, rate_hz=12.5, shape=(SIDE, SIDE, 3), dtype="uint8", mean=112.0, std=69.0
)
GREY = replace(COLOUR, name="face_crops", shape=(SIDE, SIDE))
KINETICS = torch.tensor([[0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]])
"""Mean and standard deviation of the colours, of torchvision's documentation of the weights."""


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """A twelfth of the work; `test_at_the_real_size...` has the real size."""
    patch = pytest.MonkeyPatch()
    patch.setattr(r2plus1d, "SIZE", SIDE)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return R2Plus1DTower(R2Plus1DConfig(weights="random", frames=3), COLOUR, 8).eval()


@pytest.fixture(scope="module")
def pretrained():
    """As if trained: no statistic and no affine map is the one that a fresh network has."""
    torch.manual_seed(1)
    model = video.r2plus1d_18().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.fixture(scope="module")
def file(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "r2plus1d.pth"
    torch.save(pretrained.state_dict(), path)
    return path


def track(*lengths, steps=None, side=SIDE, channels=(3,), seed=1):
    steps = steps or max(lengths)
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (len(lengths), steps, side, side, *channels), generator=generator, dtype=torch.uint8)
    values[~mask] = 0
    return Track(values=values, mask=mask, times=torch.zeros(*mask.shape, 2))


def theirs(model, frames):
    """torchvision's features [B, 512] of frames [B, F, S, S, 3]."""
    last, model.fc = model.fc, nn.Identity()
    x = (frames / 255 - KINETICS[0]) / KINETICS[1]
    with torch.no_grad():
        features = model(x.permute(0, 4, 1, 2, 3))
    model.fc = last
    return features


@pytest.mark.parametrize(
    ("length", "frames", "taken"),
    [
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (80, 4, [10, 30, 50, 70]),
        (2, 8, [0, 0, 0, 0, 1, 1, 1, 1]),
        (3, 4, [0, 1, 1, 2]),
        (1, 3, [0, 0, 0]),
        (9, 1, [4]),
    ],
)
def test_frames_are_spread_evenly_over_the_real_steps(length, frames, taken):
    mask = torch.arange(length + 5) < length
    assert frame_steps(mask[None], frames).tolist() == [taken]


def test_steps_between_that_are_not_real_are_never_taken():
    mask = torch.tensor([[False, True, False, True, True, False]])
    assert frame_steps(mask, 3).tolist() == [[1, 3, 4]]


@pytest.mark.parametrize("weights", ["file", "random"])
def test_the_trunk_is_torchvisions(weights, file):
    norm = "synchronised"  # the one whose affine maps are parameters, as in torchvision
    given = R2Plus1DTower(R2Plus1DConfig(weights=str(file) if weights == "file" else "random", norm=norm), COLOUR, 8)
    with torch.device("meta"):
        model = video.r2plus1d_18()
    whole, classes = (sum(weight.numel() for weight in part.parameters()) for part in (model, model.fc))
    assert sum(weight.numel() for weight in given.trunk.parameters()) == whole - classes == 31_300_125


@pytest.mark.parametrize("norm", ["frozen", "synchronised"])
def test_with_torchvisions_weights_it_computes_what_torchvision_does(norm, file, pretrained):
    torch.manual_seed(2)
    tower = R2Plus1DTower(R2Plus1DConfig(weights=str(file), frames=9, norm=norm), COLOUR, 8).eval()
    tower.start_weights()
    given = track(9)
    with torch.no_grad():
        out = tower(given)
    assert out.sequence.shape == (1, 2, 512)
    expected = theirs(pretrained, given.values)
    torch.testing.assert_close(out.sequence.mean(dim=1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.pooled, tower.head(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_at_the_real_size_it_computes_what_torchvision_does(file, pretrained, monkeypatch):
    monkeypatch.setattr(r2plus1d, "SIZE", 112)
    tower = R2Plus1DTower(R2Plus1DConfig(weights=str(file)), replace(COLOUR, shape=(112, 112, 3)), 8).eval()
    tower.start_weights()
    given = track(16, side=112)
    with torch.no_grad():
        out = tower(given)
    expected = theirs(pretrained, given.values[:, 1::2])
    torch.testing.assert_close(out.sequence[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_safetensors_file_holds_the_same(file, pretrained, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(pretrained.state_dict(), path)
    towers = [R2Plus1DTower(R2Plus1DConfig(weights=str(weights)), COLOUR, 8) for weights in (path, file)]
    for tower in towers:
        tower.start_weights()
    one, other = (tower.trunk.state_dict() for tower in towers)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_grey_is_colour_with_equal_channels(tower):
    grey = track(3, channels=())
    colour = replace(grey, values=grey.values[..., None].expand(-1, -1, -1, -1, 3))
    with torch.no_grad():
        torch.testing.assert_close(tower(grey).pooled, tower(colour).pooled)


def test_pictures_of_another_size_are_resized(tower):
    small = track(3)
    large = replace(small, values=small.values.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    with torch.no_grad():
        assert tower(large).sequence.shape == (1, 1, 512)
        # each pixel twice as wide and high: shrinking gives nearly the picture back
        one, other = (tower._pictures(given, torch.tensor([0])) for given in (small, large))
    assert (one - other).abs().mean() < 0.5 * one.std()
    flat = replace(large, values=torch.full_like(large.values, 51))
    expected = ((0.2 - KINETICS[0]) / KINETICS[1]).view(1, 3, 1, 1, 1).expand(1, 3, 3, SIDE, SIDE)
    torch.testing.assert_close(tower._pictures(flat, torch.tensor([0])), expected, rtol=1e-4, atol=1e-4)


def test_a_clip_gives_the_same_in_any_batch_and_an_absent_one_zeros(tower):
    together = track(5, 0, 2)
    with torch.no_grad():
        out = tower(together)
        assert out.mask.tolist() == [[True], [False], [True]]
        assert torch.all(out.pooled[1] == 0)
        assert torch.all(out.sequence[1] == 0)
        for clip, length in ((0, 5), (2, 2)):
            alone = tower(
                Track(
                    values=together.values[clip, None, :length],
                    mask=together.mask[clip, None, :length],
                    times=together.times,
                )
            )
            torch.testing.assert_close(out.pooled[clip], alone.pooled[0], atol=1e-6, rtol=1e-6)


def test_bf16_gives_nearly_the_same(tower):
    given = track(3, 0)
    with torch.no_grad():
        plain = tower(given).pooled
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = tower(given).pooled
    torch.testing.assert_close(rough.float(), plain, atol=0.1, rtol=0.1)


def test_padding_has_no_gradient_and_frames_have(tower):
    given = track(2, 3, 0)
    values = given.values.float().requires_grad_()
    tower(replace(given, values=values)).pooled.square().sum().backward()
    tower.zero_grad()
    assert torch.all(values.grad[~given.mask] == 0)
    assert values.grad[given.mask].abs().amax(dim=(1, 2, 3)).min() > 0


def test_hidden_frames_tell_nothing(tower):
    given = track(3, 3)
    hidden = torch.tensor([[False, True, False], [False, False, False]])
    changed = given.values.clone()
    changed[0, 1] = 255 - changed[0, 1]
    with torch.no_grad():
        plain = tower(given)
        one, other = (tower(replace(given, values=values, hidden=hidden)) for values in (given.values, changed))
    assert torch.equal(one.pooled, other.pooled)
    assert not torch.allclose(one.pooled[0], plain.pooled[0], atol=1e-4)
    torch.testing.assert_close(one.pooled[1], plain.pooled[1])


@pytest.mark.parametrize(("norm", "side"), [("group", SIDE), ("synchronised", 48)])
def test_a_batch_in_which_all_lack_it_uses_every_weight_still(norm, side):
    """Other ranks may have the modality; their collectives must find a partner here."""
    tower = R2Plus1DTower(R2Plus1DConfig(weights="random", frames=2, norm=norm), COLOUR, 8)
    out = tower(track(0, 0, steps=4, side=side))
    assert torch.all(out.pooled == 0)
    out.pooled.sum().backward()
    assert all(weight.grad is not None and torch.all(weight.grad == 0) for weight in tower.parameters())


def test_what_frozen_keeps_must_be_there():
    with pytest.raises(ValueError, match="nothing would be normalised"):
        R2Plus1DConfig(weights="random", norm="frozen")
    with pytest.raises(ValueError, match="frozen or synchronised"):
        R2Plus1DConfig(weights="KINETICS400_V1", norm="group")
    assert R2Plus1DConfig(weights="random").chosen_norm == "group"
    assert R2Plus1DConfig(weights="KINETICS400_V1").chosen_norm == "frozen"


def test_weights_are_never_random_unasked():
    with pytest.raises(UserError, match="required and not given: weights"):
        load(R2Plus1DConfig, {})


@pytest.mark.parametrize(
    "spec",
    [
        replace(COLOUR, name="landmarks", shape=(68, 2), dtype="float32"),
        replace(COLOUR, shape=(4096,)),
        replace(COLOUR, shape=(32, 48, 3)),
        replace(COLOUR, shape=(32, 32, 4)),
        replace(COLOUR, dtype="float32"),
    ],
)
def test_another_feature_is_refused(spec):
    with pytest.raises(ValueError, match="r2plus1d: takes square pictures"):
        R2Plus1DTower(R2Plus1DConfig(weights="random"), spec, 8)


class Only(Encoder):
    def __init__(self, tower):
        super().__init__()
        self.towers = nn.ModuleDict({"video": tower, "other": nn.Linear(2, 2)})


@pytest.fixture
def without_file(tower):
    """A tower of weights that are not there, built in no time."""

    def build(weights):
        built = R2Plus1DTower.__new__(R2Plus1DTower)
        nn.Module.__init__(built)
        built.config, built.trunk = R2Plus1DConfig(weights=weights), tower.trunk
        return built

    return build


def test_a_file_is_wanted_at_the_start_only(tower, file):
    moved = R2Plus1DTower(R2Plus1DConfig(weights="no/such/file.pth", frames=3), COLOUR, 8)
    with pytest.raises(UserError, match=r"r2plus1d\.weights: 'no/such/file.pth' is no file"):
        Only(moved).start()
    there = R2Plus1DTower(R2Plus1DConfig(weights=str(file), frames=3), COLOUR, 8)
    before = there.trunk.stem[0].weight.clone()
    Only(there).start()
    assert not torch.equal(there.trunk.stem[0].weight, before)
    moved.load_state_dict(there.state_dict())  # as triptych.models.load does
    moved.eval(), there.eval()
    with torch.no_grad():
        assert torch.equal(moved(track(3)).pooled, there(track(3)).pooled)


def test_random_weights_start_as_they_were_built(tower):
    before = tower.trunk.layer4[1].conv1[0][0].weight.clone()
    Only(tower).start()
    assert torch.equal(tower.trunk.layer4[1].conv1[0][0].weight, before)


def test_a_name_that_is_nearly_right_is_named(without_file):
    with pytest.raises(UserError, match="Did you mean KINETICS400_V1"):
        without_file("KINETICS400_V2").start_weights()


def test_without_a_network_it_says_what_to_fetch(without_file, monkeypatch):
    def offline(*_, **options):
        assert options["check_hash"]
        assert options["weights_only"]
        raise OSError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"no route to host.*r2plus1d_18-91a641e6\.pth.*r2plus1d\.weights="):
        without_file("KINETICS400_V1").start_weights()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"stem.0.weight": torch.zeros(1)}, "is no R\\(2\\+1\\)D-18"),
        ({"state_dict": {"stem.0.weight": torch.zeros(1)}}, "else than names and tensors"),
        (torch.zeros(3), "else than names and tensors"),
        (SystemExit, "without running code"),
    ],
)
def test_a_file_of_something_else_is_refused(content, says, without_file, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=says):
        without_file(str(path)).start_weights()
