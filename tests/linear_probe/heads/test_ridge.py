import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from linear_probe.heads.config import Ridge
from triptych.config import UserError

GRID = [0.01, 1.0, 1000.0]


def sklearn_outputs(x, y, rows):
    scaled = StandardScaler().fit(x[:60].double()).transform(x.double())
    return np.stack([SklearnRidge(alpha=alpha).fit(scaled[rows], y[rows].double()).predict(scaled) for alpha in GRID])


@pytest.mark.parametrize("width", [10, 90])
def test_numbers_are_as_scikit_learn(rows, halves, width) -> None:
    x, classes = rows(120, width)
    y = torch.stack([classes - 1.3, classes % 2 + 0.1], dim=1).float()
    outputs = Ridge(alpha=GRID).fit(x, y, [halves(120)], "series", 2).outputs(0, x)
    assert np.abs(outputs.numpy() - sklearn_outputs(x, y, np.arange(60))).max() < 1e-6


def test_rows_without_a_label_are_left_out_for_that_output_only(rows, halves) -> None:
    x, classes = rows(120, 90)
    y = torch.stack([classes - 1.3, classes % 2 + 0.1, classes * 0.2], dim=1).float()
    y[10:30, 1] = torch.nan
    outputs = Ridge(alpha=GRID).fit(x, y, [halves(120)], "series", 3).outputs(0, x).numpy()
    kept = np.flatnonzero(~y[:60, 1].isnan())
    assert np.abs(outputs[:, :, [0, 2]] - sklearn_outputs(x, y[:, [0, 2]], np.arange(60))).max() < 1e-6
    assert np.abs(outputs[:, :, 1] - sklearn_outputs(x, y[:, 1], kept)).max() < 1e-6


@pytest.mark.parametrize("kind", ["classes", "emotions"])
def test_labels_are_told_apart_by_the_sign_of_a_target(rows, halves, kind) -> None:
    x, classes = rows(120, 10)
    signs = 2 * torch.nn.functional.one_hot(classes, 4).float() - 1
    y = classes if kind == "classes" else (signs + 1) / 2
    outputs = Ridge(alpha=GRID).fit(x, y, [halves(120)], kind, 4).outputs(0, x)
    assert np.abs(outputs.numpy() - sklearn_outputs(x, signs, np.arange(60))).max() < 1e-6


def test_a_class_without_training_rows_is_never_predicted(rows, halves) -> None:
    x, classes = rows(120, 10)
    classes[classes == 2] = 1
    outputs = Ridge(alpha=GRID).fit(x, classes, [halves(120)], "classes", 4).outputs(0, x)
    assert not (outputs.argmax(dim=2) == 2).any()


def test_only_training_rows_are_looked_at(rows, halves) -> None:
    x, classes = rows(60, 40)
    y = classes[:, None].float()
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[30:], spoilt_y[30:] = torch.nan, 1e30
    clean, spoilt = (Ridge().fit(*data, [halves(60)], "sentiment", 1) for data in ((x, y), (spoilt_x, spoilt_y)))
    assert torch.equal(clean.outputs(0, x), spoilt.outputs(0, x))
    assert clean.settings == ("alpha 1", "alpha 10", "alpha 100", "alpha 1000", "alpha 10000")
    assert clean.converged(0) == (True,) * 5


def test_what_it_cannot_fit_is_refused(rows, halves) -> None:
    x, classes = rows(20, 4)
    y = torch.stack([classes.float(), torch.full((20,), torch.nan)], dim=1)
    with pytest.raises(UserError, match=r"heads\.ridge: cannot weigh a stack"):
        Ridge().fit(x[:, None], y[:, :1], [halves(20)], "series", 1)
    with pytest.raises(UserError, match="no labels for one of the outputs"):
        Ridge().fit(x, y, [halves(20)], "series", 2)
